"""An edited model for others: merged weights, a LoRA adapter, or the plain patch; each read back.

What is written is read again before it is put in place, and must answer as the edited model does:
an export that would not is an error, and leaves nothing behind. Half precision rounds, so there it
is counted how many of the edits hold.
"""

from __future__ import annotations

import copy
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoTokenizer

from pipeline import measures, models
from pipeline.editable import adapter
from pipeline.editing.patch import Patch, applied, linear_map, weight_OI
from pipeline.editing.patch_file import load_patch, save_patch
from pipeline.editing.updates import Update
from pipeline.errors import EditorError, SettingsError, StorageError, near_misses
from pipeline.models import Face
from pipeline.stack import together
from pipeline.storage import write_json

Form = Literal["merged", "adapter", "patch"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Logits of a model read back, at float32: sums in another order, times the logits' own size.
_ROUNDING = 1e-4

Updates = Mapping[str, Sequence[Update]]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and what it does when it is read back.

    Attributes:
        form, path: what, and where.
        edits: numbers of the edits that it holds.
        worst_logit: largest difference of a logit from the edited model's, at the edits' targets.
        asked, held: corrections that the edited model makes now (of all edits in force, several
            of one made together), and of them those that the export makes.
        unchanged: by site, the share of weights with an update that rounding left as they were.
        ranks: by site, an adapter's rank.
    """

    form: Form
    path: Path
    edits: tuple[int, ...]
    worst_logit: float
    held: int
    asked: int
    unchanged: Mapping[str, float] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Cargo:
    """The edited model as it goes into an export.

    Attributes:
        face: the model that the edits are made on.
        updates: what they add, site by site.
        edits: their numbers.
        pairs: prompts and targets of the edits, to check what was written.
        about: plain values that go along: hashes, source, versions.
        source: the model's folder or hub name.
        adapted: whether `face` was trained by an editor, and is not the source's model.
    """

    face: Face
    updates: Updates
    edits: tuple[int, ...]
    pairs: tuple[tuple[str, str], ...]
    about: Mapping[str, Any]
    source: str
    adapted: bool


def export(cargo: Cargo, path: Path, form: Form, dtype: str = "float32") -> Exported:
    """Write an export, whole or not at all.

    Raises:
        SettingsError: there is no such form or dtype.
        StorageError: something lies at `path` already, the disk refuses, or what was written does
            not answer as the edited model.
        EditorError: the edits have no such form.
    """
    _refuse_unknown("form of export", form, get_args(Form))
    _refuse_unknown("dtype of export", dtype, tuple(DTYPES))
    path = path.resolve()
    empty = form != "patch" and path.is_dir() and not any(path.iterdir())
    if path.exists() and not empty:
        raise _taken(path)
    if blocked := next((p for p in path.parents if p.exists() and not p.is_dir()), None):
        raise StorageError(
            expected=f"to write {path}", found=f"a file at {blocked}", remedy="Name another place."
        )
    if form != "merged" and cargo.adapted:
        raise EditorError(
            expected="edits of the model in its folder",
            found="an editor that trained all of its weights (ENN)",
            remedy="Export the merged weights (--as merged).",
        )
    wanted = _edited(cargo)
    write = {"merged": _merged, "adapter": _adapter, "patch": _patch}[form]
    with _aside(path) as part:
        place = part / path.name if form == "patch" else part
        found = write(cargo, place, wanted, dtype)
        if form != "patch":
            write_json(part / "errata.json", dict(cargo.about) | {"edits": list(cargo.edits)})
        _flush(part)
        _put(place, path)
    return replace(found, path=path)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A folder of one's own beside `path`; another export to the same place has another."""
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        yield part
    except (OSError, SafetensorError) as error:
        raise StorageError(
            expected=f"to write {path}",
            found=str(error).strip(),
            remedy="Free disk space or fix the folder's permissions; nothing was left there.",
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())


def _put(part: Path, path: Path) -> None:
    """Put what was written in place, unless somebody else was there first."""
    try:
        if part.is_dir():
            part.chmod(0o755)  # a folder made for oneself is nobody else's to read
            part.rename(path)  # over an empty folder alone
        else:
            os.link(part, path)  # in one step, and never over a file, as a rename would be
    except OSError as error:
        if isinstance(error, FileExistsError) or error.errno == errno.ENOTEMPTY:
            raise _taken(path) from error
        if part.is_dir() or path.exists():
            raise
        part.rename(path)  # a disk without hard links


def _taken(path: Path) -> StorageError:
    return StorageError(
        expected=f"nothing at {path}",
        found="a file or folder",
        remedy="Name a place that is free; exports never overwrite.",
    )


def dtype_of(name: str | torch.dtype) -> torch.dtype:
    """A dtype by its name, or as torch has it. Raises SettingsError for an unknown name."""
    if not isinstance(name, str):
        return name
    word = name.removeprefix("torch.")
    _refuse_unknown("dtype", word, tuple(DTYPES))
    return DTYPES[word]


def _refuse_unknown(what: str, word: str, known: Sequence[str]) -> None:
    """Raises SettingsError for a word that is not known."""
    if word not in known:
        raise SettingsError(
            expected=f"a {what}",
            found=repr(word),
            remedy=near_misses(str(word), known),
        )


def merge_into(face: Face, updates: Updates, dtype: torch.dtype) -> tuple[Any, dict[str, float]]:
    """A copy of the model with W + ΔW, added in float32 and rounded once to `dtype`.

    Returns:
        The copy, and by site the share of weights with an update that rounding left unchanged.
    """
    model = copy.deepcopy(face.model).float()
    unchanged = {}
    with torch.no_grad():
        for site, parts in updates.items():
            weight = weight_OI(linear_map(model, site))
            delta = together(parts).dense_ROI()[0].to(weight)
            merged = weight + delta
            moved = delta != 0
            stayed = (merged.to(dtype) == weight.to(dtype)) & moved
            unchanged[site] = (stayed.sum() / moved.sum().clamp(min=1)).item()
            weight.copy_(merged)
    return model.to(dtype), unchanged


def _merged(cargo: Cargo, part: Path, wanted: Tensor, dtype: str) -> Exported:
    model, unchanged = merge_into(cargo.face, cargo.updates, DTYPES[dtype])
    model.save_pretrained(part)
    _save_tokenizer(cargo, part)
    del model
    again = models.load(part, str(cargo.face.device), DTYPES[dtype])
    exact = dtype == "float32" and cargo.face.model.dtype == torch.float32
    found = _checked(cargo, again, Patch({}), wanted, exact=exact)
    return Exported(form="merged", path=part, edits=cargo.edits, unchanged=unchanged, **found)


def _save_tokenizer(cargo: Cargo, folder: Path) -> None:
    """Save it as it came: ours may pad with the end token, which whoever trains on would mask.

    tokenizers tells of a full disk by an exception of no kind.
    """
    try:
        tokenizer = cargo.face.tokenizer
        if (Path(cargo.source) / "tokenizer_config.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(cargo.source)
        tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"the tokenizer cannot be written: {error}") from error


def _adapter(cargo: Cargo, part: Path, wanted: Tensor, _dtype: str) -> Exported:
    ranks = adapter.write(cargo.face, cargo.updates, part, cargo.source)
    exact = cargo.face.model.dtype == torch.float32
    found = _checked(cargo, cargo.face, adapter.read(part), wanted, exact=exact)
    return Exported(form="adapter", path=part, edits=cargo.edits, ranks=ranks, **found)


def _patch(cargo: Cargo, part: Path, wanted: Tensor, _dtype: str) -> Exported:
    whole = Patch({site: together(parts) for site, parts in cargo.updates.items()})
    save_patch(whole, part, {key: str(value) for key, value in cargo.about.items()})
    found = _checked(cargo, cargo.face, load_patch(part)[0], wanted, exact=True)
    return Exported(form="patch", path=part, edits=cargo.edits, **found)


@torch.no_grad()
def _edited(cargo: Cargo) -> Tensor:
    whole = Patch({site: together(parts) for site, parts in cargo.updates.items()})
    with applied(cargo.face.model, whole):
        return cargo.face.logits(cargo.face.encode(cargo.pairs))


@torch.no_grad()
def _checked(
    cargo: Cargo, face: Face, patch: Patch, wanted_NV: Tensor, *, exact: bool
) -> dict[str, Any]:
    """How far a model read back is from the edited one. Raises StorageError where it should not."""
    batch = face.encode(cargo.pairs)
    on_device = Patch({site: _to(update, face.device) for site, update in patch.updates.items()})
    with applied(face.model, on_device):
        found_NV = face.logits(batch)
    worst = (found_NV.float() - wanted_NV.float()).abs().max().item()
    made_B, held_B = (measures.exact(logits, batch).bool() for logits in (wanted_NV, found_NV))
    limit = _ROUNDING * max(1.0, wanted_NV.abs().max().item())
    if exact and not worst <= limit:
        raise StorageError(
            expected="what was written to answer as the edited model, to rounding",
            found=f"logits that differ by {worst:.2g}",
            remedy="Nothing was kept. The disk or the library that wrote it is at fault.",
        )
    return {
        "worst_logit": worst,
        "held": int((made_B & held_B).sum()),
        "asked": int(made_B.sum()),
    }


def _to(update: Update, device: torch.device) -> Update:
    moved = {name: tensor.to(device) for name, tensor in vars(update).items()}
    return type(update)(**moved)
