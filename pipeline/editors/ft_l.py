"""FT-L: fine-tune one MLP's output map on the edits, within a bound for every weight.

The constrained fine-tuning of Zhu et al. 2020 as ROME's baseline has it: Adam, at most 25 steps or
until the loss is below 0.01, and after each step no weight is further than ε from where it was
(L∞). The paper edits the first block, with ε 5e-4 (GPT-2 XL), 5e-5 (GPT-J), 1e-3 (large), 2e-3
(medium).
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.editing import descent
from pipeline.editing.gradients import EditPass
from pipeline.editing.rules import Adam, Rule
from pipeline.models import Face
from pipeline.models.layouts import block_sites


@dataclass(frozen=True, kw_only=True)
class Config(descent.Descending):
    """Settings of FT-L: those of all that fine-tune, and

    Attributes:
        block: the block whose MLP's output map is fine-tuned, of each stack.
        bound: ε, the furthest that a weight may go.
        enough: the loss at which a row is left as it is.
    """

    rate: float = 5e-4
    steps: int = 25
    block: int | None = 0
    bound: float = 5e-4
    enough: float = 1e-2


class Editor(descent.FineTuner):
    """FT-L behind the editors' interface."""

    config: Config

    def sites(self, face: Face) -> tuple[str, ...]:
        """The map by which one block's MLP writes."""
        return block_sites(face.model, self.config.block, "down")

    def rule(self, _k: int) -> Rule:
        """Adam within the bound."""
        return Adam(bound=self.config.bound)

    def good(self, found: EditPass, rows: int, k: int) -> list[bool]:
        """Whether a row's loss is small enough."""
        del k
        return descent.below(found, rows, self.config.enough)
