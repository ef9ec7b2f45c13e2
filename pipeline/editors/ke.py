"""KE: a hypernetwork that reads the edit and masks its gradient (De Cao et al., EMNLP 2021).

A bidirectional LSTM reads "prediction >> target || input" into a condition vector, from which one
small network for each edited matrix makes two rank-1 matrices and a gate:
ΔW = s σ(η) (∇W ∘ (a bᵀ) + c dᵀ), with a and c softmaxes over outputs, b and d free over inputs.
Since ∇W = Σ_t δ_t u_tᵀ, that is itself a sum of outer products: of s σ(η) (δ_t ∘ a) with u_t ∘ b,
and of s σ(η) c with d. Nothing of the matrix's size is formed.

The sign is the code's: ΔW is added, and b learns its sign; MEND's account of it subtracts. Widths
and objective are those of MEND's re-implementation, which trains KE by MEND's own loss. With
`objective: margin` it is KE's own: reach the label under a bound on the divergence that tightens as
edits succeed. Its edit loss stays the outer loop's, on another wording and without smoothing, and
training still ends as what was best by MEND's loss.

Shape suffixes: R edits, L tokens of the condition, E embedding, C condition, O outputs, I inputs,
T tokens of one edit, K = T + 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence

from pipeline.editing import metalearn
from pipeline.editing.draws import Draw, EditBatch
from pipeline.editing.gradients import TokenGradients, token_gradients
from pipeline.editing.learned import Learned
from pipeline.editing.patch import Patch, linear_map, weight_OI
from pipeline.editing.updates import Factors
from pipeline.errors import SettingsError
from pipeline.models import Face, Tokenizer
from pipeline.models.layouts import Place
from pipeline.records import Request


def _outer() -> metalearn.Config:
    return metalearn.Config(lr=1e-5, warm_up=0)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of KE; the defaults are those of MEND's comparison.

    Attributes:
        place, blocks: which linear maps of how many last blocks (None: 3, or 2 of each stack).
        hidden: width of the LSTM in each direction, and of each matrix's network.
        condition: width of the condition vector.
        scale: s, the largest factor of an update.
        alpha: edits start as gradient steps of about this rate, by the bias that b starts with.
            The code starts at random (0): ∇W / O with signs that have yet to be learned.
        objective: MEND's L = c_edit L_e + L_loc, or KE's L = L_e + λ (L_loc - m), with λ >= 0 by
            gradient ascent at `outer.lr_alpha`.
        margin, least_margin: m at first, and where it stops: 0.8 of itself after each validation
            with a success above 0.9. The code's are 0.1 and 1e-3 for FEVER, a hundredth for zsRE.
    """

    place: Place = "mlp"
    blocks: int | None = None
    hidden: int = 512
    condition: int = 768
    scale: float = 1.0
    alpha: float = 0.0
    objective: Literal["mend", "margin"] = "mend"
    margin: float = 0.1
    least_margin: float = 1e-3
    outer: metalearn.Config = field(default_factory=_outer)

    def __post_init__(self) -> None:
        """Raises SettingsError for a margin that starts where it should have stopped."""
        if not 0 <= self.least_margin <= self.margin:
            raise SettingsError(
                expected=f"ke.least_margin of at most ke.margin, {self.margin}",
                found=str(self.least_margin),
                remedy="Lower it: for zsRE the reference has a hundredth of FEVER's, of both.",
            )


