"""What is asked of the search for a value, and what it answers; `targets` is the search itself.

Shape suffixes: G values (δ), D their width, E edits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pipeline.editing.locate import Spot
from pipeline.errors import EditorError
from pipeline.models import Face
from pipeline.models.layouts import blocks


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the search for a value.

    Attributes:
        steps: looks at the loss; the last one moves no more, as in the references.
        lr: Adam's rate.
        kl: weight of the essence's divergence.
        decay: weight of ‖δ‖ / ‖value‖², not squared, as the references have it.
        clamp: largest ‖δ‖ / ‖value‖.
        enough: the loss at which a value is left as it is.
        ridge: share of C's mean diagonal that is added to it; units that never fire need it.
        rows: texts in one pass; bounds memory, changes no result.
    """

    steps: int = 20
    lr: float = 0.5
    kl: float = 0.0625
    decay: float = 0.5
    clamp: float = 4.0
    enough: float = 0.05
    ridge: float = 1e-8
    rows: int = 128


@dataclass(frozen=True)
class Where:
    """What δ is added to: a block's output (MEMIT), or a site's inside that block (ROME)."""

    block: int
    site: str | None = None

    @property
    def first(self) -> int:
        """The first block that sees δ or makes it."""
        return self.block + 1 if self.site is None else self.block


@dataclass(frozen=True)
class Sought:
    """One edit whose value is sought: its texts, its subject's essence, which δ it has.

    Attributes:
        texts: the edit alone and in its contexts.
        essence: one text that is read at its last token.
        group: number of its δ; edits that share one are optimised on the sum of their losses.
        norm: ‖present value‖.
        row: the patch's row that the model is edited with already.
    """

    texts: Sequence[Spot]
    essence: Spot
    group: int
    norm: float
    row: int = 0


@dataclass(frozen=True)
class Found:
    """The values' changes, how often each was moved, and whether its loss was small enough."""

    delta_GD: Tensor
    steps: tuple[int, ...]
    reached: tuple[bool, ...]


def norms(value_ED: Tensor) -> list[float]:
    """‖value‖ of each edit, never 0."""
    return [max(size, math.ulp(1.0)) for size in value_ED.norm(dim=1).tolist()]


def refusal(face: Face, layers: Sequence[int | None]) -> str | None:
    """Why an edit at the subject's last token cannot be made in these blocks, or None."""
    if face.kind != "causal":
        return f"it edits where a decoder reads the subject, and this is a {face.kind} model"
    count = len(blocks(face.model))
    if not layers or None in layers:
        kind = face.model.config.model_type
        return f"no layers are published for {kind} of {count} blocks: set its layers"
    if bad := [layer for layer in layers if layer is not None and not 0 <= layer < count]:
        return f"there is no block {bad[0]}: the model has blocks 0 to {count - 1}"
    return None


def refused(reason: str) -> EditorError:
    """The error for a model that an editor does not apply to."""
    return EditorError(
        expected="a model that this editor applies to",
        found=reason,
        remedy="Choose another editor, or other layers.",
    )
