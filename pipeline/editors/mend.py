"""MEND: small networks that turn a fine-tuning gradient into an edit (Mitchell et al., ICLR 2022).

For every edited matrix the gradient's factors (u, δ) of each token are normalised, passed through a
low-rank residual network shared by all matrices of one shape (Eq. 3), and recombined:
ΔW = -α Σ_t δ̃_t ũ_tᵀ (Eq. 2).

Where the paper and its code differ: the edit is subtracted (the code adds, and unlearns its sign);
the activation is max(x, 0) with a gradient at 0 and stands in both blocks with a bias (as the code
has it: with a plain ReLU the identity initialisation never gets a gradient); V starts normal (the
code) rather than Xavier; α learns at a rate of its own. Statistics of u and δ are taken over a
whole batch of edits at once, where the code goes matrix by matrix.

Shape suffixes: N tokens, D = I + O, I inputs, O outputs, M matrices of one shape, R edits, T tokens
of one edit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.editing import metalearn
from pipeline.editing.aggregate import LeastSquares, wanted
from pipeline.editing.draws import EditBatch
from pipeline.editing.gradients import TokenGradients, token_gradients
from pipeline.editing.learned import Learned
from pipeline.editing.normaliser import Normaliser, Whitener
from pipeline.editing.patch import Patch, linear_map, weight_OI
from pipeline.editing.updates import Factors
from pipeline.errors import SettingsError
from pipeline.models import Face
from pipeline.models.layouts import Place


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of MEND; the defaults are the paper's.

    Attributes:
        place, blocks: which linear maps of how many last blocks (None: 3, or 2 of each stack).
        rank: of U and V, at most the width D.
        alpha: the edit rate every matrix starts with.
        shared: one network for all matrices of a shape, told apart by scale and shift (Eq. 3).
        norm: normalise u and δ.
        whiten: u by the inverse of its whole second moment, not dimension by dimension (ours).
        init: "identity" (U = 0) or "xavier".
        residual: keep the skip connections. The reference drops them with "xavier".
        combine: one network on [u, δ]; otherwise one for each.
        transform: "both", only "u", only "delta", or only the "smaller"; implies not `combine`.
        aggregate: how the tokens of edits made at once become one edit: the paper's "sum", or
            "least_squares" over what the sum's terms want (MALMEN; see pipeline.editing.aggregate).
        ridge: λ that least squares starts with, in inputs; learned like α.
        moments: least squares with λ C (ours, after MEMIT) in place of MALMEN's λ I.
    """

    place: Place = "mlp"
    blocks: int | None = None
    rank: int = 1920
    alpha: float = 1e-4
    shared: bool = True
    norm: bool = True
    whiten: bool = False
    init: Literal["identity", "xavier"] = "identity"
    residual: bool = True
    combine: bool = True
    transform: Literal["both", "u", "delta", "smaller"] = "both"
    aggregate: Literal["sum", "least_squares"] = "sum"
    ridge: float = 100.0
    moments: bool = False
    outer: metalearn.Config = field(default_factory=metalearn.Config)

    def __post_init__(self) -> None:
        """Raises SettingsError for an edit rate or λ that nothing can be learned from."""
        for name in ("alpha", "ridge"):
            if getattr(self, name) <= 0:
                raise SettingsError(
                    expected=f"mend.{name} above 0",
                    found=str(getattr(self, name)),
                    remedy="It is where learning starts; the defaults serve.",
                )


_BELOW_ZERO = -torch.finfo(torch.float32).tiny


class Block(nn.Module):
    """x + max(0, s ⊙ (U V x + b) + o): one of Eq. 3's two lines."""

    def __init__(self, width: int, matrices: int, config: Config, draws: torch.Generator) -> None:
        super().__init__()
        rank = min(config.rank, width)
        self.residual = config.residual
        if config.init == "identity":
            u, v = torch.zeros(width, rank), torch.randn(rank, width, generator=draws)
        else:
            u, v = torch.empty(width, rank), torch.empty(rank, width)
            nn.init.xavier_uniform_(u, gain=math.sqrt(2), generator=draws)
            nn.init.xavier_uniform_(v, generator=draws)
        self.U, self.V = nn.Parameter(u), nn.Parameter(v)
        self.bias = nn.Parameter(torch.zeros(width))
        self.scale_MD = nn.Parameter(torch.ones(matrices, width))
        self.shift_MD = nn.Parameter(torch.zeros(matrices, width))

    def forward(self, x_ND: Tensor, own_NM: Tensor) -> Tensor:
        hidden_ND = torch.addmm(self.bias, x_ND @ self.V.T, self.U.T)
        hidden_ND = torch.addcmul(own_NM @ self.shift_MD, hidden_ND, own_NM @ self.scale_MD)
        # Relu has no gradient at 0, where training starts. Clamp has, and takes five times as long.
        active_ND = F.threshold(hidden_ND, _BELOW_ZERO, 0.0)
        return x_ND + active_ND if self.residual else active_ND


