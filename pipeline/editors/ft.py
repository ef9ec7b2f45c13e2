"""FT: fine-tune the edited matrices on the edit alone, until its label is the argmax.

MEND's baseline (appendix A.4): RMSprop on the same matrices, at most 100 steps, each edit stopping
by itself. Here every edit of a batch is fine-tuned on its own row, and rows leave as they finish.

The rate depends on the model. `fit` picks, out of `rates`, the smallest that reaches the label on
`reach` of the training cases it tries, so that the baseline is neither starved nor a bulldozer.

Shape suffixes: R edits still running, O outputs, I inputs.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipeline.editor import Editor as Base
from pipeline.editor import Edits, Material, Need
from pipeline.gradients import EditPass, token_gradients
from pipeline.models import Face
from pipeline.models.layouts import Place
from pipeline.patch import Dense, Factors, Patch, applied, linear_map, weight_OI, weights_of
from pipeline.progress import bar
from pipeline.records import Request


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of FT.

    Attributes:
        place, blocks: which linear maps of how many last blocks (None: 3, or 2 of each stack).
        rate: RMSprop's rate; None lets `fit` choose out of `rates`.
        rates: candidates, in rising order.
        reach: share of the tried training cases that must reach their label.
        tries: training cases to choose the rate on.
        steps: most steps of one edit.
        rows: edits fine-tuned side by side; bounds memory, changes no result.
    """

    place: Place = "mlp"
    blocks: int | None = None
    rate: float | None = None
    rates: tuple[float, ...] = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    reach: float = 0.95
    tries: int = 200
    steps: int = 100
    rows: int = 32


_SMOOTHING, _EPSILON = 0.99, 1e-8  # torch.optim.RMSprop's defaults, which the reference uses


