"""Progress bars for people at a terminal; silence for logs and tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def bar(items: Iterable[T], what: str, total: int | None = None) -> tqdm[T]:
    """Iterate with a bar that says what, how far, how fast and how much longer."""
    return tqdm(items, desc=what, total=total, disable=None, leave=False, dynamic_ncols=True)
