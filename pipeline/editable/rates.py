"""How fast fine-tuning must go for the edits at hand."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeGuard

from pipeline.editable.corrections import Correction
from pipeline.editing.descent import RateSeeker
from pipeline.editing.editor import Editor
from pipeline.models import Face
from pipeline.progress import bar

_LOG = logging.getLogger(__name__)


def learns_a_rate(editor: Editor) -> TypeGuard[RateSeeker]:
    """Whether all that it learns is how fast to go."""
    return isinstance(editor, RateSeeker) and type(editor).fit is RateSeeker.fit


def smallest_rate(editor: RateSeeker, face: Face, asked: Sequence[Correction], k: int) -> float:
    """The smallest rate that reaches the labels of all that is asked, or else the largest there is.

    A fit on training cases takes the smallest that reaches most of them. Here it is these very
    edits that count, on the model as it is now, and as many together as they are made.
    """
    if editor.rate is not None:
        return editor.rate
    requests = [item.request() for item in asked]
    rates = editor.config.rates
    low, high = 0, len(rates) - 1
    if len(asked) > 1:  # it may take as long as several times the edits themselves
        _LOG.info("Looking for the smallest rate that makes all of %d edits.", len(asked))
    for _ in bar(range(high.bit_length()), f"look for a rate for {len(asked)}"):
        if low == high:
            break
        editor.rate = rates[(low + high) // 2]
        if all(editor.edit(face, requests, k).stopped_early):
            high = (low + high) // 2
        else:
            low = (low + high) // 2 + 1
    editor.rate = rates[low]
    return rates[low]
