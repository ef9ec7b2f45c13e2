"""FT+KL: fine-tune on the edit while a fresh training example must not change.

MEND's baseline with oracle locality (appendix A.4; `locality` in the reference's settings): FT with
the loss c_edit L_e + L_loc, where L_loc = KL(unedited || edited) on one training example, another
at every step. L_e is the mean over the k edits of a row. Examples are the bystanders of training
cases; which one a step sees follows from the seed, the row's first prompt and the step alone.
RMSprop does not see the scale of a loss, only how the two parts weigh against each other.

Shape suffixes: R rows, B rows of the model's input (k edits and one example for each row), N target
tokens, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.editing import descent
from pipeline.editing.descent import Lesson, Row
from pipeline.editing.editor import Material
from pipeline.errors import EditorError
from pipeline.measures import kl, nll
from pipeline.models import Batch, Face


@dataclass(frozen=True, kw_only=True)
class Config(descent.Config):
    """Settings of FT+KL: FT's, and

    Attributes:
        c_edit: weight of the edit loss.
        pool: most training examples that `fit` keeps to draw from.
    """

    c_edit: float = 1e-2
    pool: int = 500


class Editor(descent.FineTuner):
    """FT+KL behind the editors' interface."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.pool: list[tuple[str, str]] = []
        self.seed = 0

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
        return super().fit(face, material)

    def example(self, row: Row, step: int) -> tuple[str, str]:
        """The bystander, prompt and target, that a row sees at a step."""
        draws = random.Random(f"{self.seed}/{row.requests[0].prompt}/{step}")
        return draws.choice(self.pool)

    def lesson(self, face: Face, rows: Sequence[Row], steps: Sequence[int]) -> Lesson:
        """Each row's edits and then its example, in one batch; the example's own part is the KL."""
        assert self.pool, "fit or restore first"
        fresh = face.tokenise([self.example(*at) for at in zip(rows, steps, strict=True)])
        quiet = face.collate(fresh)
        with torch.no_grad():
            before_NV = face.logits(quiet)
        k = len(rows[0].encoded)
        items = [
            item
            for row, example in zip(rows, fresh, strict=True)
            for item in (*row.encoded, example)
        ]
        batch = face.collate(items)
        fresh_B = torch.arange(batch.rows, device=face.device) % (k + 1) == k
        weight_B = (~fresh_B).to(before_NV.dtype) * self.config.c_edit / k

        def loss(logits_NV: Tensor, batch: Batch) -> Tensor:
            kl_R = kl(before_NV, logits_NV[fresh_B[batch.row_N]], quiet)
            return (nll(logits_NV, batch) * weight_B).masked_scatter(fresh_B, kl_R)

        return Lesson(batch, loss)

    def notes(self) -> dict[str, Any]:
        """What FT notes, the seed, and the examples."""
        return {**super().notes(), "seed": self.seed, "pool": [list(pair) for pair in self.pool]}

    def restore(self, face: Face, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
        """Take up the rate and the examples."""
        super().restore(face, tensors, notes)
        self.seed = notes["seed"]
        self.pool = [(prompt, target) for prompt, target in notes["pool"]]
