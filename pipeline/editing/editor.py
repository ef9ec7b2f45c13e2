"""What every editor is: fit once, then turn requests into patches, and never touch the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.editing.patch import Intervention
from pipeline.errors import EditorError
from pipeline.models import Face
from pipeline.records import Case, Request
from pipeline.storage import read_json, write_aside, write_json

if TYPE_CHECKING:
    from pipeline.editing.moments import Moments

Need = Literal["cases", "moments"]


@dataclass(frozen=True)
class Material:
    """What an editor may learn from. It never sees a validation case.

    Attributes:
        cases: training cases.
        seed: of every draw.
        checkpoints: a folder for interrupted training to resume from; None keeps none.
    """

    cases: Sequence[Case]
    seed: int
    checkpoints: Path | None = None


@dataclass(frozen=True)
class Edits:
    """The rows of a patch, and how each went; a row is one edit, or k edits made together.

    The patch is one of weights, or whatever else answers as edited (a memory).
    """

    patch: Intervention
    steps: tuple[int, ...]  # optimisation steps of each row; 1 for one-shot editors
    stopped_early: tuple[bool, ...]  # whether its labels were reached before the step limit


class Editor(ABC):
    """An algorithm with its settings."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def applies_to(self, face: Face) -> str | None:
        """None when it can edit this model, otherwise the reason why not."""
        del face
        return None

    def take(self, moments: Moments) -> None:
        """Receive the model's second moments, which an editor that `needs` them edits by.

        Comes before the first edit; `moments.load` has seen to it that they are this model's.
        """
        del moments

    def adapt(self, face: Face) -> Face:
        """The model that edits are made on and applied to: `face`, unless `fit` trained another.

        Everything that follows a fit, `edit` and `applied` alike, takes what this returns; adapting
        that again changes nothing. Only ENN has a model of its own.
        """
        return face

    def fit(self, face: Face, material: Material) -> list[dict[str, float]]:
        """Learn what is learned, leaving the model untouched.

        Returns:
            The learning curve, one row per record; empty for editors that learn nothing.
        """
        del face, material
        return []

    @abstractmethod
    def edit(self, face: Face, requests: Sequence[Request], k: int = 1) -> Edits:
        """Edits in independent rows, each made of k consecutive requests at once.

        `face` is what `adapt` returned, and `len(requests)` a multiple of k. Pure: the model is as
        it was.
        """

    def tensors(self) -> dict[str, Tensor]:
        """What `fit` learned, as tensors."""
        return {}

    def notes(self) -> dict[str, Any]:
        """What `fit` learned or chose, as plain values; the report prints them."""
        return {}

    def restore(self, face: Face, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
        """Take up what an earlier `fit` learned."""
        del face, tensors, notes


def save(editor: Editor, folder: Path, base_hash: str) -> None:
    """Write what an editor learned, with the identity of the model that it learned on."""
    tensors = {name: tensor.contiguous() for name, tensor in editor.tensors().items()}
    write_aside(folder / "editor.safetensors", lambda part: save_file(tensors, str(part)))
    write_json(folder / "editor.json", {"base_hash": base_hash, "notes": editor.notes()})


def restore(editor: Editor, face: Face, folder: Path, base_hash: str) -> None:
    """Read what an editor learned.

    Raises:
        EditorError: it was fitted on another model, or the files are broken.
    """
    header = read_json(folder / "editor.json")
    if header["base_hash"] != base_hash:
        raise EditorError(
            expected=f"an editor fitted on the model {base_hash[:12]}",
            found=f"{folder}, fitted on {header['base_hash'][:12]}",
            remedy="Fit it again on this model: what it learned does not carry over.",
        )
    try:
        tensors = load_file(folder / "editor.safetensors")
    except (OSError, SafetensorError) as error:
        raise EditorError(
            expected=f"the tensors of a fitted editor in {folder}",
            found=str(error),
            remedy="The file is missing or corrupted: run dvc repro.",
        ) from error
    editor.restore(face, tensors, header["notes"])
