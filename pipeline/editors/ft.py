"""FT: fine-tune the edited matrices on the edit alone, until its label is the argmax.

MEND's baseline (appendix A.4): RMSprop on the same matrices, at most 100 steps. The loss of k edits
made together is the mean of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pipeline.editing import descent
from pipeline.editing.slots import Lesson, Row
from pipeline.measures import nll
from pipeline.models import Batch, Face


@dataclass(frozen=True, kw_only=True)
class Config(descent.Config):
    """Settings of FT."""


class Editor(descent.FineTuner):
    """FT behind the editors' interface."""

    def lessons(self, face: Face, rows: Sequence[Row], steps: Sequence[int]) -> list[Lesson]:
        """The edits."""
        del steps
        k = len(rows[0].encoded)

        def loss(logits_NV: Tensor, batch: Batch) -> Tensor:
            return nll(logits_NV, batch) / k

        return [Lesson(face.collate([item for row in rows for item in row.encoded]), loss)]
