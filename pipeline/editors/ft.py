"""FT: fine-tune the edited matrices on the edit alone, until its label is the argmax.

MEND's baseline (appendix A.4): RMSprop on the same matrices, at most 100 steps. The loss of k edits
made together is the mean of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.editing import descent


@dataclass(frozen=True, kw_only=True)
class Config(descent.Config):
    """Settings of FT."""


class Editor(descent.RateSeeker):
    """FT behind the editors' interface."""
