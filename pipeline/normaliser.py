"""Running mean and standard deviation of each dimension of a stream of vectors.

Chan's parallel form of Welford's update, so that a batch counts exactly as its rows one by one, and
two streams can be merged. Everything a resumed run needs is a buffer; the reference implementation
of MEND keeps a plain flag outside and starts over.

Shape suffixes: N vectors, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normaliser(nn.Module):
    """Mean, sum of squared deviations and count of every vector seen."""

    count: Tensor
    mean_D: Tensor
    squares_D: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean_D", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("squares_D", torch.zeros(width, dtype=torch.float64))

    @torch.no_grad()
    def observe(self, x_ND: Tensor) -> None:
        """Add vectors to the statistics."""
        if len(x_ND) == 0:
            return
        x_ND = x_ND.double()
        mean_D = x_ND.mean(0)
        self.merge(torch.tensor(float(len(x_ND))), mean_D, ((x_ND - mean_D) ** 2).sum(0))

    @torch.no_grad()
    def merge(self, count: Tensor, mean_D: Tensor, squares_D: Tensor) -> None:
        """Add another stream's statistics (Chan et al. 1979)."""
        total = self.count + count
        shift_D = mean_D - self.mean_D
        self.squares_D += squares_D + shift_D**2 * self.count * count / total
        self.mean_D += shift_D * count / total
        self.count.copy_(total)

    def std_D(self) -> Tensor:
        """Sample standard deviation; 0 before two vectors were seen."""
        return (self.squares_D / (self.count - 1).clamp(min=1)).sqrt()

    def forward(self, x_ND: Tensor) -> Tensor:
        """(x - mean) / (std + 1e-7), as in the reference."""
        mean_D, std_D = self.mean_D.to(x_ND.dtype), self.std_D().to(x_ND.dtype)
        return (x_ND - mean_D) / (std_D + 1e-7)
