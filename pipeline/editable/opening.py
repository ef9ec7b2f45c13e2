"""A user's model: opened, recognised, and refused in words that help."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging as transformers_logging

from pipeline import models
from pipeline.editable.hub import place_of
from pipeline.errors import ModelError, StorageError, near_misses
from pipeline.models import Face
from pipeline.models.layouts import LAYOUTS
from pipeline.storage import hash_file

# What transformers, tokenizers and torch raise over files that do not fit each other, or a device
# that is not there.
_FAILURES = (
    *(RuntimeError, AssertionError, LookupError, TypeError, ValueError, ImportError),
    StrictDataclassError,
)
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def open_model(
    source: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Face, str]:
    """A model, and the hash that stands for it: of the files of its folder, or of name and commit.

    Args:
        source: a folder made by `save_pretrained`, or a hub name.

    Raises:
        ModelError: there is no such folder or device, it lacks config, weights or a tokenizer, they
            do not fit each other, its architecture is not known, or it is a classifier of more than
            one logit.
    """
    if not isinstance(source, str | Path) or not str(source).strip():
        raise ModelError(
            expected="a model's folder or hub name",
            found=repr(source)[:80],
            remedy="Give a folder made by save_pretrained, or a hub name, as text or a path.",
        )
    folder = Path(source)
    if _is_folder(folder):
        check_folder(folder)
        face = _load(folder, device, dtype)
        base_hash = identity(folder)
    else:
        if isinstance(source, Path):
            raise ModelError(
                expected=f"a folder with a model at {source}",
                found="no such folder",
                remedy="Give a folder made by save_pretrained, or a hub name as text.",
            )
        place = place_of(source)
        face = _load(place, device, dtype)
        commit = getattr(face.model.config, "_commit_hash", None)
        if isinstance(place, Path):  # the cache has a folder for each commit
            commit = place.name
        base_hash = hashlib.sha256(f"{source}@{commit}".encode()).hexdigest()
    if face.kind == "classifier" and face.model.config.num_labels != 1:
        raise ModelError(
            expected="a classifier of one logit (num_labels = 1)",
            found=f"{face.model.config.num_labels} labels in {source}",
            remedy="Classifiers of several labels cannot be edited yet.",
        )
    return face, base_hash


def refuse_inside(path: Path, source: str | Path, what: str) -> None:
    """Raises StorageError for a place in a model's or a journal's folder: it is all its files."""
    folder = Path(source)
    if source and folder.is_dir() and path.resolve().is_relative_to(folder.resolve()):
        raise StorageError(
            expected=f"{what} to lie outside of {folder}",
            found=str(path),
            remedy="A model or a journal is all that its folder holds: name a place beside it.",
        )


def identity(folder: Path) -> str:
    """`storage.hash_folder` of what belongs to a model: hidden files come from other programs."""
    digest = hashlib.sha256()
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        name = path.relative_to(folder)
        if not any(part.startswith(".") for part in name.parts):
            digest.update(f"{name.as_posix()}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()


def _load(source: str | Path, device: str, dtype: torch.dtype) -> Face:
    """`models.load`, and nothing made up where files are missing. Raises ModelError."""
    try:
        face = models.load(source, device, dtype)
        missing = _missing(face, source)
    except _FAILURES as error:
        raise ModelError(
            expected=f"config, weights and tokenizer that fit each other in {source}, on {device}",
            found=f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}",
            remedy="Save the model and its tokenizer again with save_pretrained, or name another "
            "device.",
        ) from error
    if missing:
        raise ModelError(
            expected=f"all weights of a {face.model.config.model_type} in {source}",
            found=f"{len(missing)} missing, such as {sorted(missing)[0]}",
            remedy="Random numbers would stand in for them: save the whole model, or correct its "
            "config.",
        )
    if not face.tokenizer("a word")["input_ids"] or face.tokenizer.pad_token_id is None:
        raise ModelError(
            expected=f"a tokenizer in {source} with a vocabulary and an end or padding token",
            found=f"{len(face.tokenizer)} tokens, end token {face.tokenizer.eos_token!r}",
            remedy="Save the model's tokenizer beside it (tokenizer.save_pretrained).",
        )
    _mend_padding(face, source)
    return face


def _mend_padding(face: Face, source: str | Path) -> None:
    """Pad with the end token where a padding token was added that the model has no row for.

    Raises:
        ModelError: it has none for the end token either.
    """
    size, tokenizer = face.model.get_input_embeddings().weight.shape[0], face.tokenizer
    if tokenizer.pad_token_id < size:
        return
    if tokenizer.eos_token_id is None or tokenizer.eos_token_id >= size:
        raise ModelError(
            expected=f"a padding or an end token among the {size} that the model in {source} knows",
            found=f"{tokenizer.pad_token!r} with number {tokenizer.pad_token_id}",
            remedy="Resize the model's embeddings to its tokenizer (resize_token_embeddings).",
        )
    tokenizer.pad_token = tokenizer.eos_token  # padding is masked, so any token serves


def _is_folder(path: Path) -> bool:
    """Whether it is one; a name too long for a file is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _missing(face: Face, source: str | Path) -> set[str]:
    """Weights that the files lack. transformers fills them at random, with a warning."""
    level, bars = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        _, info = type(face.model).from_pretrained(
            source, device_map="meta", output_loading_info=True, use_safetensors=True
        )
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
    return set(info["missing_keys"])


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
            found=str(error).strip(),
            remedy="The file is broken: save the model again.",
        ) from error
    if name not in LAYOUTS:
        raise ModelError(
            expected="a supported architecture",
            found=f"{name!r} in {config}",
            remedy=f"{near_misses(str(name), LAYOUTS)} The README says how to add one.",
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
