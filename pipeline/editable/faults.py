"""What keeps a journal from being whole. Without torch, as the journal itself."""

from __future__ import annotations

from itertools import pairwise

from pipeline.editable.failures import JournalError
from pipeline.editable.journal import Journal
from pipeline.errors import DataError


def faults(journal: Journal) -> list[str]:
    """In words: records, patches and editors lost or broken, also those no edit in force needs."""
    numbers = journal.numbers()
    found = [
        f"records {first + 1} to {after - 1} are gone from {journal.folder}"
        if after - first > 2
        else f"record {first + 1} is gone from {journal.folder}"
        for first, after in pairwise([0, *numbers])
        if after - first > 1
    ]
    for number in numbers:
        try:
            if (record := journal.record(number))["kind"] == "edit":
                journal.patch(number)
                if record["on"]:
                    journal.editor(record)
        except (DataError, JournalError) as error:
            found.append(f"{error.found} instead of {error.expected}")
    return found
