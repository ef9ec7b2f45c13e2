"""u and δ: the two factors of a linear map's gradient, for every edit of a batch in one pass.

For y = W u, the gradient of a row's loss is Σ_t δ_t u_tᵀ with δ = ∂L/∂y (MEND appendix D). Both are
read off one forward and one backward pass: the inputs are recorded, and a zero that requires grad
is added to the outputs. No gradient of a weight's size is ever formed, and nothing below the first
site keeps a graph.

Shape suffixes: R edits (rows of the batch), T positions, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.editing.patch import Patch, linear_map
from pipeline.editing.updates import Factors
from pipeline.measures import exact, nll
from pipeline.models.face import Batch, Face

# (logits_NV, batch) -> the loss of each row.
Loss = Callable[[Tensor, Batch], Tensor]


@dataclass(frozen=True)
class TokenGradients:
    """One site's factors, token by token; positions a row does not have carry δ = 0."""

    u_RTI: Tensor
    delta_RTO: Tensor


@dataclass(frozen=True)
class EditPass:
    """One pass over a batch of edits: their factors at each site, their losses, their successes."""

    gradients: dict[str, TokenGradients]
    loss_R: Tensor  # by default the mean token negative log-likelihood of the label, nats
    hit_R: Tensor  # 1 where the label is already the argmax at every token


@dataclass
class _Recorder:
    """What one site saw: its inputs, and the zeros added to its outputs."""

    inputs: list[Tensor]
    zeros: list[Tensor]

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        zero = torch.zeros_like(output, requires_grad=True)
        self.inputs.append(inputs[0])
        self.zeros.append(zero)
        return output + zero


def token_gradients(
    face: Face,
    batch: Batch,
    sites: Sequence[str],
    *,
    loss: Loss = nll,
    create_graph: bool = False,
) -> EditPass:
    """u and δ of each row's own loss at each site.

    Args:
        face: the model, unedited or inside `applied`.
        batch: R rows; by default row r's loss is the mean negative log-likelihood of its own
            target tokens.
        sites: names of linear maps.
        loss: another loss, of each row by itself.
        create_graph: keep the graph of u and δ, for editors that differentiate through them (ENN).
    """
    with ExitStack() as stack, torch.enable_grad():
        recorders = {site: _Recorder([], []) for site in sites}
        for site, recorder in recorders.items():
            handle = linear_map(face.model, site).register_forward_hook(recorder)
            stack.callback(handle.remove)
        logits_NV = face.logits(batch)
        loss_R = loss(logits_NV, batch)
        zeros = [zero for recorder in recorders.values() for zero in recorder.zeros]
        deltas = iter(torch.autograd.grad(loss_R.sum(), zeros, create_graph=create_graph))
    found = {}
    for site, recorder in recorders.items():
        u = torch.cat([_rows(x, batch.rows) for x in recorder.inputs], dim=1)
        delta = torch.cat([_rows(next(deltas), batch.rows) for _ in recorder.zeros], dim=1)
        found[site] = TokenGradients(u if create_graph else u.detach(), delta)
    hit_R = exact(logits_NV.detach(), batch)
    return EditPass(found, loss_R if create_graph else loss_R.detach(), hit_R)


def gradient_patch(gradients: dict[str, TokenGradients], scale: float) -> Patch:
    """ΔW = scale · ∇W as factors: one plain gradient step on each edit."""
    return Patch(
        {site: Factors(scale * found.delta_RTO, found.u_RTI) for site, found in gradients.items()}
    )


def _rows(x: Tensor, rows: int) -> Tensor:
    """R x T x D, also from modules that see their tokens flattened (OPT)."""
    assert x.shape[0] % rows == 0, f"{tuple(x.shape)} holds no whole number of {rows} rows"
    return x.reshape(rows, -1, x.shape[-1])
