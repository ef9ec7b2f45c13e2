"""Patches on disk: safetensors, whole or absent, with a header that tells them from other files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.editing.patch import Intervention, Patch, weights_of
from pipeline.editing.updates import Dense, Factors, Update
from pipeline.errors import DataError, EditorError
from pipeline.storage import write_aside

_FORMAT = "errata-patch-1"


def save_patch(edits: Intervention, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a patch as safetensors, whole or not at all.

    Raises EditorError where the edits are no weights.
    """
    patch = weights_of(edits)
    tensors: dict[str, Tensor] = {}
    for site, update in patch.updates.items():
        if isinstance(update, Factors):
            tensors[f"{site}/left"] = update.left_RKO.detach().contiguous()
            tensors[f"{site}/right"] = update.right_RKI.detach().contiguous()
        else:
            tensors[f"{site}/delta"] = update.delta_ROI.detach().contiguous()
    header = {"format": _FORMAT, "user": json.dumps(dict(metadata or {}), sort_keys=True)}
    write_aside(path, lambda part: save_file(tensors, str(part), metadata=header))


def load_patch(path: Path) -> tuple[Patch, dict[str, str]]:
    """Read a patch and its metadata.

    Raises:
        DataError: the file is missing or corrupted.
        EditorError: it is safetensors, but no patch.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(
            expected=f"a patch at {path}",
            found=str(error),
            remedy="The file is missing or corrupted: edit again, or restore it.",
        ) from error
    if header.get("format") != _FORMAT:
        raise EditorError(
            expected=f"{path} to be a patch of format {_FORMAT}",
            found=f"format {header.get('format')!r}",
            remedy="Give a file that was saved as a patch.",
        )
    updates: dict[str, Update] = {}
    for name, tensor in tensors.items():
        site, part = name.rsplit("/", 1)
        if part == "delta":
            updates[site] = Dense(tensor)
        elif part == "left":
            updates[site] = Factors(tensor, tensors[f"{site}/right"])
    return Patch(updates), json.loads(header["user"])
