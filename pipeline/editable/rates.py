"""How fast fine-tuning must go for the edits at hand."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeGuard

from pipeline.editable.corrections import Correction
from pipeline.editing.descent import RateSeeker, group
from pipeline.editing.editor import Editor
from pipeline.editing.slots import Row
from pipeline.errors import EditorError
from pipeline.models import Face
from pipeline.progress import bar

_LOG = logging.getLogger(__name__)
_NAMED = 3  # edits, of those that cannot be made


def learns_a_rate(editor: Editor) -> TypeGuard[RateSeeker]:
    """Whether all that it learns is how fast to go."""
    return isinstance(editor, RateSeeker) and type(editor).fit is RateSeeker.fit


def smallest_rate(editor: RateSeeker, face: Face, asked: Sequence[Correction], k: int) -> float:
    """The smallest rate that reaches the labels of all that is asked, or of all that any reaches.

    A fit on training cases takes the smallest that reaches most of them. Here it is these very
    edits that count, on the model as it is now, and as many together as they are made.

    Raises:
        EditorError: no rate there is reaches the labels of any.
    """
    if editor.rate is not None:
        return editor.rate
    rows, rates = group(face, [item.request() for item in asked], k), editor.config.rates
    low, high = 0, len(rates)
    if len(asked) > 1:  # it may take as long as several times the edits themselves
        _LOG.info("Looking for the smallest rate that makes all of %d edits.", len(asked))
    for _ in bar(range(high.bit_length()), f"look for a rate for {len(asked)}"):
        if low == high:
            break
        middle = (low + high) // 2
        if all(end.reached for end in editor.descent(face, rows, rates[middle]).ended()):
            high = middle
        else:
            low = middle + 1
    editor.rate = rates[low] if low < len(rates) else _rate_of_most(editor, face, rows)
    return editor.rate


def _rate_of_most(editor: RateSeeker, face: Face, rows: Sequence[Row]) -> float:
    """From the smallest rate up, each row until one reaches its labels; who has none is told."""
    rates, left = editor.config.rates, list(rows)
    found: float | None = None
    for rate in bar(rates, f"look for a rate for most of {len(rows)}"):
        ends = editor.descent(face, left, rate).ended()
        late = sorted(end.row for end in ends if not end.reached)
        if len(late) < len(left):
            found, left = rate, [left[row] for row in late]
        if not left:
            break
    hopeless = ", ".join(repr(row.requests[0].prompt) for row in left[:_NAMED])
    if found is None:
        raise EditorError(
            expected=f"a rate at which an edit is made within {editor.config.steps} steps",
            found=f"none of {len(rates)} up to {rates[-1]:g} ({hopeless})",
            remedy="Nothing was changed. Allow more steps, give a rate, or take another editor.",
        )
    if left:
        _LOG.warning("No rate makes %d of %d edits: %s.", len(left), len(rows), hopeless)
    return found
