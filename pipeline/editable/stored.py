"""Edits on disk, of either form: patches of weights, and memories. Only safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pipeline.editing.memory import Memory
from pipeline.editing.patch import Intervention
from pipeline.editing.patch_file import load_patch, save_patch
from pipeline.errors import DataError
from pipeline.storage import write_aside

_MEMORY = "errata-memory-1"


def save_edit(edit: Intervention, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write an edit, whole or not at all. Raises StorageError when the disk refuses."""
    if not isinstance(edit, Memory):
        save_patch(edit, path, metadata)
        return
    header = {
        "format": _MEMORY,
        "start": str(edit.start),
        "epsilon": repr(edit.epsilon),
        "user": json.dumps(dict(metadata or {}), sort_keys=True),
    }
    tensors = {"key": edit.key_RKD.contiguous(), "token": edit.token_RKL.contiguous()}
    write_aside(path, lambda part: save_file(tensors, str(part), metadata=header))


def load_edit(path: Path) -> tuple[Intervention, dict[str, str]]:
    """Read an edit and its metadata.

    Raises:
        DataError: the file is missing or corrupted.
        EditorError: it is safetensors, but no edit.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") == _MEMORY:
                memory = Memory(
                    file.get_tensor("key"),
                    file.get_tensor("token"),
                    int(header["start"]),
                    float(header["epsilon"]),
                )
                return memory, json.loads(header["user"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:  # or a header of no sense
        raise DataError(
            expected=f"an edit at {path}",
            found=str(error).strip(),
            remedy="The file is missing or corrupted: edit again, or restore it.",
        ) from error
    return load_patch(path)
