"""Edits as a LoRA adapter that a stock `peft` loads: ΔW = B A, of exactly the rank that ΔW has.

Written by hand, so that peft is not needed here. Each site has a rank of its own and a scale of 1
(its alpha is its rank). Factors become B and A by one QR of each side and an SVD of what is between
(at most terms x terms), in float64; terms that add nothing are dropped. peft's A is r x inputs and
its B outputs x r for `nn.Linear` and `Conv1D` alike.

Shape suffixes: K terms, r rank, O outputs, I inputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from pipeline.editing.patch import Patch, linear_map
from pipeline.editing.updates import Factors, Update
from pipeline.errors import EditorError
from pipeline.models import Face
from pipeline.storage import write_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# A classifier's own peft class would put a copy of its head into the adapter.
_TASKS = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "classifier": None}


def compress(updates: Sequence[Update]) -> Factors:
    """The sum of one-row updates as factors of its exact rank, with orthogonal terms.

    Returns:
        left_1rO with unit terms times singular values, right_1rI with unit terms. Rank 0 where
        nothing is added. Rank counts singular values above rounding in float64; an update that
        was written out in float32 has its rank by float32.
    """
    factors = [update for update in updates if isinstance(update, Factors)]
    if len(factors) == len(updates):
        left_KO = torch.cat([update.left_RKO[0] for update in factors]).double()
        right_KI = torch.cat([update.right_RKI[0] for update in factors]).double()
        q_Or, r_left = torch.linalg.qr(left_KO.T)
        q_Ir, r_right = torch.linalg.qr(right_KI.T)
        u, s_r, vh = torch.linalg.svd(r_left @ r_right.T)
        left_Or, right_rI = q_Or @ u[:, : len(s_r)], vh[: len(s_r)] @ q_Ir.T
        epsilon = torch.finfo(torch.float64).eps
    else:
        total_OI = torch.stack([update.dense_ROI()[0].double() for update in updates]).sum(0)
        left_Or, s_r, right_rI = torch.linalg.svd(total_OI, full_matrices=False)
        epsilon = torch.finfo(torch.float32).eps
    least = s_r.max() * max(left_Or.shape[0], right_rI.shape[1]) * epsilon
    rank = int((s_r > least).sum())
    left_rO = (left_Or[:, :rank] * s_r[:rank]).T
    return Factors(left_rO.float()[None].contiguous(), right_rI[:rank].float()[None].contiguous())


def write(
    face: Face, updates: Mapping[str, Sequence[Update]], folder: Path, source: str
) -> dict[str, int]:
    """Write an adapter into a folder; returns each site's rank.

    Raises:
        EditorError: the edits add nothing to any site.
    """
    compressed = {site: compress(parts) for site, parts in updates.items()}
    ranks = {site: found.left_RKO.shape[1] for site, found in compressed.items()}
    live = {site: rank for site, rank in ranks.items() if rank}
    if not live:
        raise EditorError(
            expected="edits that change a weight", found="none that does", remedy="Edit first."
        )
    tensors = {}
    for site in live:
        tensors[f"{_PREFIX}{site}.lora_A.weight"] = compressed[site].right_RKI[0]
        tensors[f"{_PREFIX}{site}.lora_B.weight"] = compressed[site].left_RKO[0].T.contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / CONFIG, _config(face, live, source))
    return ranks


def read(folder: Path) -> Patch:
    """An adapter as a patch: what peft would add, from the files alone."""
    tensors = load_file(folder / WEIGHTS)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    sites = sorted(config["rank_pattern"])
    updates: dict[str, Update] = {}
    for site in sites:
        a_rI: Tensor = tensors[f"{_PREFIX}{site}.lora_A.weight"]
        b_Or: Tensor = tensors[f"{_PREFIX}{site}.lora_B.weight"]
        scale = config["alpha_pattern"][site] / config["rank_pattern"][site]
        updates[site] = Factors(scale * b_Or.T[None], a_rI[None])
    return Patch(updates)


def _config(face: Face, ranks: Mapping[str, int], source: str) -> dict[str, Any]:
    most = max(ranks.values())
    return {
        "peft_type": "LORA",
        "task_type": _TASKS[face.kind],
        "base_model_name_or_path": source or None,
        "inference_mode": True,
        "r": most,
        "lora_alpha": most,
        "rank_pattern": dict(ranks),
        "alpha_pattern": dict(ranks),
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": all(_is_conv(face.model, site) for site in ranks),
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "modules_to_save": None,
    }


def _is_conv(model: nn.Module, site: str) -> bool:
    return isinstance(linear_map(model, site), Conv1D)
