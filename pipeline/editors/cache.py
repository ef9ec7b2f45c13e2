"""The caching editor: remember the edit, and say its target wherever an input looks like it.

MEND appendix G: z is the mean final-layer hidden state of an input; within epsilon of an edit's z,
the output is the edit's target. `pipeline.editing.memory` says what is averaged and what answers.

The paper gives the epsilon whose drawdown is like MEND's. `fit` finds it: distances from edits to
unrelated examples give the drawdown at every epsilon at once, in one pass over training cases.

Shape suffixes: N target tokens of all probes, B probes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.editing.editor import Editor as Base
from pipeline.editing.editor import Edits, Material, Need
from pipeline.editing.memory import Memory, recall, remember
from pipeline.errors import EditorError
from pipeline.models import Face
from pipeline.progress import bar
from pipeline.records import Request


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the caching editor.

    Attributes:
        epsilon: distance below which an edit answers; None lets `fit` choose.
        drawdown: what unrelated training examples may lose at the chosen epsilon, of accuracy, or
            of perplexity where they are passages. The paper matches MEND's.
        scale: factor on epsilon (the paper also shows 0.5 and 2).
        tries: training cases to choose epsilon on.
        cases: edits compared with their probes at once; bounds memory, changes no result.
    """

    epsilon: float | None = None
    drawdown: float = 0.002
    scale: float = 1.0
    tries: int = 1000
    cases: int = 50


_HAIR = 1e-4  # off the very distance that decided, lest rounding decides
_GRID = tuple(step / 10 for step in range(1, 31))  # of the reported curve, times epsilon


