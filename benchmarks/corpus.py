"""Second moments over a corpus, against one text at a time through the whole model.

Shape suffixes: N tokens, I inputs of a site.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from benchmarks import material
from benchmarks.clock import Contest, Found
from benchmarks.setup import Setup
from pipeline.editing import summing
from pipeline.editing.patch import linear_map
from pipeline.models.layouts import downs


def moments(setup: Setup) -> list[Contest]:
    """Second moments at MEMIT's layers."""
    face, work = setup.face, setup.work
    if face.kind != "causal":
        return []
    texts = material.corpus(setup.size)
    sites = [downs(face.model)[layer] for layer in work.layers]

    def ours(count: int) -> Found:
        total = summing._Sum(face, sites, None)
        total.add(texts[: count // work.text])
        return {site: value / total.tokens for site, value in total.sum_II.items()}

    @torch.no_grad()
    def slow(count: int) -> Found:
        sums: dict[str, Tensor] = {}

        def catch(site: str) -> Any:
            def keep(_module: Any, inputs: tuple[Tensor, ...]) -> None:
                key_NI = inputs[0].flatten(0, -2).double()
                moment_II = key_NI.T @ key_NI
                sums[site] = sums[site].add_(moment_II) if site in sums else moment_II

            return keep

        handles = [linear_map(face.model, s).register_forward_pre_hook(catch(s)) for s in sites]
        for text in texts[: count // work.text]:
            ids = torch.tensor(face.tokenizer([text])["input_ids"], device=face.device)
            functional_call(face.model, {}, args=(), kwargs={"input_ids": ids, "use_cache": False})
        for handle in handles:
            handle.remove()
        return {site: value / count for site, value in sums.items()}

    return [
        Contest(
            name="moments",
            what=f"second moments of {len(sites)} MLPs over texts of {work.text} tokens",
            unit="tokens",
            ours=ours,
            plain=slow,
            count=work.texts * work.text,
            few=max(1, work.texts // 4) * work.text,
        )
    ]
