"""How a model is named: by its folder, or by its name on a hub. Needs no torch."""

from __future__ import annotations

from pathlib import Path


def looks_like_path(source: str) -> bool:
    """Whether a text can only be meant for a folder: a hub name is `name` or `owner/name`."""
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or source.endswith("/")


def beside(source: str | Path) -> Path:
    """Where a model's journal lies unless said otherwise.

    Beside the folder, not in it, since the model's identity is all that the folder holds; of a hub
    name, in the working folder.
    """
    path = Path(source)
    if path.is_dir():
        path = path.resolve()
        return path.with_name(f"{path.name}.errata")
    return Path(f"{str(source).replace('/', '--')}.errata")
