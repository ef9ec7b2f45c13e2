"""What the papers measure, as tensors: losses and successes of rows of predictions.

Every function takes logits at target tokens and the batch that says which row each token belongs
to, and returns one number for each row. A row's number is the mean over its target tokens, so a
batch of rows gives exactly what each row gives alone.

Shape suffixes: N target tokens of all rows, V vocabulary, B rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
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

    MEND appendix C.2; for a classifier this is the exact Bernoulli divergence.
    """
    log_p_NV = F.log_softmax(_wide(before_NV), dim=-1)
    log_q_NV = F.log_softmax(_wide(after_NV), dim=-1)
    return row_means((log_p_NV.exp() * (log_p_NV - log_q_NV)).sum(-1), batch)


def token_accuracy(logits_NV: Tensor, batch: Batch) -> Tensor:
    """Share of each row's target tokens that are the argmax under teacher forcing."""
    return row_means((logits_NV.argmax(-1) == batch.label_N).float(), batch)


def exact(logits_NV: Tensor, batch: Batch) -> Tensor:
    """1 where every target token is the argmax under teacher forcing (MEND's edit success)."""
    return (token_accuracy(logits_NV, batch) == 1).float()


def agreement(before_NV: Tensor, after_NV: Tensor, batch: Batch) -> Tensor:
    """Share of each row's target positions where the argmax did not change."""
    return row_means((before_NV.argmax(-1) == after_NV.argmax(-1)).float(), batch)


def finite(logits_NV: Tensor, batch: Batch) -> Tensor:
    """1 where all of a row's logits are finite."""
    return (row_means(torch.isfinite(logits_NV).all(-1).float(), batch) == 1).float()


def _wide(logits_NV: Tensor) -> Tensor:
    """At least float32: half precision loses small divergences."""
    return logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