class Editor(Base):
    """FT behind the editors' interface."""

    needs: ClassVar[frozenset[Need]] = frozenset({"cases"})

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rate = config.rate
        self.tried: dict[str, float] = {}
        self.tries = 0

    def fit(self, face: Face, material: Material) -> list[dict[str, float]]:
        """Choose the rate on training cases, unless it is given.

        Bisection: a higher rate reaches the label sooner, so the share rises with the rate. If no
        candidate reaches enough, the one that reaches most is taken; the report shows the shares.
        """
        if self.config.rate is not None:
            return []
        cases = sorted(material.cases, key=lambda case: case.id)
        random.Random(f"{material.seed}/ft rate").shuffle(cases)
        requests = [case.request() for case in cases[: self.config.tries]]
        self.tries = len(requests)
        low, high = 0, len(self.config.rates)
        while low < high:
            middle = (low + high) // 2
            if self._share(face, requests, self.config.rates[middle]) >= self.config.reach:
                high = middle
            else:
                low = middle + 1
        if low < len(self.config.rates):
            self.rate = self.config.rates[low]
        else:
            self.rate = float(max(self.tried, key=lambda rate: self.tried[rate]))
        return []

    def edit(self, face: Face, requests: Sequence[Request], k: int = 1) -> Edits:
        """Fine-tune each request on its own row."""
        assert k == 1
        assert self.rate is not None, "fit or restore first"
        return self._edit(face, requests, self.rate)

    def notes(self) -> dict[str, Any]:
        """The rate, and the share of training cases that reached their label at each rate tried."""
        if not self.tried:
            return {"rate": self.rate}
        return {
            "rate": self.rate,
            "training_cases": self.tries,
            "share_reached_by_rate": self.tried,
        }

    def restore(self, face: Face, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
        """Take up the chosen rate."""
        del face, tensors
        self.rate, self.tries = notes["rate"], notes.get("training_cases", 0)
        self.tried = dict(notes.get("share_reached_by_rate", {}))

    def _share(self, face: Face, requests: Sequence[Request], rate: float) -> float:
        """Share that reached the label; cut short once too many did not for `reach` to be met."""
        sites = face.sites(self.config.place, self.config.blocks)
        allowed = (1 - self.config.reach) * len(requests) + 1e-9  # counts of edits, rounded down
        reached: list[bool] = []
        for start in bar(range(0, len(requests), self.config.rows), f"try {rate:g}"):
            part = requests[start : start + self.config.rows]
            reached += _Run(face, sites, part, self.config.steps).finish(rate).stopped_early
            if reached.count(False) > allowed:
                break
        share = sum(reached) / len(reached)
        self.tried[f"{rate:g}"] = share
        return share

    def _edit(self, face: Face, requests: Sequence[Request], rate: float) -> Edits:
        sites = face.sites(self.config.place, self.config.blocks)
        size = self.config.rows
        parts = []
        for start in bar(range(0, len(requests), size), f"fine-tune at {rate:g}"):
            run = _Run(face, sites, requests[start : start + size], self.config.steps)
            parts.append(run.finish(rate))
        patches = [weights_of(part.patch) for part in parts]
        patch = Patch({s: Dense(torch.cat([_delta(each, s) for each in patches])) for s in sites})
        return Edits(
            patch,
            steps=tuple(step for part in parts for step in part.steps),
            stopped_early=tuple(stop for part in parts for stop in part.stopped_early),
        )


class _Run:
    """Fine-tuning of a batch of edits; those that are done leave it."""

    def __init__(
        self, face: Face, sites: Sequence[str], requests: Sequence[Request], steps: int
    ) -> None:
        self.face, self.limit = face, steps
        self.encoded = face.tokenise([(request.prompt, request.target) for request in requests])
        self.live = torch.arange(len(requests), device=face.device)
        self.done: dict[str, Tensor] = {}
        for site in sites:
            weight = weight_OI(linear_map(face.model, site))
            self.done[site] = weight.new_zeros(len(requests), *weight.shape)
        self.delta = {site: whole.clone() for site, whole in self.done.items()}
        self.square = {site: whole.clone() for site, whole in self.done.items()}
        self.steps = [steps] * len(requests)
        self.early = [False] * len(requests)

    def finish(self, rate: float) -> Edits:
        """Step until every edit has its label or ran out of steps."""
        for step in range(self.limit + 1):
            found = self._look()
            self._leave(found, step)
            if not len(self.live) or step == self.limit:
                break
            self._step(found, rate)
        for site, whole in self.done.items():
            whole[self.live] = self.delta[site]
        patch = Patch({site: Dense(whole) for site, whole in self.done.items()})
        return Edits(patch, tuple(self.steps), tuple(self.early))

    def _look(self) -> EditPass:
        batch = self.face.collate([self.encoded[row] for row in self.live.tolist()])
        patch = Patch({site: Dense(delta) for site, delta in self.delta.items()})
        with applied(self.face.model, patch):
            return token_gradients(self.face, batch, tuple(self.delta))

    def _leave(self, found: EditPass, step: int) -> None:
        """Take out the edits whose label is the argmax, with their share of all state."""
        hit_R = found.hit_R.bool()
        for row in self.live[hit_R].tolist():
            self.steps[row], self.early[row] = step, True
        self.kept = ~hit_R
        for site, whole in self.done.items():
            whole[self.live[hit_R]] = self.delta[site][hit_R]
            self.delta[site] = self.delta[site][self.kept]
            self.square[site] = self.square[site][self.kept]
        self.live = self.live[self.kept]

    def _step(self, found: EditPass, rate: float) -> None:
        """RMSprop: elementwise, so rows do not mix."""
        for site, tokens in found.gradients.items():
            delta_RTO, u_RTI = tokens.delta_RTO[self.kept], tokens.u_RTI[self.kept]
            gradient_ROI = Factors(delta_RTO, u_RTI).dense_ROI()
            square_ROI = self.square[site]
            square_ROI.mul_(_SMOOTHING).addcmul_(gradient_ROI, gradient_ROI, value=1 - _SMOOTHING)
            self.delta[site].addcdiv_(gradient_ROI, square_ROI.sqrt().add_(_EPSILON), value=-rate)


def _delta(patch: Patch, site: str) -> Tensor:
    return patch.updates[site].dense_ROI()
