"""What keeps a journal from being whole. Without torch, as the journal itself."""

from __future__ import annotations

from itertools import pairwise

from pipeline.editable.failures import JournalError
from pipeline.editable.journal import Journal
from pipeline.errors import DataError


def faults(journal: Journal) -> list[str]:
    """In words: records lost or broken, and so of patches and editors of edits in force."""
    numbers = journal.numbers()
    found = [
        f"records {first + 1} to {after - 1} are gone from {journal.folder}"
        if after - first > 2
        else f"record {first + 1} is gone from {journal.folder}"
        for first, after in pairwise([0, *numbers])
        if after - first > 1
    ]
    broken: list[str] = []
    undone: set[int] = set()  # later records say so
    for number in reversed(numbers):
        try:
            record = journal.record(number)
            if record["kind"] == "undo":
                undone.update(record["of"])
            elif number not in undone:
                journal.patch(number)
                if record["on"]:
                    journal.editor(record)
        except (DataError, JournalError) as error:
            broken.append(f"{error.found} instead of {error.expected}")
    return found + broken[::-1]
