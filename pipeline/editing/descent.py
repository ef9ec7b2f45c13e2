"""Fine-tuning in rows: what FT and its relatives share.

Every row starts from the clean model and runs RMSprop on the edited matrices by itself, until all
its labels are the argmax or its steps are used up (MEND appendix A.4). A row is one edit, or k
edits made together. Rows run side by side in slots; as one ends, the next takes its slot, so that
batches stay full. Rules are elementwise and each row's loss its own, so this changes no result.

The rate depends on the model. `fit` picks, out of `rates`, the smallest that reaches the labels of
`reach` of the training cases it tries, so that the baseline is neither starved nor a bulldozer.

Shape suffixes: R live rows, C rows of a chunk, T positions of a row, O outputs, I inputs, B rows of
the model's input, N target tokens, V vocabulary.
"""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipeline.editing.editor import Editor, Edits, Material, Need
from pipeline.editing.gradients import EditPass, Loss, token_gradients
from pipeline.editing.patch import Patch, applied, linear_map, weight_OI
from pipeline.editing.rules import Chunk, RMSprop, Rule
from pipeline.editing.updates import Dense
from pipeline.models import Face
from pipeline.models.face import Batch, Encoded
from pipeline.models.layouts import Place
from pipeline.models.lower import Lower
from pipeline.progress import bar
from pipeline.records import Request


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of fine-tuning.

    Attributes:
        place, blocks: which linear maps of how many last blocks (None: 3, or 2 of each stack).
        rate: RMSprop's rate; None lets `fit` choose out of `rates`.
        rates: candidates, in rising order.
        reach: share of the tried training cases that must reach their label.
        tries: training cases to choose the rate on.
        steps: most steps of one row.
        rows: rows fine-tuned side by side; bounds memory, changes no result.
    """

    place: Place = "mlp"
    blocks: int | None = None
    rate: float | None = None
    rates: tuple[float, ...] = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    reach: float = 0.95
    tries: int = 200
    steps: int = 100
    rows: int = 16


@dataclass(frozen=True)
class Row:
    """The k edits that are fine-tuned together, as requests and as tokens."""

    requests: tuple[Request, ...]
    encoded: tuple[Encoded, ...]


@dataclass(frozen=True)
class Lesson:
    """What the next step of R rows is taken on.

    Attributes:
        batch: equally many input rows for each of the R rows, one row after another; of each, its k
            edits first.
        loss: every input row's part of its row's loss; a row's loss is their sum.
    """

    batch: Batch
    loss: Loss


@dataclass(frozen=True)
class Ended:
    """A row that is done. `delta_OI` are views that the next row overwrites."""

    row: int
    steps: int
    reached: bool
    delta_OI: dict[str, Tensor]


_CHUNK = 2**18  # elements of an update worked on at once: they stay in the cache


class FineTuner(Editor):
    """An editor that fine-tunes; a subclass says on what loss."""

    needs: ClassVar[frozenset[Need]] = frozenset({"cases"})

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rate = config.rate
        self.tried: dict[str, float] = {}
        self.tries = 0

    @abstractmethod
    def lesson(self, face: Face, rows: Sequence[Row], steps: Sequence[int]) -> Lesson:
        """What to look at next. Called on the unedited model; `steps` are those already taken."""

    def sites(self, face: Face) -> tuple[str, ...]:
        """The linear maps that are fine-tuned."""
        return face.sites(self.config.place, self.config.blocks)

    def rule(self, _k: int) -> Rule:
        """How rows of k edits are moved."""
        return RMSprop()

    def good(self, found: EditPass, rows: int, k: int) -> list[bool]:
        """Of each row, whether what was looked at is as it should be: its labels are the argmax."""
        hit_Rk = found.hit_R.view(rows, -1)[:, :k]
        return list(hit_Rk.bool().all(1).tolist())

    def looks(self, _k: int) -> int:
        """Looks in one pass over k edits: all of one pass must be good for a row to be done."""
        return 1

    def fit(self, face: Face, material: Material) -> list[dict[str, float]]:
        """Choose the rate on training cases, unless it is given.

        Bisection: a higher rate reaches the label sooner, so the share rises with the rate. If no
        candidate reaches enough, the one that reaches most is taken; the report shows the shares.
        """
        if self.config.rate is not None:
            return []
        cases = sorted(material.cases, key=lambda case: case.id)
        random.Random(f"{material.seed}/ft rate").shuffle(cases)
        rows = group(face, [case.request() for case in cases[: self.config.tries]], 1)
        self.tries, self.tried = len(rows), {}
        low, high = 0, len(self.config.rates)
        while low < high:
            middle = (low + high) // 2
            if self._reaches(face, rows, self.config.rates[middle]):
                high = middle
            else:
                low = middle + 1
        most = max(self.tried, key=lambda rate: self.tried[rate])
        self.rate = self.config.rates[low] if low < len(self.config.rates) else float(most)
        return []

    def edit(self, face: Face, requests: Sequence[Request], k: int = 1) -> Edits:
        """Fine-tune each k requests on a row of their own."""
        assert self.rate is not None, "fit or restore first"
        rows = group(face, requests, k)
        run = Descent(self, face, rows, self.rate)
        whole = {s: delta.new_empty(len(rows), *delta.shape[1:]) for s, delta in run.delta.items()}
        steps, early = [0] * len(rows), [False] * len(rows)
        for ended in bar(run.ended(), f"fine-tune at {self.rate:g}", len(rows)):
            steps[ended.row], early[ended.row] = ended.steps, ended.reached
            for site, delta_OI in ended.delta_OI.items():
                whole[site][ended.row] = delta_OI
        patch = Patch({site: Dense(delta_ROI) for site, delta_ROI in whole.items()})
        return Edits(patch, tuple(steps), tuple(early))

    def notes(self) -> dict[str, Any]:
        """The rate, and the share of training cases that reached their label at each rate tried.

        A share is of the rows that had ended when it was settled whether they are enough; where
        they are, it is of all, and so the least that it can be.
        """
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

    def _reaches(self, face: Face, rows: Sequence[Row], rate: float) -> bool:
        """Whether enough rows reach their label; cut short once that is settled either way."""
        enough = math.ceil(self.config.reach * len(rows) - 1e-9)
        ended = reached = 0
        for end in bar(Descent(self, face, rows, rate).ended(), f"try {rate:g}", len(rows)):
            ended, reached = ended + 1, reached + end.reached
            if reached >= enough or ended - reached > len(rows) - enough:
                break
        settled = reached >= enough
        self.tried[f"{rate:g}"] = reached / (len(rows) if settled else ended)
        return settled


def group(face: Face, requests: Sequence[Request], k: int) -> list[Row]:
    """Every k consecutive requests as one row."""
    encoded = face.tokenise([(request.prompt, request.target) for request in requests])
    starts = range(0, len(requests), k)
    return [Row(tuple(requests[i : i + k]), tuple(encoded[i : i + k])) for i in starts]


class Descent:
    """Fine-tuning of rows in slots. Live rows fill the first slots; the rest is idle."""

    def __init__(self, tuner: FineTuner, face: Face, rows: Sequence[Row], rate: float) -> None:
        self.tuner, self.face, self.rows, self.rate = tuner, face, rows, rate
        k = len(rows[0].encoded)
        self.rule, self.looks = tuner.rule(k), tuner.looks(k)
        self.limit = tuner.config.steps * self.looks
        slots = min(tuner.config.rows, len(rows))
        self.delta: dict[str, Tensor] = {}
        self.weight: dict[str, Tensor] = {}
        for site in tuner.sites(face):
            weight = weight_OI(linear_map(face.model, site))
            # Squares of small gradients are lost in half precision.
            dtype = torch.promote_types(weight.dtype, torch.float32)
            self.delta[site] = weight.new_zeros(slots, *weight.shape, dtype=dtype)
            self.weight[site] = weight
        self.states = {
            site: [torch.zeros_like(delta) for _ in range(self.rule.states)]
            for site, delta in self.delta.items()
        }
        self.lower = Lower(face.model, self.delta)
        self.live = list(range(slots))  # the row in each slot
        self.steps, self.calm = [0] * slots, [0] * slots  # its steps, its last looks that were good
        self.waiting = iter(range(slots, len(rows)))

    def ended(self) -> Iterator[Ended]:
        """Step until every row has its labels or ran out of steps; rows come as they end."""
        while self.live:
            found, good = self._look()
            self.calm = [calm + 1 if good[i] else 0 for i, calm in enumerate(self.calm)]
            reached, taken = [calm >= self.looks for calm in self.calm], list(self.steps)
            over = [slot for slot, n in enumerate(taken) if reached[slot] or n == self.limit]
            if len(over) < len(self.live):
                self._step(found, over)
            for slot in reversed(over):
                delta_OI = {site: delta[slot] for site, delta in self.delta.items()}
                yield Ended(self.live[slot], taken[slot], reached[slot], delta_OI)
                self._vacate(slot)

    def _look(self) -> tuple[EditPass, list[bool]]:
        """The gradient of each live row's loss, and whether the row is good."""
        rows = [self.rows[row] for row in self.live]
        lesson = self.tuner.lesson(self.face, rows, self.steps)
        count, k = len(rows), len(rows[0].encoded)
        patch = Patch({site: Dense(delta[:count]) for site, delta in self.delta.items()})
        with applied(self.face.model, patch), self.lower.shared(lesson.batch.inputs):
            found = token_gradients(self.face, lesson.batch, tuple(self.delta), loss=lesson.loss)
        return found, self.tuner.good(found, count, k)

    def _step(self, found: EditPass, over: Sequence[int]) -> None:
        """Follow the rule, in place and a few rows at a time; rows that are over do not move.

        A row's gradient is the sum over its input rows, so their tokens are laid side by side.
        """
        count = len(self.live)
        for site, tokens in found.gradients.items():
            delta_ROI, moving = self.delta[site], [slot not in over for slot in range(count)]
            delta_RTO = tokens.delta_RTO.reshape(count, -1, delta_ROI.shape[1]).to(delta_ROI.dtype)
            u_RTI = tokens.u_RTI.reshape(count, -1, delta_ROI.shape[2]).to(delta_ROI.dtype)
            delta_RTO[over] = 0
            size = max(1, _CHUNK // delta_ROI[0].numel())
            spare_COI = torch.empty_like(delta_ROI[:size]), torch.empty_like(delta_ROI[:size])
            for start in range(0, count, size):
                part = slice(start, min(start + size, count))
                gradient_COI, root_COI = (spare[: part.stop - start] for spare in spare_COI)
                torch.bmm(delta_RTO[part].transpose(1, 2), u_RTI[part], out=gradient_COI)
                states = [state_ROI[part] for state_ROI in self.states[site]]
                steps, weight_OI = self.steps[part], self.weight[site]
                chunk = Chunk(
                    delta_ROI[part], gradient_COI, root_COI, states, weight_OI, steps, moving[part]
                )
                self.rule.move(chunk, self.rate)
        self.steps = [steps + 1 for steps in self.steps]

    def _vacate(self, slot: int) -> None:
        """Give a slot to the next row that waits, or else to the live row in the last slot."""
        if (row := next(self.waiting, None)) is not None:
            self.live[slot], self.steps[slot], self.calm[slot] = row, 0, 0
            for state in self._all():
                state[slot] = 0
            return
        last = len(self.live) - 1
        for places in (self.live, self.steps, self.calm):
            places[slot] = places[last]
            places.pop()
        if slot != last:
            for state in self._all():
                state[slot] = state[last]

    def _all(self) -> list[Tensor]:
        """Everything that has a slot for each row."""
        return [*self.delta.values(), *(state for some in self.states.values() for state in some)]
