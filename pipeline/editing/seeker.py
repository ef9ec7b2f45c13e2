"""What the editors share that seek values (ROME, MEMIT): second moments of what their sites read.

Shape suffixes: I inputs of a site.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from pipeline.editing import sought
from pipeline.editing.editor import Editor, Need
from pipeline.editing.moments import Moments, factor
from pipeline.models import Face


class Seeker(Editor):
    """An editor that seeks values, and writes them against what C says is read otherwise."""

    needs: ClassVar[frozenset[Need]] = frozenset({"moments"})

    def __init__(self, config: sought.Config) -> None:
        self.config = config
        self.moments: Moments | None = None
        self._factors: dict[str, Tensor] = {}

    def take(self, moments: Moments) -> None:
        """Receive C and the contexts."""
        self.moments, self._factors = moments, {}

    def factor(self, site: str, face: Face) -> Tensor:
        """The Cholesky factor of a site's C, I x I in float64."""
        assert self.moments is not None, "take the moments first"
        if site not in self._factors:
            second_II = self.moments.of(site).to(face.device)
            self._factors[site] = factor(second_II, self.config.ridge, site)
        return self._factors[site]
