"""Many edits as one by least squares, where their sum would let each disturb the others.

An editor that wants the output at token t to move by v_t, where the site's input is the key u_t,
can add up rank-one updates, each right for its own token; with many edits the keys overlap and the
errors pile up. Instead, ΔW is the one that brings all tokens closest to what they want (Tan et al.,
"Massive Editing for Large Language Models via Meta Learning", ICLR 2024; MALMEN):

    ΔW = argmin Σ_t |ΔW u_t - v_t|² + tr ΔW P ΔWᵀ = Vᵀ U (Uᵀ U + P)⁻¹,    P = λ I in the paper.

With P = λ C, C the mean of u uᵀ over inputs of the model as it is, the penalty is what ΔW does to
ordinary inputs. That is MEMIT's choice of P for its closed form, and ours for MALMEN's.

Shape suffixes: R rows (joint edits), T tokens of all edits of a row, I inputs, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.editing.patch import Patch
from pipeline.editing.updates import Dense, Factors, Update


class LeastSquares(nn.Module):
    """Joins edits site by site, each with a λ of its own that is learned (as its logarithm).

    λ is counted in inputs: λ = n penalises a joint edit as much as n ordinary inputs do that should
    stay where they are. With P = λ I these are inputs of the mean square that was seen, in no
    direction more than in another.
    """

    count_M: Tensor
    square_M: Tensor

    def __init__(self, widths: Mapping[str, int], ridge: float, *, moments: bool) -> None:
        """
        Args:
            widths: inputs of each site.
            ridge: λ to start with.
            moments: whether P = λ C; otherwise P = λ I.
        """
        super().__init__()
        self.sites = tuple(widths)
        self.log_ridge_M = nn.Parameter(torch.full((len(widths),), math.log(ridge)))
        self.register_buffer("count_M", torch.zeros(len(widths)))
        self.register_buffer("square_M", torch.zeros(len(widths)))  # sum of |u|² / I
        for place, width in enumerate(widths.values() if moments else ()):
            self.register_buffer(f"moment_{place}", torch.zeros(width, width))

    @torch.no_grad()
    def observe(self, site: str, u_NI: Tensor) -> None:
        """Count inputs of a site, of the model as it is."""
        place = self.sites.index(site)
        self.count_M[place] += len(u_NI)
        self.square_M[place] += u_NI.square().mean(1).sum()
        moment_II = getattr(self, f"moment_{place}", None)
        if moment_II is not None:
            moment_II += u_NI.T @ u_NI

    def joined(self, wanted: Patch, k: int) -> Patch:
        """Every k rows as one edit, differentiably in keys, values and λ.

        Args:
            wanted: Factors whose right sides are keys u_t and whose left sides are changes v_t.
        """
        updates: dict[str, Update] = {}
        for place, site in enumerate(self.sites):
            update = wanted.updates[site]
            assert isinstance(update, Factors)
            keys_RTI = _grouped(update.right_RKI, k)
            ridge, moment_II = self._penalty(place)
            updates[site] = solve(keys_RTI, _grouped(update.left_RKO, k), ridge, moment_II)
        return Patch(updates)

    def _penalty(self, place: int) -> tuple[Tensor, Tensor | None]:
        """λ, scaled to the inputs seen, and C."""
        seen = self.count_M[place].clamp(min=1)
        square = self.square_M[place] / seen if self.count_M[place] > 0 else seen
        ridge = self.log_ridge_M[place].exp()
        moment_II = getattr(self, f"moment_{place}", None)
        if moment_II is None:
            return ridge * square, None
        # A little of the identity: directions that no input took cannot be free of charge.
        floor_II = _FLOOR * square * torch.eye(len(moment_II), device=moment_II.device)
        return ridge, moment_II / seen + floor_II


_FLOOR = 1e-2


def wanted(rank_one: Factors, u_RTI: Tensor) -> Factors:
    """What each token's own term does to its own input, as keys u_t and changes v_t.

    Tokens whose term is zero (padding) get a key of zero: they have no say.
    """
    own_RT1 = (rank_one.right_RKI * u_RTI).sum(-1, keepdim=True)
    live_RT1 = (rank_one.left_RKO != 0).any(-1, keepdim=True)
    return Factors(rank_one.left_RKO * own_RT1, u_RTI.to(own_RT1.dtype) * live_RT1)


def _grouped(x_RTD: Tensor, k: int) -> Tensor:
    return x_RTD.reshape(len(x_RTD) // k, -1, x_RTD.shape[2])


def solve(
    keys_RTI: Tensor, values_RTO: Tensor, ridge: Tensor, moment_II: Tensor | None = None
) -> Update:
    """The update of one site, as factors where these are smaller.

    The smaller system is solved: Uᵀ U + P of I x I, or, with W = U P⁻¹, W Uᵀ + 1 of T x T, where
    (Uᵀ U + P)⁻¹ Uᵀ = Wᵀ (W Uᵀ + 1)⁻¹ and one inverse of P serves all rows. Tokens of zeros
    (padding) want nothing of a zero key, and change nothing. Solved in float64: with few edits
    Uᵀ U is far from full rank, and λ may become small.
    """
    T, I, O = *keys_RTI.shape[1:], values_RTO.shape[2]  # noqa: E741
    keys_RIT = keys_RTI.transpose(1, 2)
    dense = T > I * O / (I + O)
    moment_II = None if moment_II is None else moment_II.double()
    if T < I:
        scaled_RTI = keys_RTI.double() / ridge.double()
        if moment_II is not None:
            scaled_RTI = _divided(scaled_RTI.flatten(0, 1).T, _root(moment_II)).T.view_as(
                scaled_RTI
            )
        root_RTT = _root(scaled_RTI @ keys_RIT.double() + torch.eye(T, device=ridge.device))
        right_RTI = _divided(scaled_RTI, root_RTT).to(keys_RTI.dtype)
        if dense:
            return Dense(values_RTO.transpose(1, 2) @ right_RTI)
        return Factors(values_RTO, right_RTI)
    if moment_II is None:
        moment_II = torch.eye(I, dtype=torch.float64, device=ridge.device)
    root_RII = _root(keys_RIT.double() @ keys_RTI.double() + ridge.double() * moment_II)
    if dense:
        wanted_RIO = keys_RIT.double() @ values_RTO.double()
        return Dense(_divided(wanted_RIO, root_RII).transpose(1, 2).to(values_RTO.dtype))
    return Factors(values_RTO, _divided(keys_RIT, root_RII).transpose(1, 2))


def _root(x_RNN: Tensor) -> Tensor:
    """The Cholesky factor L of a symmetric matrix, L Lᵀ."""
    root_RNN: Tensor = torch.linalg.cholesky(x_RNN)
    return root_RNN


def _divided(x_RNM: Tensor, root_RNN: Tensor) -> Tensor:
    """(L Lᵀ)⁻¹ x, in the type of x."""
    return torch.cholesky_solve(x_RNM.double(), root_RNN).to(x_RNM.dtype)
