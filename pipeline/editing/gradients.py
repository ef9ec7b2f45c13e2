"""u and δ: the two factors of a linear map's gradient, for every edit of a batch in one pass.

For y = W u, the gradient of a row's loss is Σ_t δ_t u_tᵀ with δ = ∂L/∂y (MEND appendix D). Both are
read off one forward and one backward pass: inputs and outputs are recorded, and an output that has
no graph begins one. No gradient of a weight's size is ever formed, and nothing below the first site
keeps a graph.

Shape suffixes: R edits (rows of the batch), T positions, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.editing.patch import linear_map
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
    """What one site saw: its inputs, and its outputs."""

    inputs: list[Tensor]
    outputs: list[Tensor]

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not output.requires_grad:  # a sum, as hooks on the module after this one refuse a leaf
            output = output + output.new_zeros((), requires_grad=True)
        self.inputs.append(inputs[0])
        self.outputs.append(output)
        return output


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
        outputs = [output for recorder in recorders.values() for output in recorder.outputs]
        deltas = iter(torch.autograd.grad(loss_R.sum(), outputs, create_graph=create_graph))
    found = {}
    for site, recorder in recorders.items():
        u = _joined([_rows(x, batch.rows) for x in recorder.inputs])
        delta = _joined([_rows(next(deltas), batch.rows) for _ in recorder.outputs])
        found[site] = TokenGradients(u if create_graph else u.detach(), delta)
    hit_R = exact(logits_NV.detach(), batch)
    return EditPass(found, loss_R if create_graph else loss_R.detach(), hit_R)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """What a site saw in one pass or several, position after position."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)


def _rows(x: Tensor, rows: int) -> Tensor:
    """R x T x D, also from modules that see their tokens flattened (OPT)."""
    assert x.shape[0] % rows == 0, f"{tuple(x.shape)} holds no whole number of {rows} rows"
    return x.reshape(rows, -1, x.shape[-1])