class Net(nn.Module):
    """g of Eq. 3: two blocks."""

    def __init__(self, width: int, matrices: int, config: Config, draws: torch.Generator) -> None:
        super().__init__()
        self.first = Block(width, matrices, config, draws)
        self.second = Block(width, matrices, config, draws)

    def forward(self, x_ND: Tensor, own_NM: Tensor) -> Tensor:
        out_ND: Tensor = self.second(self.first(x_ND, own_NM), own_NM)
        return out_ND


class Transform(nn.Module):
    """(u, δ) -> (ũ, δ̃) for all matrices of one shape."""

    def __init__(
        self, inputs: int, outputs: int, matrices: int, config: Config, draws: torch.Generator
    ) -> None:
        super().__init__()
        self.norm = config.norm
        self.norm_u = Whitener(inputs) if config.whiten else Normaliser(inputs)
        self.norm_delta = Normaliser(outputs)
        both = config.transform == "both"
        smaller = "u" if inputs < outputs else "delta"
        side = smaller if config.transform == "smaller" else config.transform
        self.whole = self.on_u = self.on_delta = None
        if both and config.combine:
            self.whole = Net(inputs + outputs, matrices, config, draws)
        if (both and not config.combine) or side == "u":
            self.on_u = Net(inputs, matrices, config, draws)
        if (both and not config.combine) or side == "delta":
            self.on_delta = Net(outputs, matrices, config, draws)

    def forward(self, u_NI: Tensor, delta_NO: Tensor, own_NM: Tensor) -> tuple[Tensor, Tensor]:
        """Transform tokens, of which `own_NM` is 1 for their own matrix, else 0.

        In training mode their statistics are counted first.
        """
        if self.training:
            self.norm_u.observe(u_NI)
            self.norm_delta.observe(delta_NO)
        if self.norm:
            u_NI, delta_NO = self.norm_u(u_NI), self.norm_delta(delta_NO)
        if self.whole is not None:
            out_ND = self.whole(torch.cat([u_NI, delta_NO], dim=1), own_NM)
            return out_ND.split([u_NI.shape[1], delta_NO.shape[1]], dim=1)  # type: ignore[no-any-return]
        if self.on_u is not None:
            u_NI = self.on_u(u_NI, own_NM)
        if self.on_delta is not None:
            delta_NO = self.on_delta(delta_NO, own_NM)
        return u_NI, delta_NO


