"""Files that are whole or absent: written aside, flushed, then renamed over the old one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pipeline.errors import DataError, StorageError

_FAILURES = (OSError, SafetensorError)  # safetensors tells of a full disk in an error of its own


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in place in one step.

    Raises:
        StorageError: the folder is not writable or the disk is full; `path` is as it was.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        _flush(part)
        part.replace(path)
    except _FAILURES as error:
        raise _not_written(path, error) from error
    finally:
        with suppress(OSError):  # nothing there, or no folder to have it in
            part.unlink()


def write_folder_aside(folder: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a folder beside `folder`, then put it in place.

    Raises:
        StorageError: the place is not writable or the disk is full; `folder` is as it was.
    """
    part, old = (folder.with_name(f".{folder.name}.{end}") for end in ("part", "old"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove(part, old)
        part.mkdir()
        write(part)
        for path in part.rglob("*"):
            if path.is_file():
                _flush(path)
        if folder.is_dir():  # a folder that holds something cannot be replaced in one step
            folder.replace(old)
        part.replace(folder)
    except _FAILURES as error:
        raise _not_written(folder, error) from error
    finally:
        if old.is_dir() and not folder.exists():
            old.replace(folder)
        _remove(part, old)


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _flush(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _not_written(path: Path, error: Exception) -> StorageError:
    return StorageError(
        expected=f"to write {path}",
        found=str(error),
        remedy="Free disk space or fix the folder's permissions; what was there is untouched.",
    )


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_aside(path, lambda part: part.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """Read JSON. Raises DataError when the file is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(
            expected=f"a JSON file at {path}",
            found=str(error),
            remedy="Restore the file; what a stage makes comes by dvc repro.",
        ) from error


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_folder(folder: Path) -> str:
    """SHA-256 over the names and contents of every file below a folder."""
    digest = hashlib.sha256()
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()
