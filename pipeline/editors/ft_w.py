"""FT-W: fine-tune one whole block on the edits, with weight decay (MEMIT's baseline).

Of the block its linear maps move, as they do for every editor; norms and biases stay.

Adam, 25 passes over the edits in batches of 64, until the loss is below 0.01. The decay follows the
power law e^0.1559 n^-0.870 in the number n of edits made together, as the paper has it. The
published code reads the law's two numbers as a list, where it looks for a tuple, and then decays
nothing: that is `decay: false`. It also trains all of a target's tokens from the prompt's last
token; here each is predicted from the one before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pipeline.editing import descent
from pipeline.editing.gradients import EditPass
from pipeline.editing.rules import Adam, Rule
from pipeline.editing.slots import Lesson, Row
from pipeline.measures import nll
from pipeline.models import Batch, Face
from pipeline.models.layouts import block_sites


@dataclass(frozen=True, kw_only=True)
class Config(descent.Descending):
    """Settings of FT-W: those of all that fine-tune, where `steps` are passes, and

    Attributes:
        block: the block that is fine-tuned, of each stack; None: the one at three quarters of the
            depth (GPT-J: 21).
        decay: whether weights decay, by the power law.
        enough: the loss at which a row is left as it is.
        batch: edits of one step.
    """

    rate: float = 5e-4
    steps: int = 25
    block: int | None = None
    decay: bool = True
    enough: float = 1e-2
    batch: int = 64


class Editor(descent.FineTuner):
    """FT-W behind the editors' interface."""

    config: Config

    def sites(self, face: Face) -> tuple[str, ...]:
        """The linear maps of one block's self-attention and MLP that editors know."""
        block = self.config.block
        return tuple(
            site for place in ("attention", "mlp") for site in block_sites(face.model, block, place)
        )

    def rule(self, _k: int) -> Rule:
        """Adam, with the decay that the paper's law has for k edits."""
        return Adam(decay=math.exp(0.1559) * _k**-0.870 if self.config.decay else 0.0)

    def looks(self, _k: int) -> int:
        """Steps in one pass."""
        return math.ceil(_k / self.config.batch)

    def good(self, found: EditPass, rows: int, k: int) -> list[bool]:
        """Whether a row's loss is small enough."""
        del k
        return descent.below(found, rows, self.config.enough)

    def lessons(self, face: Face, rows: Sequence[Row], steps: Sequence[int]) -> list[Lesson]:
        """The edits whose turn it is; the last batch of a pass is filled up with its first."""
        k = len(rows[0].encoded)
        size = min(k, self.config.batch)
        items = []
        for row, step in zip(rows, steps, strict=True):
            start = step % self.looks(k) * size
            items += [row.encoded[(start + i) % k] for i in range(size)]

        def loss(logits_NV: Tensor, batch: Batch) -> Tensor:
            return nll(logits_NV, batch) / size

        return [Lesson(face.collate(items), loss)]