class Editor(Base):
    """The caching editor behind the editors' interface."""

    needs: ClassVar[frozenset[Need]] = frozenset({"cases"})

    def __init__(self, config: Config) -> None:
        self.config = config
        self.epsilon = config.epsilon  # before scaling
        self.tried: dict[str, Any] = {}

    def fit(self, face: Face, material: Material) -> list[dict[str, float]]:
        """Choose epsilon on training cases, unless it is given.

        Raises:
            EditorError: no training case has an unrelated example.
        """
        if self.config.epsilon is not None:
            return []
        cases = sorted(material.cases, key=lambda case: case.id)
        random.Random(f"{material.seed}/cache epsilon").shuffle(cases)
        cases = cases[: self.config.tries]
        if not any(case.unrelated for case in cases):
            raise EditorError(
                expected="unrelated examples in training cases, to choose epsilon on",
                found="none",
                remedy="Set the editor's `epsilon`.",
            )
        passages = all(not probe.prompt for case in cases for probe in case.unrelated)
        rephrases, bystanders = [], []
        for start in bar(range(0, len(cases), self.config.cases), "measure distances"):
            part = cases[start : start + self.config.cases]
            memory = remember(face, [case.request() for case in part], k=1, epsilon=0.0)
            again = [
                (n, prompt, case.target_new)
                for n, case in enumerate(part)
                for prompt in case.rephrases or (case.prompt,)
            ]
            other = [(n, p.prompt, p.target) for n, case in enumerate(part) for p in case.unrelated]
            rephrases.append(_look(face, memory, again, passages=False))
            if other:
                bystanders.append(_look(face, memory, other, passages=passages))
        near, far = Probes.all_of(rephrases), Probes.all_of(bystanders)
        found = far.widest(self.config.drawdown)
        farthest = max(near.farthest(), far.farthest())
        self.epsilon = farthest * (1 + _HAIR) if found is None else found * (1 - _HAIR)
        self.tried = {"training_cases": len(cases), "curve": self._curve(near, far)}
        return []

    def edit(self, face: Face, requests: Sequence[Request], k: int = 1) -> Edits:
        """One forward pass: remember what was asked."""
        assert self.epsilon is not None, "fit or restore first"
        memory = remember(face, requests, k, self.config.scale * self.epsilon)
        return Edits(memory, steps=(1,) * memory.rows, stopped_early=(False,) * memory.rows)

    def tensors(self) -> dict[str, Tensor]:
        """Epsilon, before scaling."""
        return {"epsilon": torch.tensor(self.epsilon, dtype=torch.float64)}

    def notes(self) -> dict[str, Any]:
        """Epsilon as used and before scaling, and what other values do to training cases."""
        assert self.epsilon is not None, "fit or restore first"
        used = self.config.scale * self.epsilon
        return {"epsilon": used, "epsilon_star": self.epsilon, **self.tried}

    def restore(self, face: Face, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
        """Take up the chosen epsilon."""
        del face
        self.epsilon = tensors["epsilon"].item()
        self.tried = {name: notes[name] for name in ("training_cases", "curve") if name in notes}

    def _curve(self, near: Probes, far: Probes) -> dict[str, list[float]]:
        """At multiples of epsilon: success on other wordings, and what unrelated examples lose."""
        assert self.epsilon is not None
        grid = [factor * self.epsilon for factor in _GRID]
        return {
            "epsilon": grid,
            "success": [near.quality(epsilon) for epsilon in grid],
            "share_of_bystanders_hit": [far.hit(epsilon) for epsilon in grid],
            "drawdown": [far.drawdown(epsilon) for epsilon in grid],
        }


@dataclass(frozen=True)
class Probes:
    """Target tokens of probes: from how far the memory would answer, and how good either is.

    Attributes:
        distance_N: an epsilon above this makes the memory answer.
        own_N, said_N: of the model's own token and of the memory's: whether it is wrong (1 or 0),
            or the negative log-likelihood of the right one where the probes are passages.
        row_N: the probe that the token is of.
        rows: number of probes.
        passages: texts without a question, judged by perplexity.
    """

    distance_N: Tensor
    own_N: Tensor
    said_N: Tensor
    row_N: Tensor
    rows: int
    passages: bool

    @staticmethod
    def all_of(parts: Sequence[Probes]) -> Probes:
        """Several sets of probes as one."""
        firsts = [sum(part.rows for part in parts[:i]) for i in range(len(parts))]
        return Probes(
            torch.cat([part.distance_N for part in parts]),
            torch.cat([part.own_N for part in parts]),
            torch.cat([part.said_N for part in parts]),
            torch.cat([part.row_N + at for part, at in zip(parts, firsts, strict=True)]),
            sum(part.rows for part in parts),
            parts[0].passages,
        )

    def quality(self, epsilon: float) -> float:
        """Share of probes that are exactly right, or the perplexity of passages."""
        value_N = torch.where(self.distance_N < epsilon, self.said_N, self.own_N)
        if self.passages:
            return value_N.mean().exp().item()
        wrong_B = value_N.new_zeros(self.rows).index_add(0, self.row_N, value_N)
        return (wrong_B == 0).double().mean().item()

    def hit(self, epsilon: float) -> float:
        """Share of probes with a token that the memory answers."""
        return len(self.row_N[self.distance_N < epsilon].unique()) / self.rows

    def drawdown(self, epsilon: float) -> float:
        """What probes lose: accuracy, before less after, or perplexity, after less before."""
        lost = self.quality(0.0) - self.quality(epsilon)
        return -lost if self.passages else lost

    def farthest(self) -> float:
        """The largest distance at which anything could be answered."""
        return self.distance_N[self.distance_N.isfinite()].max().item()

    def widest(self, allowed: float) -> float | None:
        """The largest epsilon up to which the drawdown stays within `allowed`; None: any does.

        The drawdown only changes where epsilon passes a distance, and at an epsilon equal to a
        distance that token is not answered yet. So the first distance past which too much is
        lost is the epsilon wanted.
        """
        distance_N, order_N = self.distance_N.sort(stable=True)
        if self.passages:
            lost_N = (self.said_N - self.own_N)[order_N].cumsum(0) / len(order_N)
            before = self.own_N.mean()
            drawdown_N = (before + lost_N).exp() - before.exp()
        else:
            drawdown_N = self._flips(order_N).cumsum(0) / self.rows
        last_N = torch.ones_like(distance_N, dtype=torch.bool)  # of several at the same distance
        last_N[:-1] = distance_N[1:] != distance_N[:-1]
        over = ((drawdown_N > allowed + 1e-12) & last_N & distance_N.isfinite()).nonzero()
        return distance_N[over[0]].item() if len(over) else None

    def _flips(self, order_N: Tensor) -> Tensor:
        """Right probes lost (1), or won (-1), as tokens become the memory's in this order."""
        change_N = (self.said_N - self.own_N)[order_N]
        row_N = self.row_N[order_N]
        by_row_N = row_N.sort(stable=True).indices
        wrong_B = self.own_N.new_zeros(self.rows).index_add(0, self.row_N, self.own_N)
        total_N = change_N[by_row_N].cumsum(0)
        ends_B = torch.bincount(row_N, minlength=self.rows).cumsum(0)
        start_B = F.pad(total_N, (1, 0))[F.pad(ends_B, (1, 0))[:-1]]
        after_N = (wrong_B - start_B)[row_N[by_row_N]] + total_N
        before_N = after_N - change_N[by_row_N]
        flips_N = (before_N == 0).double() - (after_N == 0).double()
        return torch.empty_like(flips_N).index_copy(0, by_row_N, flips_N)


def _look(
    face: Face, memory: Memory, asked: Sequence[tuple[int, str, str]], *, passages: bool
) -> Probes:
    """Compare probes, (row of the memory, prompt, target) each, with the memory."""
    batch = face.encode([(prompt, target) for _, prompt, target in asked])
    rows_B = torch.tensor([row for row, _, _ in asked], device=face.device)
    found = recall(face, batch, memory.select(rows_B))
    right_N = found.token_N == batch.label_N
    if passages:
        classes = found.logits_NV.shape[-1]
        own_N = F.cross_entropy(found.logits_NV.float(), batch.label_N, reduction="none").double()
        said_N = math.log(math.e + classes - 1) - right_N.double()
    else:
        own_N = (found.logits_NV.argmax(-1) != batch.label_N).double()
        said_N = (~right_N).double()
    return Probes(
        found.distance_N.double().cpu(),
        own_N.cpu(),
        said_N.cpu(),
        batch.row_N.cpu(),
        batch.rows,
        passages,
    )
