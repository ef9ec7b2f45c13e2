"""Updates of one linear map: ΔW of R edits, in factors or written out.

Shape suffixes:
    B rows of the model's input      N positions of one row (tokens, times beams)
    R edits                          K terms of a factored update
    I inputs, O outputs of the map   (ΔW is always written O x I, whatever the module's layout)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """ΔW_r = Σ_k left_rk right_rkᵀ: the form of every gradient of a linear map."""

    left_RKO: Tensor
    right_RKI: Tensor

    def __post_init__(self) -> None:
        assert self.left_RKO.ndim == self.right_RKI.ndim == 3
        assert self.left_RKO.shape[:2] == self.right_RKI.shape[:2]

    @property
    def rows(self) -> int:
        """Number of edits."""
        return self.left_RKO.shape[0]

    def select(self, index_R: Tensor) -> Factors:
        """The edits at these indices, in this order."""
        return Factors(self.left_RKO[index_R], self.right_RKI[index_R])

    def dense_ROI(self) -> Tensor:
        """ΔW of each edit, written out."""
        return self.left_RKO.transpose(1, 2) @ self.right_RKI

    def act(self, x_BNI: Tensor) -> Tensor:
        """x ΔWᵀ for B rows, each with its own edit, or all with the only one."""
        return (x_BNI @ self.right_RKI.transpose(1, 2)) @ self.left_RKO

    def given_to(self, rows_B: Tensor) -> Factors:
        """One edit for each row of an input; factors are small enough to be copied."""
        return self.select(rows_B)

    def joined(self, k: int) -> Update:
        """Every k edits as one: the terms side by side, or written out where that is smaller."""
        R, K, O = self.left_RKO.shape  # noqa: E741 - the field's symbol
        I = self.right_RKI.shape[2]  # noqa: E741
        whole = Factors(
            self.left_RKO.reshape(R // k, k * K, O), self.right_RKI.reshape(R // k, k * K, I)
        )
        return Dense(whole.dense_ROI()) if k * K > I * O / (I + O) else whole


@dataclass(frozen=True)
class Dense:
    """ΔW_r written out, for editors whose update has no factors."""

    delta_ROI: Tensor

    def __post_init__(self) -> None:
        assert self.delta_ROI.ndim == 3

    @property
    def rows(self) -> int:
        """Number of edits."""
        return self.delta_ROI.shape[0]

    def select(self, index_R: Tensor) -> Dense:
        """The edits at these indices, in this order."""
        return Dense(self.delta_ROI[index_R])

    def dense_ROI(self) -> Tensor:
        """ΔW of each edit."""
        return self.delta_ROI

    def act(self, x_BNI: Tensor) -> Tensor:
        """x ΔWᵀ for B rows, each with its own edit, or all with the only one."""
        return x_BNI @ self.delta_ROI.transpose(1, 2)

    def given_to(self, rows_B: Tensor) -> Spread:
        """One edit for each row of an input, without a copy of any."""
        edits, counts = torch.unique_consecutive(rows_B, return_counts=True)
        return Spread(self.delta_ROI, tuple(edits.tolist()), tuple(counts.tolist()))

    def joined(self, k: int) -> Update:
        """Every k edits as one."""
        return Dense(self.delta_ROI.unflatten(0, (-1, k)).sum(1))


@dataclass(frozen=True)
class Spread:
    """Dense edits over runs of input rows: `counts[i]` rows in a row see edit `edits[i]`."""

    delta_ROI: Tensor
    edits: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Number of input rows."""
        return sum(self.counts)

    def act(self, x_BNI: Tensor) -> Tensor:
        """x ΔWᵀ, run by run."""
        parts = zip(x_BNI.split(self.counts), self.edits, strict=True)
        return torch.cat([x_nNI @ self.delta_ROI[edit].T for x_nNI, edit in parts])


Update = Factors | Dense
