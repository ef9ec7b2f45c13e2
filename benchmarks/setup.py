"""What a benchmark runs on: a model, a device, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks import material
from benchmarks.sizes import SIZES, Size, Work, make_face
from pipeline.models import Face
from pipeline.records import Case


@dataclass(frozen=True)
class Setup:
    """A random model and its work."""

    size: Size
    face: Face
    device: torch.device
    repeats: int

    @property
    def work(self) -> Work:
        """How much is done."""
        return self.size.work

    def drawn_cases(self, count: int) -> Sequence[Case]:
        """Cases to train on."""
        return material.training_cases(self.size, count, passages=self.face.kind == "causal")

    def checked(self) -> Setup:
        """What results are compared on: this, or a float32 model like it where types are halves."""
        if self.face.model.dtype == torch.float32:
            return self
        return setup(small(self.size), self.device, torch.float32, self.repeats)


def small(size: Size) -> Size:
    """A tiny model of the same architecture."""
    return replace(SIZES["tiny"], family=size.family, head_width=8)


def setup(size: Size, device: torch.device, dtype: torch.dtype, repeats: int) -> Setup:
    """Make the model."""
    return Setup(size, make_face(size, device, dtype), device, repeats)
