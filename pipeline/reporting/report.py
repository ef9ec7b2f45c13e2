"""A report while it is put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from pipeline.reporting.blocks import Block, Picture
from pipeline.reporting.inputs import Material


@dataclass(kw_only=True)
class Report:
    """Its blocks, and the files that go beside them."""

    material: Material
    frames: Mapping[str, pd.DataFrame]  # benchmark -> its main frame
    blocks: list[Block] = field(default_factory=list)
    csv: dict[str, pd.DataFrame] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)

    def add(self, *blocks: Block) -> None:
        """Append blocks."""
        self.blocks += blocks