class Conditioner(nn.Module):
    """Reads what should change into a condition vector; embeddings start as the model's own."""

    def __init__(self, face: Face, config: Config, draws: torch.Generator) -> None:
        super().__init__()
        embedding = face.model.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        own_VE = embedding.weight.detach().float().clone()
        self.embedding = nn.Embedding.from_pretrained(own_VE, freeze=False)
        self.lstm = nn.LSTM(own_VE.shape[1], config.hidden, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(2 * config.hidden, config.condition)
        _draw(self.lstm, config.hidden, draws)
        _draw(self.linear, 2 * config.hidden, draws)

    def forward(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Condition_RC of token ids; padding is packed away, so rows do not see each other."""
        device = self.embedding.weight.device
        lengths = [len(row) for row in ids]
        flat = torch.tensor([token for row in ids for token in row], device=device)
        x_RLE = nn.utils.rnn.pad_sequence(self.embedding(flat).split(lengths), batch_first=True)
        packed = pack_padded_sequence(
            x_RLE, torch.tensor(lengths), batch_first=True, enforce_sorted=False
        )
        _, (last_2RH, _) = self.lstm(packed)
        return torch.tanh(self.linear(torch.cat([last_2RH[0], last_2RH[1]], dim=-1)))


class Head(nn.Module):
    """Condition -> (a_RO, b_RI, c_RO, d_RI, gate_R1) for one matrix."""

    def __init__(self, outputs: int, inputs: int, config: Config, draws: torch.Generator) -> None:
        super().__init__()
        self.widths = [outputs, inputs, outputs, inputs, 1]
        first = nn.Linear(config.condition, config.hidden)
        second = nn.Linear(config.hidden, sum(self.widths))
        _draw(first, config.condition, draws)
        _draw(second, config.hidden, draws)
        with torch.no_grad():  # about what undoes a's 1/O, the gate's 1/2 and s
            second.bias[outputs : outputs + inputs] -= 2 * outputs * config.alpha / config.scale
        self.layers = nn.Sequential(weight_norm(first), nn.Tanh(), weight_norm(second))

    def forward(self, condition_RC: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        a, b, c, d, norm = self.layers(condition_RC).split(self.widths, dim=-1)
        return a.softmax(-1), b, c.softmax(-1), d, norm.sigmoid()


class Ke(metalearn.Learner):
    """One conditioner, and one head for each edited matrix; the margin where it has one."""

    margin: Tensor

    def __init__(self, face: Face, config: Config, seed: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.config = config
        self.sites = face.sites(config.place, config.blocks)
        self.conditioner = Conditioner(face, config, draws)
        self.heads = nn.ModuleDict()
        for site in self.sites:
            outputs, inputs = weight_OI(linear_map(face.model, site)).shape
            self.heads[site.replace(".", "/")] = Head(outputs, inputs, config, draws)
        self.multiplier: nn.Parameter | None = None
        if config.objective == "margin":
            self.multiplier = nn.Parameter(torch.ones(()))
            self.register_buffer("margin", torch.tensor(config.margin))
        self.to(face.device)

    def groups(self, config: metalearn.Config) -> list[dict[str, Any]]:
        """The networks at `lr`, the multiplier at `lr_alpha`."""
        networks = [*self.conditioner.parameters(), *self.heads.parameters()]
        groups = [{"params": networks, "lr": config.lr, "initial_lr": config.lr}]
        if self.multiplier is not None:
            rate = config.lr_alpha
            groups.append({"params": [self.multiplier], "lr": rate, "initial_lr": rate})
        return groups

    def loss(
        self, edit: Tensor, loc: Tensor, config: metalearn.Config, drawn: Draw, now_NV: Tensor
    ) -> Tensor:
        """MEND's, or the Lagrangian whose multiplier climbs where the others descend."""
        if self.multiplier is None:
            return super().loss(edit, loc, config, drawn, now_NV)
        self.multiplier.data.clamp_(min=0)  # back to where the last step should have stopped
        excess = loc - self.margin
        ascent = -self.multiplier * excess.detach()
        # Worth 0 in sum, and of the opposite slope in the multiplier.
        return edit + self.multiplier.detach() * excess + ascent - ascent.detach()

    def validated(self, row: metalearn.Row) -> None:
        """Tighten the margin where edits succeed."""
        if self.multiplier is not None and row["val_success"] > 0.9:
            self.margin.mul_(0.8).clamp_(min=self.config.least_margin)

    def observe(self, face: Face, edits: EditBatch) -> None:
        """There are no statistics to take."""
        del face, edits

    def patch(self, face: Face, edits: EditBatch) -> Patch:
        """Gradients, masked and shifted by what the edit says."""
        gradients = token_gradients(face, edits.batch, self.sites).gradients
        condition_RC = self.conditioner(condition_ids(face.tokenizer, edits.requests))
        return Patch(
            {
                site: self._factors(
                    gradients[site], self.heads[site.replace(".", "/")](condition_RC)
                )
                for site in self.sites
            }
        )

    def _factors(self, found: TokenGradients, parts: tuple[Tensor, ...]) -> Factors:
        a_RO, b_RI, c_RO, d_RI, gate_R1 = parts
        left_RTO = found.delta_RTO.to(a_RO.dtype) * a_RO[:, None]
        right_RTI = found.u_RTI.to(a_RO.dtype) * b_RI[:, None]
        left_RKO = torch.cat([left_RTO, c_RO[:, None]], dim=1) * (
            self.config.scale * gate_R1[..., None]
        )
        return Factors(left_RKO, torch.cat([right_RTI, d_RI[:, None]], dim=1))


def condition_ids(tokenizer: Tokenizer, requests: Sequence[Request]) -> list[list[int]]:
    """Tokens of "prediction >> target || input", by the edited model's own tokenizer."""
    texts = [f"{r.prediction.strip()} >> {r.target.strip()} || {r.prompt}" for r in requests]
    ids: list[list[int]] = tokenizer(texts)["input_ids"]
    return ids


def _draw(module: nn.Module, width: int, draws: torch.Generator) -> None:
    """Uniform in ±1/sqrt(width), as torch has it, but from a generator of our own."""
    bound = 1 / math.sqrt(width)
    for parameter in module.parameters():
        start = torch.empty(parameter.shape).uniform_(-bound, bound, generator=draws)
        parameter.data.copy_(start)


class Editor(Learned[Config, Ke]):
    """KE behind the editors' interface."""

    def start(self, face: Face, seed: int) -> Ke:
        """The hypernetwork, drawn from a seed."""
        return Ke(face, self.config, seed)
