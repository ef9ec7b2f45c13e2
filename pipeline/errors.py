"""Failures that a user can cause: what was expected, what was found, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from functools import partial


class ErrataError(Exception):
    """A user's mistake or a broken input. Its message ends with what to do about it."""

    def __init__(self, *, expected: str, found: str, remedy: str) -> None:
        # What was found may be another program's sentence, with a period of its own.
        found = found.rstrip().removesuffix(".")
        super().__init__(f"expected {expected}; found {found}. {remedy}")
        self.expected, self.found, self.remedy = expected, found, remedy

    def __reduce__(self) -> tuple[Callable[..., ErrataError], tuple[str, str, str]]:
        """To be told from one process to another."""
        return partial(_again, type(self)), (self.expected, self.found, self.remedy)


class SettingsError(ErrataError):
    """A setting that is unknown, missing, of the wrong type or out of range."""


class DataError(ErrataError):
    """A file or a record that cannot be read, or that breaks its benchmark's rules."""


class AuditError(ErrataError):
    """Cases that would make an evaluation meaningless (leaks, conflicts, empty targets)."""


class ModelError(ErrataError):
    """A model that cannot be loaded, or whose architecture the library does not know."""


class EditorError(ErrataError):
    """An editor that is unknown, unfitted, or fitted for another model."""


class StorageError(ErrataError):
    """An output that could not be written whole."""


def _again(kind: type[ErrataError], expected: str, found: str, remedy: str) -> ErrataError:
    return kind(expected=expected, found=found, remedy=remedy)


def near_misses(wanted: str, known: Iterable[str]) -> str:
    """A sentence that names the closest known words, and then all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(word) for word in close)}? " if close else ""
    return f"{hint}Known: {', '.join(known)}."
