"""Editors, one file each. The file's name is the editor's name; nothing else registers it."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from pipeline.errors import SettingsError, near_misses


def names() -> tuple[str, ...]:
    """Every editor there is."""
    found = pkgutil.iter_modules(__path__)
    return tuple(sorted(module.name for module in found if not module.name.startswith("_")))


def load(name: str) -> ModuleType:
    """The module of an editor: its `Config` and its `Editor`. Raises SettingsError for others."""
    if name not in names():
        raise SettingsError(
            expected="the name of an editor", found=repr(name), remedy=near_misses(name, names())
        )
    return importlib.import_module(f"{__name__}.{name}")
