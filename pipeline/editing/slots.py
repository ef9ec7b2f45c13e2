"""Weights that are moved step by step, row by row: rows in slots, each with its own optimiser.

Every row starts from the clean model. Rows run side by side, long texts first; as one ends, the
next takes its slot, so that batches stay full and rows of a batch alike in length: little padding.
Rules are elementwise and each row's loss its own, so this changes no result.

Shape suffixes: R live rows, C rows of a chunk, T positions of a row, O outputs, I inputs, B rows of
the model's input, N target tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from pipeline.editing.gradients import EditPass, Loss, token_gradients
from pipeline.editing.patch import linear_map, weight_OI
from pipeline.editing.rowwise import weighing
from pipeline.editing.rules import Chunk, Rule
from pipeline.models import Face
from pipeline.models.face import Batch, Encoded
from pipeline.models.lower import Lower
from pipeline.records import Request

_CHUNK = 2**18  # numbers of a weight worked on at once: they stay in the cache


@dataclass(frozen=True)
class Row:
    """The k edits that are fine-tuned together, as requests and as tokens."""

    requests: tuple[Request, ...]
    encoded: tuple[Encoded, ...]

    @property
    def length(self) -> int:
        """Tokens of the longest edit."""
        return max(map(len, self.encoded))


@dataclass(frozen=True)
class Lesson:
    """One batch that the next step of R rows is taken on.

    Attributes:
        batch: equally many input rows for each of the R rows, one row after another.
        loss: every input row's part of its row's loss; a row's loss is their sum.
    """

    batch: Batch
    loss: Loss


@dataclass(frozen=True)
class Ended:
    """A row that is done: how often it moved, whether all was good, and where its weights lie."""

    row: int
    steps: int
    reached: bool
    slot: int


class Tuner(Protocol):
    """Who says what rows are moved by."""

    def sites(self, face: Face) -> tuple[str, ...]:
        """The linear maps that are moved."""
        ...

    def rule(self, _k: int) -> Rule:
        """How rows of k edits are moved."""
        ...

    def looks(self, _k: int) -> int:
        """Looks in one pass over k edits: all of one pass must be good for a row to be done."""
        ...

    def lessons(self, face: Face, rows: Sequence[Row], steps: Sequence[int]) -> list[Lesson]:
        """What the next step is taken on, edits first; `steps` are those already taken.

        A step's loss is the sum of all lessons'. Called on the unedited model.
        """
        ...

    def good(self, found: EditPass, rows: int, k: int) -> list[bool]:
        """Of each row, whether the first lesson went as it should."""
        ...


class Descent:
    """Rows in slots. Live rows fill the first slots; the rest is idle.

    Args:
        tuner: what rows are moved by.
        face: the clean model.
        rows: what is to be done, each of k edits.
        rate: the rule's.
        slots: rows side by side, at most.
        passes: over its edits, before a row is given up.
    """

    def __init__(
        self, tuner: Tuner, face: Face, rows: Sequence[Row], rate: float, slots: int, passes: int
    ) -> None:
        self.tuner, self.face, self.rows, self.rate = tuner, face, rows, rate
        k = len(rows[0].encoded)
        self.rule, self.looks = tuner.rule(k), tuner.looks(k)
        self.limit = passes * self.looks
        slots = min(slots, len(rows))
        self.start: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor] = {}
        for site in tuner.sites(face):
            weight = weight_OI(linear_map(face.model, site))
            # Small steps, and squares of small gradients, are lost in half precision.
            dtype = torch.promote_types(weight.dtype, torch.float32)
            self.start[site] = weight.to(dtype)
            self.weights[site] = self.start[site].repeat(slots, 1, 1)
        self.states = {
            site: [torch.zeros_like(weight) for _ in range(self.rule.states)]
            for site, weight in self.weights.items()
        }
        self.lower: list[Lower] = []  # of each lesson
        self.waiting = iter(sorted(range(len(rows)), key=lambda row: -rows[row].length))
        self.live = list(islice(self.waiting, slots))  # the row in each slot
        self.steps, self.calm = [0] * slots, [0] * slots  # its steps, its last looks that were good

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
                yield Ended(self.live[slot], taken[slot], reached[slot], slot)
                self._vacate(slot)

    def updates(self, ended: Ended) -> dict[str, Tensor]:
        """ΔW of the row that came last, O x I for each site; the next one takes its place."""
        return {site: w[ended.slot] - self.start[site] for site, w in self.weights.items()}

    def _look(self) -> tuple[list[EditPass], list[bool]]:
        """The gradient of each live row's loss, lesson by lesson, and whether the row is good."""
        rows = [self.rows[row] for row in self.live]
        lessons = self.tuner.lessons(self.face, rows, self.steps)
        self.lower += [Lower(self.face.model, self.weights) for _ in lessons[len(self.lower) :]]
        found = []
        with weighing(self.face.model, {site: w[: len(rows)] for site, w in self.weights.items()}):
            for lesson, lower in zip(lessons, self.lower, strict=True):
                with lower.shared(lesson.batch.inputs):
                    sites = tuple(self.weights)
                    found.append(token_gradients(self.face, lesson.batch, sites, loss=lesson.loss))
        return found, self.tuner.good(found[0], len(rows), len(rows[0].encoded))

    def _step(self, found: Sequence[EditPass], over: Sequence[int]) -> None:
        """Follow the rule, in place and a few rows at a time; rows that are over do not move.

        A row's gradient is the sum over its input rows, so their tokens are laid side by side.
        """
        count = len(self.live)
        moving = [slot not in over for slot in range(count)]
        for site, weight_ROI in self.weights.items():
            tokens, dtype = [one.gradients[site] for one in found], weight_ROI.dtype
            delta_RTO = _side_by_side([one.delta_RTO for one in tokens], count, dtype)
            u_RTI = _side_by_side([one.u_RTI for one in tokens], count, dtype)
            delta_RTO[over] = 0
            size = max(1, _CHUNK // weight_ROI[0].numel())
            spare_COI = torch.empty_like(weight_ROI[:size])
            for start in range(0, count, size):
                part = slice(start, min(start + size, count))
                gradient_COI = spare_COI[: part.stop - start]
                torch.bmm(delta_RTO[part].transpose(1, 2), u_RTI[part], out=gradient_COI)
                states = [state_ROI[part] for state_ROI in self.states[site]]
                chunk = Chunk(
                    weight_ROI[part], self.start[site], gradient_COI, states,
                    self.steps[part], moving[part],
                )  # fmt: skip
                self.rule.move(chunk, self.rate)
        self.steps = [steps + 1 for steps in self.steps]

    def _vacate(self, slot: int) -> None:
        """Give a slot to the next row that waits, or else to the live row in the last slot."""
        if (row := next(self.waiting, None)) is not None:
            self.live[slot], self.steps[slot], self.calm[slot] = row, 0, 0
            for site, weight_ROI in self.weights.items():
                weight_ROI[slot] = self.start[site]
                for state_ROI in self.states[site]:
                    state_ROI[slot] = 0
            return
        last = len(self.live) - 1
        for places in (self.live, self.steps, self.calm):
            places[slot] = places[last]
            places.pop()
        if slot != last:
            for tensors in (self.weights.values(), *self.states.values()):
                for tensor_ROI in tensors:
                    tensor_ROI[slot] = tensor_ROI[last]


def _side_by_side(parts: Sequence[Tensor], count: int, dtype: torch.dtype) -> Tensor:
    """All tokens of each of `count` rows, R x T x D, from one batch or several."""
    rows = [part.reshape(count, -1, part.shape[-1]) for part in parts]
    return (rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)).to(dtype)
