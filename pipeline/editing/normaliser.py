"""Running statistics of a stream of vectors, and vectors brought to one scale by them.

`Normaliser` is MEND's: each dimension by itself. `Whitener` is ours: with one another.
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


class Whitener(nn.Module):
    """C⁻¹ x, C the mean of x xᵀ over every vector seen.

    What many vectors share counts little then, and what is a vector's own counts much: an update
    along C⁻¹ u moves the input u and leaves other inputs alone, as ROME's closed form does.
    """

    count: Tensor
    products_DD: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("products_DD", torch.zeros(width, width, dtype=torch.float64))

    @torch.no_grad()
    def observe(self, x_ND: Tensor) -> None:
        """Add vectors to the statistics."""
        x_ND = x_ND.double()
        self.products_DD += x_ND.T @ x_ND
        self.count += len(x_ND)

    @torch.no_grad()
    def inverse_DD(self) -> Tensor:
        """C⁻¹, scaled so that vectors like those seen come out with a mean square of 1."""
        moment_DD = self.products_DD / self.count.clamp(min=1)
        width = len(moment_DD)
        # A little of the identity: directions that were hardly seen must not rule.
        floor = _FLOOR * moment_DD.diagonal().mean() + _TINY
        eye_DD = torch.eye(width, dtype=moment_DD.dtype, device=moment_DD.device)
        root_DD = torch.linalg.cholesky(moment_DD + floor * eye_DD)
        inverse_DD = torch.cholesky_inverse(root_DD)
        square = (inverse_DD @ moment_DD * inverse_DD).sum() / width
        return inverse_DD / (square.sqrt() + _TINY)

    def forward(self, x_ND: Tensor) -> Tensor:
        """C⁻¹ x, scaled."""
        return x_ND @ self.inverse_DD().to(x_ND.dtype)


_FLOOR, _TINY = 1e-2, 1e-12
