"""What the papers measure, as tensors: losses and successes of rows of predictions.

Every function takes logits at target tokens and the batch that says which row each token belongs
to, and returns one number for each row. A row's number is the mean over its target tokens, so a
batch of rows gives exactly what each row gives alone.

Shape suffixes: N target tokens of all rows, V vocabulary, B rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pipeline.models.face import Batch


def row_means(value_N: Tensor, batch: Batch) -> Tensor:
    """Mean over each row's target tokens."""
    total_B = value_N.new_zeros(batch.rows).index_add(0, batch.row_N, value_N)
    return total_B / tokens(batch).to(value_N.dtype)


def tokens(batch: Batch) -> Tensor:
    """Number of target tokens of each row."""
    return torch.bincount(batch.row_N, minlength=batch.rows)


def nll(logits_NV: Tensor, batch: Batch) -> Tensor:
    """Mean token negative log-likelihood of each row's target, in nats: the edit loss L_e."""
    loss_N = F.cross_entropy(_wide(logits_NV), batch.label_N, reduction="none")
    return row_means(loss_N, batch)


def kl(before_NV: Tensor, after_NV: Tensor, batch: Batch) -> Tensor:
    """Mean over target tokens of KL(before || after), in nats: the locality loss L_loc.

    MEND appendix C.2; for a classifier this is the exact Bernoulli divergence. Only `after` has a
    gradient, of the first order.
    """
    loss_N: Tensor = _Divergence.apply(before_NV.detach(), after_NV)  # type: ignore[no-untyped-call]
    return row_means(loss_N, batch)


_CHUNK = 2**22  # logits worked on at once: they stay in the cache, whatever the vocabulary


class _Divergence(torch.autograd.Function):
    """KL(before || after) of each token, differentiable in `after`, once.

    Its slope in the logits is softmax(after) - softmax(before), so that nothing but their
    difference is kept for the backward pass, where autograd would keep four tensors of this size.
    """

    @staticmethod
    def forward(ctx: Any, before_NV: Tensor, after_NV: Tensor) -> Tensor:
        slope_NV = torch.empty_like(after_NV) if after_NV.requires_grad else None
        size = max(1, _CHUNK // after_NV.shape[1])
        losses = []
        for start in range(0, len(after_NV), size):
            part = slice(start, start + size)
            log_p_NV = F.log_softmax(_wide(before_NV[part]), dim=-1)
            log_q_NV = F.log_softmax(_wide(after_NV[part]), dim=-1)
            p_NV = log_p_NV.exp()
            losses.append(log_p_NV.sub_(log_q_NV).mul_(p_NV).sum(-1))
            if slope_NV is not None:
                slope_NV[part] = log_q_NV.exp_().sub_(p_NV)
        ctx.save_for_backward(slope_NV)
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_N: Tensor) -> tuple[None, Tensor]:
        (slope_NV,) = ctx.saved_tensors
        assert not hasattr(ctx, "spent"), "a divergence has one backward pass"
        ctx.spent = True
        return None, slope_NV.mul_(loss_N[:, None].to(slope_NV.dtype))


def token_accuracy(logits_NV: Tensor, batch: Batch) -> Tensor:
    """Share of each row's target tokens that are the argmax under teacher forcing."""
    return likeness(logits_NV.argmax(-1), batch.label_N, batch)


def exact(logits_NV: Tensor, batch: Batch) -> Tensor:
    """1 where every target token is the argmax under teacher forcing (MEND's edit success)."""
    return (token_accuracy(logits_NV, batch) == 1).float()


def agreement(before_NV: Tensor, after_NV: Tensor, batch: Batch) -> Tensor:
    """Share of each row's target positions where the argmax did not change."""
    return likeness(before_NV.argmax(-1), after_NV.argmax(-1), batch)


def likeness(one_N: Tensor, two_N: Tensor, batch: Batch) -> Tensor:
    """Share of each row's target positions where two choices of a token are the same."""
    return row_means((one_N == two_N).float(), batch)


def finite(logits_NV: Tensor, batch: Batch) -> Tensor:
    """1 where all of a row's logits are finite."""
    # A finite sum has finite parts, and is twenty times faster to know; not the other way round.
    finite_N = torch.isfinite(logits_NV.sum(-1))
    if not finite_N.all():
        finite_N = torch.isfinite(logits_NV).all(-1)
    return (row_means(finite_N.float(), batch) == 1).float()


def _wide(logits_NV: Tensor) -> Tensor:
    """At least float32: half precision loses small divergences."""
    return logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
