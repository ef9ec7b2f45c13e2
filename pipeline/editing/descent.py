"""Fine-tuning in rows: what FT and its relatives share.

Every row starts from the clean model and its optimiser moves the edited matrices by themselves,
until all its labels are the argmax or its steps are used up (MEND appendix A.4). A row is one edit,
or k edits made together; `slots` runs them side by side.

FT and FT+KL run RMSprop at a rate that depends on the model: their `fit` picks, out of `rates`, the
smallest that reaches the labels of `reach` of the training cases it tries, so that the baseline is
neither starved nor a bulldozer.

Shape suffixes: R rows, O outputs, I inputs.
"""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from torch import Tensor

from pipeline.editing.editor import Editor, Edits, Material, Need
from pipeline.editing.gradients import EditPass
from pipeline.editing.patch import Patch
from pipeline.editing.rules import RMSprop, Rule
from pipeline.editing.slots import Descent, Ended, Lesson, Row
from pipeline.editing.updates import Dense
from pipeline.measures import nll
from pipeline.models import Batch, Face
from pipeline.models.layouts import Place
from pipeline.progress import bar
from pipeline.records import Request


@dataclass(frozen=True, kw_only=True)
class Descending:
    """Settings of all that fine-tune.

    Attributes:
        rate: the optimiser's rate.
        steps: most steps of one row.
        rows: rows fine-tuned side by side; bounds memory, changes no result.
    """

    rate: float | None = None
    steps: int = 100
    rows: int = 16


@dataclass(frozen=True, kw_only=True)
class Config(Descending):
    """Settings of those whose rate is sought; without a `rate`, `fit` chooses one of `rates`.

    Attributes:
        place, blocks: which linear maps of how many last blocks (None: 3, or 2 of each stack).
        rates: candidates, in rising order.
        reach: share of the tried training cases that must reach their label.
        tries: training cases to choose the rate on.
    """

    place: Place = "mlp"
    blocks: int | None = None
    rates: tuple[float, ...] = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    reach: float = 0.95
    tries: int = 200