class Mend(metalearn.Learner):
    """One transform for each shape (or matrix), and one edit rate α for each matrix."""

    def __init__(self, face: Face, config: Config, seed: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.sites = face.sites(config.place, config.blocks)
        self.alphas = nn.Parameter(torch.full((len(self.sites),), config.alpha))
        shapes = {site: tuple(weight_OI(linear_map(face.model, site)).shape) for site in self.sites}
        groups: dict[str, list[str]] = {}
        for site, (outputs, inputs) in shapes.items():
            key = f"{outputs}x{inputs}" if config.shared else site.replace(".", "/")
            groups.setdefault(key, []).append(site)
        self.members = groups
        self.transforms = nn.ModuleDict()
        for key, members in groups.items():
            outputs, inputs = shapes[members[0]]
            self.transforms[key] = Transform(inputs, outputs, len(members), config, draws)
        self.solver: LeastSquares | None = None
        if config.aggregate == "least_squares":
            widths = {site: inputs for site, (_, inputs) in shapes.items()}
            self.solver = LeastSquares(widths, config.ridge, moments=config.moments)
        self.start = config.alpha
        self.to(face.device)

    def groups(self, config: metalearn.Config) -> list[dict[str, Any]]:
        """The networks at `lr`, the edit rates at `lr_alpha`, log λ as fast as rates change."""
        rates = [(list(self.transforms.parameters()), config.lr), ([self.alphas], config.lr_alpha)]
        if self.solver is not None:
            rates.append((list(self.solver.parameters()), config.lr_alpha / self.start))
        return [{"params": some, "lr": rate, "initial_lr": rate} for some, rate in rates]

    @torch.no_grad()
    def observe(self, face: Face, edits: EditBatch) -> None:
        """Count these edits' u and δ in the statistics."""
        self.train()
        gradients = token_gradients(face, edits.batch, self.sites).gradients
        self._terms(gradients)
        if self.solver is not None:
            for site, found in gradients.items():
                self.solver.observe(site, found.u_RTI[_live(found)].to(self.alphas.dtype))

    def patch(self, face: Face, edits: EditBatch) -> Patch:
        """Algorithm 2: gradients, transformed token by token.

        Under least squares the rows are keys and wanted changes, edits only once `joined`.
        """
        gradients = token_gradients(face, edits.batch, self.sites).gradients
        terms = self._terms(gradients)
        if self.solver is not None:
            terms = {site: wanted(term, gradients[site].u_RTI) for site, term in terms.items()}
        return Patch(terms)

    def joined(self, patch: Patch, k: int) -> Patch:
        """Every k consecutive rows as one edit, by the sum of their terms or by least squares."""
        return super().joined(patch, k) if self.solver is None else self.solver.joined(patch, k)

    def _terms(self, gradients: Mapping[str, TokenGradients]) -> dict[str, Factors]:
        updates: dict[str, Factors] = {}
        for key, members in self.members.items():
            updates |= self._transformed(self.transforms[key], members, gradients)
        return {site: updates[site] for site in self.sites}

    def _transformed(
        self, transform: nn.Module, members: Sequence[str], found: Mapping[str, TokenGradients]
    ) -> dict[str, Factors]:
        """All tokens of all matrices of one shape in one pass.

        Tokens whose u or δ is zero throughout (padding, and what no loss reaches) are left out, as
        in the reference: they would come out of the network as something other than zero.
        """
        live = {s: _live(found[s]) for s in members}
        counts = [int(live[s].sum()) for s in members]
        wide = self.alphas.dtype  # the networks stay in float32 on a half-precision model
        u_NI = torch.cat([found[s].u_RTI[live[s]] for s in members]).to(wide)
        delta_NO = torch.cat([found[s].delta_RTO[live[s]] for s in members]).to(wide)
        own_MM = torch.eye(len(members), dtype=wide, device=u_NI.device)
        own_NM = own_MM.repeat_interleave(torch.tensor(counts, device=u_NI.device), dim=0)
        u_NI, delta_NO = transform(u_NI, delta_NO, own_NM)
        parts = zip(members, u_NI.split(counts), delta_NO.split(counts), strict=True)
        return {
            site: Factors(
                _back(-self.alphas[self.sites.index(site)] * delta, live[site]),
                _back(u, live[site]),
            )
            for site, u, delta in parts
        }


def _live(found: TokenGradients) -> Tensor:
    """Where neither factor is zero throughout, told by sums: they are sooner known than any()."""
    return (found.u_RTI.abs().sum(-1) != 0) & (found.delta_RTO.abs().sum(-1) != 0)


def _back(x_ND: Tensor, live_RT: Tensor) -> Tensor:
    """Tokens back to their places; zeros elsewhere."""
    whole = x_ND.new_zeros(*live_RT.shape, x_ND.shape[-1])
    return whole.index_put((live_RT,), x_ND)


class Editor(Learned[Config, Mend]):
    """MEND behind the editors' interface."""

    def start(self, face: Face, seed: int) -> Mend:
        """The networks, drawn from a seed."""
        return Mend(face, self.config, seed)

    def notes(self) -> dict[str, Any]:
        """What all note, and the edit rate (and λ) that each matrix ended with."""
        rates = zip(self.learner.sites, self.learner.alphas.tolist(), strict=True)
        notes = super().notes() | {"alpha": dict(rates)}
        if (solver := self.learner.solver) is not None:
            notes["ridge"] = dict(zip(solver.sites, solver.log_ridge_M.exp().tolist(), strict=True))
        return notes
