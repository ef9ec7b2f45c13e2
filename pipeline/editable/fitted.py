"""A folder of a fitted editor: what it learned, its settings, and what it was fitted on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.config import RECORD, read_params
from pipeline.editing import editor as editing
from pipeline.editing.editor import Editor
from pipeline.errors import DataError, EditorError
from pipeline.models import Face
from pipeline.records import Case, hash_cases
from pipeline.storage import read_json, write_json

_SETTINGS = "settings.json"


@dataclass(frozen=True)
class Ready:
    """An editor that can edit this model now."""

    alg: str
    settings: dict[str, Any]
    editor: Editor
    identity: str  # of what it learned; "" where it learned nothing that edits depend on
    inputs: str = ""  # what stands for all that it was fitted on, where it was fitted on the spot


def keep(done: Ready, folder: Path, base_hash: str) -> None:
    """Write what an editor learned, with its settings, so that it can be taken up again."""
    editing.save(done.editor, folder, base_hash)
    inputs = {"inputs": done.inputs} if done.inputs else {}
    write_json(folder / _SETTINGS, {"alg": done.alg, "settings": done.settings} | inputs)


def identity(editor: Editor) -> str:
    """SHA-256 of the tensors that an editor learned; "" for none."""
    tensors = editor.tensors()
    if not tensors:
        return ""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def inputs_of(
    alg: str, editor: Editor, face: Face, base_hash: str, cases: Sequence[Case], seed: int
) -> str:
    """SHA-256 of all that a fit depends on."""
    config = repr(getattr(editor, "config", None))
    about = [alg, config, seed, base_hash, str(face.model.dtype), hash_cases(cases)]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def fitted_on(inputs: str, folder: Path) -> Path | None:
    """Where in a folder of editors the one lies that was fitted on these inputs, if one does."""
    for path in sorted(folder.glob(f"*/{_SETTINGS}")):
        try:
            about = read_json(path)
        except DataError:  # it is of no use here, and said so where it is named
            continue
        if isinstance(about, dict) and about.get("inputs") == inputs:
            return path.parent
    return None


def restore(editor: Editor, face: Face, folder: Path, base_hash: str) -> None:
    """Take up what an editor in a folder learned.

    Raises:
        EditorError: it was fitted on another model or with other settings, or files are broken.
    """
    try:
        editing.restore(editor, face, folder, base_hash)
    except (RuntimeError, KeyError, AssertionError) as error:  # of load_state_dict, or of names
        raise EditorError(
            expected=f"settings that the editor in {folder} was fitted with",
            found=" ".join(str(error).split())[:300],
            remedy=f"Leave out what was set otherwise: they lie beside it in {_SETTINGS}.",
        ) from error


def described(folder: Path, alg: str) -> tuple[str, dict[str, Any]]:
    """The algorithm and settings that a folder was fitted with.

    They lie beside it; for one that the pipeline fitted, the project's record has them too.
    """
    if not (folder / "editor.json").is_file():
        raise EditorError(
            expected=f"a folder where an editor was fitted at {folder}",
            found="no editor.json in it" if folder.is_dir() else "no such folder",
            remedy="Name one, as data/SUITE/BENCH/editors/mend, or fit it now on cases.",
        )
    if (folder / _SETTINGS).is_file():
        found = read_json(folder / _SETTINGS)
    else:
        found = _recorded(folder) or {"alg": alg or folder.name, "settings": {}}
    if not isinstance(found, dict) or not {"alg", "settings"} <= found.keys():
        raise DataError(
            expected=f"the algorithm and settings of an editor in {folder / _SETTINGS}",
            found=str(found)[:80],
            remedy="Restore the file, or fit the editor again.",
        )
    if alg and found["alg"] != alg:
        raise EditorError(
            expected=f"a folder where {alg} was fitted",
            found=f"{found['alg']} in {folder}",
            remedy=f"Say alg={found['alg']}, or name another folder.",
        )
    return found["alg"], found["settings"]


def _recorded(folder: Path) -> dict[str, Any] | None:
    whole = folder.resolve()
    for root in whole.parents:
        if (root / RECORD).is_file():
            record = read_params(root / RECORD)
            for name, fit in record.get("fits", {}).items():
                if (root / fit["editor"]).resolve() == whole:
                    return {"alg": fit["alg"], "settings": record["settings"][name]}
            return None
    return None
