"""A user's model: opened, recognised, and refused in words that help."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from pipeline import models
from pipeline.errors import ModelError, near_misses
from pipeline.models import Face
from pipeline.models.layouts import LAYOUTS
from pipeline.storage import hash_folder

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def open_model(
    source: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Face, str]:
    """A model, and the hash that stands for it: of all files of its folder, or of name and commit.

    Args:
        source: a folder made by `save_pretrained`, or a hub name.

    Raises:
        ModelError: there is no such folder, it lacks config or weights, its architecture is not
            known, or it is a classifier of more than one logit.
    """
    folder = Path(source)
    if folder.is_dir():
        check_folder(folder)
        face = models.load(folder, device, dtype)
        base_hash = hash_folder(folder)
    else:
        if isinstance(source, Path) or _looks_like_path(source):
            raise ModelError(
                expected=f"a folder with a model at {source}",
                found="no such folder",
                remedy="Give a folder made by save_pretrained, or a hub name.",
            )
        face = models.load(source, device, dtype)
        commit = getattr(face.model.config, "_commit_hash", None)
        base_hash = hashlib.sha256(f"{source}@{commit}".encode()).hexdigest()
    if face.kind == "classifier" and face.model.config.num_labels != 1:
        raise ModelError(
            expected="a classifier of one logit (num_labels = 1)",
            found=f"{face.model.config.num_labels} labels in {source}",
            remedy="Classifiers of several labels cannot be edited yet.",
        )
    return face, base_hash


def check_folder(folder: Path) -> None:
    """Refuse a folder that is no model, before anything is loaded. Raises ModelError."""
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(
            expected=f"a model's config.json in {folder}",
            found="no such file",
            remedy="Give a folder made by save_pretrained.",
        )
    try:
        name = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise ModelError(
            expected=f"a model's config in {config}",
            found=str(error),
            remedy="The file is broken: save the model again.",
        ) from error
    if name not in LAYOUTS:
        raise ModelError(
            expected="a supported architecture",
            found=f"{name!r} in {config}",
            remedy=f"{near_misses(str(name), LAYOUTS)} CONTRIBUTING and the README say how to add "
            "one.",
        )
    if not any((folder / weights).is_file() for weights in _WEIGHTS):
        others = sorted(path.name for path in folder.glob("*.bin"))
        raise ModelError(
            expected=f"weights in {folder} ({' or '.join(_WEIGHTS)})",
            found=f"only {', '.join(others)}" if others else "none",
            remedy="Pickled weights are not read: save the model with save_pretrained, which "
            "writes safetensors."
            if others
            else "The folder holds no whole model: save it with save_pretrained, or copy the file.",
        )


def _looks_like_path(source: str) -> bool:
    """A hub name is `name` or `owner/name`."""
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or source.endswith("/")
