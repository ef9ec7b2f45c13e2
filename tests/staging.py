"""Stages called in a folder of their own, where nothing was run yet."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest


def stage(name: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A stage's function, without what it sets for the whole process."""
    module = importlib.import_module(f"stages.{name}")
    if hasattr(module, "set_up_torch"):
        monkeypatch.setattr(module, "set_up_torch", lambda _: None)
    return getattr(module, name)  # type: ignore[no-any-return]
