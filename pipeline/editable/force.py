"""Which edits are in force by a journal's records, and what to say where others were meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.editable.failures import ChangedError, JournalError


def in_force(records: Sequence[Mapping[str, Any]]) -> list[int]:
    """The numbers of edits that no undo took back."""
    undone = {number for record in records if record["kind"] == "undo" for number in record["of"]}
    edits = [record["number"] for record in records if record["kind"] == "edit"]
    return [number for number in edits if number not in undone]


def not_in_force(number: int, active: Sequence[int], *, known: bool) -> JournalError:
    """What to say of a number that cannot be undone."""
    return JournalError(
        expected=f"{number} to be an edit in force ({_words(active, 'none is')})",
        found="an edit that was undone already" if known else "no edit of that number",
        remedy="`errata log` lists them.",
    )


def changed(before: Sequence[int], now: Sequence[int]) -> ChangedError:
    """What to say of an edit that was made on others than those in force."""
    return ChangedError(
        expected=f"the edits in force that the edit was made on ({_words(before)})",
        found=f"{_words(now)}: another process changed them meanwhile",
        remedy="It was not made: run it again.",
    )


def _words(numbers: Sequence[int], none: str = "none") -> str:
    return ", ".join(map(str, numbers)) or none
