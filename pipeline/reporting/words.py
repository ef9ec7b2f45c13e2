"""Settings, counts and shares of unknown kind as they read best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipeline.reporting.blocks import DASH, short


def words(key: str) -> str:
    """A key as words: "stopped_early" -> "stopped early"."""
    return key.replace("_", " ")


def text(value: Any) -> str:
    """A value as text; a dash where there is none."""
    if isinstance(value, Mapping):
        return ", ".join(f"{words(str(key))} {text(item)}" for key, item in value.items()) or DASH
    if isinstance(value, list | tuple):
        return ", ".join(text(item) for item in value) or DASH
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        large = abs(value) >= 1000 or (value.is_integer() and abs(value) > 1)
        return f"{value:,.0f}" if large else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else short(str(value), 160)


def leaves(mapping: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    """Nested values as one level: {"train": {"cases": 400}} -> [("train cases", "400")]."""
    found: list[tuple[str, str]] = []
    for key, value in mapping.items():
        name = f"{path} {words(str(key))}".strip()
        found += leaves(value, name) if isinstance(value, Mapping) else [(name, text(value))]
    return found
