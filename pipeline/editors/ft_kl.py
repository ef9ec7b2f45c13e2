"""FT+KL: fine-tune on the edit while a fresh training example must not change.

MEND's baseline with oracle locality (appendix A.4; `locality` in the reference's settings): FT with
the loss c_edit L_e + L_loc, where L_loc = KL(unedited || edited) on one training example, another
at every step. L_e is the mean over the k edits of a row. Examples are the bystanders of training
cases; which one a step sees follows from the seed, the row's first prompt and the step alone.
RMSprop does not see the scale of a loss, only how the two parts weigh against each other.

Edits and examples are two batches, each no longer than its longest text.

Shape suffixes: N target tokens, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.editing import descent
from pipeline.editing.editor import Edits, Material
from pipeline.editing.slots import Lesson, Row
from pipeline.errors import EditorError
from pipeline.measures import kl, nll
from pipeline.models import Batch, Face
from pipeline.models.face import Encoded
from pipeline.records import Request


@dataclass(frozen=True, kw_only=True)
class Config(descent.Config):
    """Settings of FT+KL: FT's, and

    Attributes:
        c_edit: weight of the edit loss.
        pool: most training examples that `fit` keeps to draw from.
    """

    c_edit: float = 1e-2
    pool: int = 500


_KEPT = 2**28  # bytes of what the unedited model says that are kept at once


class Editor(descent.RateSeeker):
    """FT+KL behind the editors' interface."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.pool: list[tuple[str, str]] = []
        self.seed = 0
        self._said: dict[tuple[str, str], Tensor] = {}

    def fit(self, face: Face, material: Material) -> list[dict[str, float]]:
        """Keep examples, then choose the rate with them.

        Raises:
            EditorError: no training case has an unrelated example.
        """
        found = {
            (probe.prompt, probe.target) for case in material.cases for probe in case.unrelated
        }
        if not found:
            raise EditorError(
                expected="unrelated examples in training cases, whose answers are to stay",
                found="none",
                remedy="Give the cases unrelated examples, or use ft.",
            )
        draws = random.Random(f"{material.seed}/ft_kl pool")
        self.pool = draws.sample(sorted(found), min(self.config.pool, len(found)))
        self.seed = material.seed
        with self._keeping():
            return super().fit(face, material)

    def edit(self, face: Face, requests: Sequence[Request], k: int = 1) -> Edits:
        """Fine-tune each k requests on a row of their own."""
        with self._keeping():
            return super().edit(face, requests, k)

    def example(self, row: Row, step: int) -> tuple[str, str]:
        """The bystander, prompt and target, that a row sees at a step."""
        draws = random.Random(f"{self.seed}/{row.requests[0].prompt}/{step}")
        return draws.choice(self.pool)

    def lessons(self, face: Face, rows: Sequence[Row], steps: Sequence[int]) -> list[Lesson]:
        """The edits, and each row's example."""
        assert self.pool, "fit or restore first"
        k = len(rows[0].encoded)
        edits = face.collate([item for row in rows for item in row.encoded])
        drawn = [self.example(*at) for at in zip(rows, steps, strict=True)]
        fresh = face.tokenise(drawn)
        before_NV = self._before(face, drawn, fresh)

        def told(logits_NV: Tensor, batch: Batch) -> Tensor:
            return self.config.c_edit / k * nll(logits_NV, batch)

        def kept(logits_NV: Tensor, batch: Batch) -> Tensor:
            return kl(before_NV, logits_NV, batch)

        return [Lesson(edits, told), Lesson(face.collate(fresh), kept)]

    @torch.no_grad()
    def _before(
        self, face: Face, drawn: Sequence[tuple[str, str]], fresh: Sequence[Encoded]
    ) -> Tensor:
        """What the unedited model says of some examples, one after another.

        Each is drawn several times, and kept until the fit or the edit is over.
        """
        asked = dict(zip(drawn, fresh, strict=True))
        new = {pair: item for pair, item in asked.items() if pair not in self._said}
        said = dict(self._said)
        if new:
            logits_NV = face.logits(face.collate(list(new.values())))
            parts = logits_NV.split([len(item.labels) for item in new.values()])
            said |= zip(new, parts, strict=True)
        if sum(part.nbytes for part in said.values()) <= _KEPT:
            self._said = said
        return torch.cat([said[pair] for pair in drawn])

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """What the unedited model says is known inside; the next may be another model."""
        try:
            yield
        finally:
            self._said = {}

    def notes(self) -> dict[str, Any]:
        """What FT notes, the seed, and the examples."""
        return {**super().notes(), "seed": self.seed, "pool": [list(pair) for pair in self.pool]}

    def restore(self, face: Face, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
        """Take up the rate and the examples."""
        super().restore(face, tensors, notes)
        self.seed = notes["seed"]
        self.pool = [(prompt, target) for prompt, target in notes["pool"]]
