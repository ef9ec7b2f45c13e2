"""What the editors that learn to edit share: the outer loop trains a learner, which then edits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from pipeline.editing import metalearn
from pipeline.editing.draws import encode
from pipeline.editing.editor import Editor, Edits, Material, Need
from pipeline.models import Face
from pipeline.records import Request


class Settings(Protocol):
    """Settings of an editor, with the outer loop's among them."""

    @property
    def outer(self) -> metalearn.Config:
        """How it is trained."""


C = TypeVar("C", bound=Settings)
L = TypeVar("L", bound=metalearn.Learner)


class Learned(Editor, Generic[C, L]):
    """An editor whose every edit is one pass of a learner; a subclass says of which."""

    needs: ClassVar[frozenset[Need]] = frozenset({"cases"})

    def __init__(self, config: C) -> None:
        self.config = config
        self._learner: L | None = None

    @abstractmethod
    def start(self, face: Face, seed: int) -> L:
        """The learner before it has learned."""

    @property
    def learner(self) -> L:
        """What `fit` trained or `restore` took up."""
        assert self._learner is not None, "fit or restore first"
        return self._learner

    def fit(self, face: Face, material: Material) -> list[dict[str, float]]:
        """Train the learner by the shared outer loop."""
        self._learner = self.start(face, material.seed)
        return metalearn.train(face, self._learner, material, self.config.outer)

    @torch.no_grad()
    def edit(self, face: Face, requests: Sequence[Request], k: int = 1) -> Edits:
        """One forward and one backward pass of the model, one pass of what was learned."""
        self.learner.eval()
        patch = self.learner.joined(self.learner.patch(face, encode(face, requests)), k)
        return Edits(patch, steps=(1,) * patch.rows, stopped_early=(False,) * patch.rows)

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and statistics of the learner."""
        return dict(self.learner.state_dict())

    def notes(self) -> dict[str, Any]:
        """Number of trained parameters."""
        return {"parameters": sum(parameter.numel() for parameter in self.learner.parameters())}

    def restore(self, face: Face, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
        """Build the learner anew and load what it learned."""
        del notes
        self._learner = self.start(face, seed=0)
        self._learner.load_state_dict(dict(tensors))