class FineTuner(Editor):
    """An editor that fine-tunes; a subclass says which maps, and how."""

    def __init__(self, config: Descending) -> None:
        self.config = config
        self.rate = config.rate

    @abstractmethod
    def sites(self, face: Face) -> tuple[str, ...]:
        """The linear maps that are fine-tuned."""

    @abstractmethod
    def rule(self, _k: int) -> Rule:
        """How rows of k edits are moved."""

    def lessons(self, face: Face, rows: Sequence[Row], steps: Sequence[int]) -> list[Lesson]:
        """What the next step is taken on, edits first; `steps` are those already taken.

        A step's loss is the sum of all lessons'. Here it is the mean over a row's edits. Called on
        the unedited model.
        """
        del steps
        k = len(rows[0].encoded)

        def loss(logits_NV: Tensor, batch: Batch) -> Tensor:
            return nll(logits_NV, batch) / k

        return [Lesson(face.collate([item for row in rows for item in row.encoded]), loss)]

    def good(self, found: EditPass, rows: int, k: int) -> list[bool]:
        """Of each row, whether the first lesson went as it should: its labels are the argmax."""
        return list(found.hit_R.view(rows, k).bool().all(1).tolist())

    def looks(self, _k: int) -> int:
        """Looks in one pass over k edits: all of one pass must be good for a row to be done."""
        return 1

    def edit(self, face: Face, requests: Sequence[Request], k: int = 1) -> Edits:
        """Fine-tune each k requests on a row of their own."""
        assert self.rate is not None, "fit or restore first"
        rows = group(face, requests, k)
        run = self.descent(face, rows, self.rate)
        whole = {
            site: start_OI.new_empty(len(rows), *start_OI.shape)
            for site, start_OI in run.start.items()
        }
        steps, early = [0] * len(rows), [False] * len(rows)
        for ended in bar(run.ended(), f"fine-tune at {self.rate:g}", len(rows)):
            steps[ended.row], early[ended.row] = ended.steps, ended.reached
            for site, delta_OI in run.updates(ended).items():
                whole[site][ended.row] = delta_OI
        patch = Patch({site: Dense(delta_ROI) for site, delta_ROI in whole.items()})
        return Edits(patch, tuple(steps), tuple(early))

    def notes(self) -> dict[str, Any]:
        """The rate."""
        return {"rate": self.rate}

    def restore(self, face: Face, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
        """Take up the rate."""
        del face, tensors
        self.rate = notes["rate"]

    def descent(self, face: Face, rows: Sequence[Row], rate: float) -> Descent:
        """Rows about to be fine-tuned."""
        return Descent(self, face, rows, rate, self.config.rows, self.config.steps)


class RateSeeker(FineTuner):
    """RMSprop on the last blocks' maps, at a rate that is sought on training cases."""

    config: Config
    needs: ClassVar[frozenset[Need]] = frozenset({"cases"})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.tried: dict[str, float] = {}
        self.tries = 0

    def sites(self, face: Face) -> tuple[str, ...]:
        """The MLPs' or attentions' maps of the last blocks."""
        return face.sites(self.config.place, self.config.blocks)

    def rule(self, _k: int) -> Rule:
        """RMSprop, whatever k is."""
        return RMSprop()

    def fit(self, face: Face, material: Material) -> list[dict[str, float]]:
        """Choose the rate on training cases, unless it is given.

        Bisection: a higher rate reaches the label sooner, so the share rises with the rate. If no
        candidate reaches enough, the one of those tried that reaches most is taken.
        """
        if self.config.rate is not None:
            return []
        cases = sorted(material.cases, key=lambda case: case.id)
        random.Random(f"{material.seed}/ft rate").shuffle(cases)
        rows = group(face, [case.request() for case in cases[: self.config.tries]], 1)
        search = _Search(self, face, rows)
        low, high = 0, len(self.config.rates)
        while low < high:
            middle = (low + high) // 2
            if search.reaches(self.config.rates[middle]):
                high = middle
            else:
                low = middle + 1
        self.rate = search.furthest() if low == len(self.config.rates) else self.config.rates[low]
        self.tries = len(rows)
        self.tried = {f"{rate:g}": share for rate, share in search.shares.items()}
        return []

    def notes(self) -> dict[str, Any]:
        """The rate, and the share of training cases that reached their label at each rate tried.

        A try ends when it is settled whether the share is enough: of a rate that is, it is the
        least that it can be; of one that is not, the most.
        """
        if not self.tried:
            return super().notes()
        tried = {"training_cases": self.tries, "share_reached_by_rate": self.tried}
        return super().notes() | tried

    def restore(self, face: Face, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
        """Take up the chosen rate."""
        super().restore(face, tensors, notes)
        self.tries = notes.get("training_cases", 0)
        self.tried = dict(notes.get("share_reached_by_rate", {}))


class _Search:
    """How many of some rows reach their labels at one rate and another.

    Rows that took longest at the rate before come first: those that fail at a lower one are among
    them, so that what is not enough shows early.
    """

    def __init__(self, tuner: RateSeeker, face: Face, rows: Sequence[Row]) -> None:
        self.tuner, self.face, self.rows = tuner, face, rows
        self.enough = math.ceil(tuner.config.reach * len(rows) - 1e-9)
        self.shares: dict[float, float] = {}
        self._steps = [0] * len(rows)

    def reaches(self, rate: float) -> bool:
        """Whether enough rows reach their labels; cut short once that is settled either way."""
        count, reached, failed = len(self.rows), 0, 0
        late = set(range(count))
        for row, end in self._ended(rate):
            late.remove(row)
            self._steps[row] = end.steps + (not end.reached)
            reached, failed = reached + end.reached, failed + (not end.reached)
            if reached >= self.enough or failed > count - self.enough:
                break
        settled = reached >= self.enough
        for row in late if settled else ():
            self._steps[row] = self.tuner.config.steps
        self.shares[rate] = reached / count if settled else 1 - failed / count
        return settled

    def furthest(self) -> float:
        """Of the rates that were tried, the one at which most rows reach their labels."""
        for rate in self.shares:
            self.shares[rate] = sum(e.reached for _, e in self._ended(rate)) / len(self.rows)
        return max(self.shares, key=lambda rate: self.shares[rate])

    def _ended(self, rate: float) -> Iterator[tuple[int, Ended]]:
        """The first few by themselves: each that fails takes all steps, and few settle it."""
        order = sorted(range(len(self.rows)), key=lambda row: -self._steps[row])
        few = len(order) - self.enough + 3  # two more than have to
        parts = (order[:few], order[few:])
        ends = chain.from_iterable(self._run(part, rate) for part in parts if part)
        yield from bar(ends, f"try {rate:g}", len(order))

    def _run(self, part: Sequence[int], rate: float) -> Iterator[tuple[int, Ended]]:
        run = self.tuner.descent(self.face, [self.rows[row] for row in part], rate)
        for end in run.ended():
            yield part[end.row], end


def below(found: EditPass, rows: int, enough: float) -> list[bool]:
    """Of each row, whether its loss is below `enough`."""
    return list((found.loss_R.view(rows, -1).sum(1) < enough).tolist())


def group(face: Face, requests: Sequence[Request], k: int) -> list[Row]:
    """Every k consecutive requests as one row."""
    encoded = face.tokenise([(request.prompt, request.target) for request in requests])
    starts = range(0, len(requests), k)
    return [Row(tuple(requests[i : i + k]), tuple(encoded[i : i + k])) for i in starts]
