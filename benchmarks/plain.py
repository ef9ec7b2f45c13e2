"""The straightforward way: one example, a functional copy of the model, logits at every position.

An edited model is the model called with other weights in place of its own
(`torch.func.functional_call`), so nothing is copied that is not changed. Attention, types and
threads are those of the engine.

Shape suffixes: T positions of one text, V vocabulary, N its target tokens, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from pipeline.editing.patch import linear_map
from pipeline.models import Face
from pipeline.models.face import Encoded

Weights = Mapping[str, Tensor]


def whole_logits(face: Face, item: Encoded, weights: Weights | None = None) -> Tensor:
    """logits_TV of one text under some weights."""
    inputs = {**face.collate([item]).inputs, "use_cache": False}
    output: Any = functional_call(face.model, dict(weights or {}), args=(), kwargs=inputs)
    logits_TV: Tensor = output.logits[0]
    return logits_TV


def logits(face: Face, item: Encoded, weights: Weights | None = None) -> Tensor:
    """logits_NV of one text at its target tokens, out of all its logits."""
    return whole_logits(face, item, weights)[item.positions]


def wide(logits: Tensor) -> Tensor:
    """At least float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def nll(logits_NV: Tensor, item: Encoded) -> Tensor:
    """Mean negative log-likelihood of a text's target tokens."""
    labels_N = torch.tensor(item.labels, device=logits_NV.device)
    return F.cross_entropy(wide(logits_NV), labels_N)


def kl(before_NV: Tensor, after_NV: Tensor) -> Tensor:
    """Mean KL(before || after) over target tokens."""
    log_p, log_q = wide(before_NV).log_softmax(-1), wide(after_NV).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


def weights_of(face: Face, sites: Sequence[str]) -> dict[str, Tensor]:
    """The sites' weights under the names that a functional call knows, as leaves of a graph."""
    weights = {f"{site}.weight": weight(face, site).detach() for site in sites}
    return {name: tensor.requires_grad_() for name, tensor in weights.items()}


def weight(face: Face, site: str) -> Tensor:
    """A site's weight as the module has it."""
    tensor = linear_map(face.model, site).weight
    assert isinstance(tensor, Tensor)
    return tensor


def laid_out(face: Face, site: str, delta_OI: Tensor) -> Tensor:
    """O x I as the module has it."""
    return delta_OI.T if isinstance(linear_map(face.model, site), Conv1D) else delta_OI


def edited(face: Face, delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """W + ΔW of every edited site; `delta` is O x I by site."""
    return {
        f"{site}.weight": weight(face, site) + laid_out(face, site, d).to(weight(face, site).dtype)
        for site, d in delta.items()
    }


@dataclass(frozen=True)
class Gradient:
    """One text's gradient of one site: in full, and its factors at every position."""

    full_OI: Tensor
    u_TI: Tensor
    delta_TO: Tensor


def gradients(face: Face, item: Encoded, sites: Sequence[str]) -> dict[str, Gradient]:
    """A backward pass to the weights themselves, with hooks that catch what they are made of."""
    weights = weights_of(face, sites)
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    with ExitStack() as stack, torch.enable_grad():
        for site in sites:
            catch = _Catch(site, inputs, outputs)
            module: nn.Module = linear_map(face.model, site)
            stack.callback(module.register_forward_hook(catch).remove)
        loss = nll(logits(face, item, weights), item)
        tensors = [*weights.values(), *(outputs[site] for site in sites)]
        found = torch.autograd.grad(loss, tensors)
    full, deltas = found[: len(sites)], found[len(sites) :]
    return {
        site: Gradient(
            laid_out(face, site, gradient),
            inputs[site].detach().flatten(0, -2),
            delta.flatten(0, -2),
        )
        for site, gradient, delta in zip(sites, full, deltas, strict=True)
    }


@dataclass(frozen=True)
class _Catch:
    site: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.inputs[self.site], self.outputs[self.site] = inputs[0], output


def read(
    face: Face,
    ids: Sequence[Sequence[int]],
    at: Sequence[int],
    catch: str,
    weights: Weights | None = None,
) -> Tensor:
    """What a module reads (a linear map) or puts out (a block) at one token of each text.

    The whole model runs, as with hooks that do not stop it.
    """
    batch = [Encoded(list(row), [len(row) - 1], [0]) for row in ids]
    inputs = {**face.collate(batch).inputs, "use_cache": False}
    found: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Tensor, ...], output: Any) -> None:
        linear = isinstance(module, nn.Linear | Conv1D)
        put_out = output[0] if isinstance(output, tuple) else output
        found.append(given[0] if linear else put_out)

    handle = face.model.get_submodule(catch).register_forward_hook(keep)
    try:
        with torch.no_grad():
            functional_call(face.model, dict(weights or {}), args=(), kwargs=inputs)
    finally:
        handle.remove()
    rows = torch.arange(len(ids), device=face.device)
    return found[0][rows, torch.tensor(list(at), device=face.device)]


def batch_logits(face: Face, items: Sequence[Encoded], weights: Weights | None) -> list[Tensor]:
    """logits_NV of each text, all of them in one padded batch with logits at every position."""
    inputs = {**face.collate(items).inputs, "use_cache": False}
    output: Any = functional_call(face.model, dict(weights or {}), args=(), kwargs=inputs)
    return [row_TV[item.positions] for row_TV, item in zip(output.logits, items, strict=True)]
