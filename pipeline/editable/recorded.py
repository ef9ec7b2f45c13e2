"""What a journal's files must hold, so that whoever reads a record finds there what was written.

Without torch, as the journal itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.editable.failures import JournalError
from pipeline.errors import DataError
from pipeline.storage import read_json

FORMAT = "errata-journal-1"
HEADER, EDITORS = "journal.json", "editors"  # beside the records
_RECORDED = re.compile(r"[0-9]{6,}")

_KINDS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "edit": {
        "time": (str,),
        "alg": (str,),
        "settings": (dict,),
        "editor": (str,),
        "corrections": (list,),
        "answers": (list,),
        "health": (dict, type(None)),
        "steps": (int,),
        "seconds": (int, float),
        "on": (str,),
        "patch_hash": (str,),
    },
    "undo": {"time": (str,), "of": (list,)},
}
# What is read of each entry of a record's lists.
_ENTRIES = {"corrections": ("prompt", "target"), "answers": ("kind", "prompt", "before", "after")}


def refuse_other(folder: Path) -> None:
    """Raises JournalError where a journal is to lie and a file is, or a folder of something else.

    What was written into a model's or an editor's folder would make it another one.
    """
    found = ""
    if blocked := next(
        (p for p in (folder, *folder.parents) if p.exists() and not p.is_dir()), None
    ):
        found = f"a file at {blocked}"
    elif folder.is_dir() and not (folder / HEADER).exists():
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        strange = [name for name in names if name != EDITORS and not _RECORDED.fullmatch(name)]
        found = f"a folder with {strange[0]!r} in it" if strange else ""
    if found:
        raise JournalError(
            expected=f"the folder of a journal at {folder}",
            found=found,
            remedy="Name a journal, an empty folder, or one that is not there yet.",
        )


def read_kept(path: Path, what: str) -> Any:
    """A file of a journal. Raises DataError with the ways out where it is broken."""
    try:
        return read_json(path)
    except DataError as error:
        raise DataError(
            expected=f"{what} in {path}", found=error.found, remedy=_ways_out(path)
        ) from error


def check_record(record: Any, number: int, path: Path) -> dict[str, Any]:
    """The record, if it is one. Raises DataError with what it lacks."""
    if wrong := _fault(record, number):
        raise DataError(
            expected=f"record {number} in {path}",
            found=wrong,
            remedy=f"The file was changed. {_ways_out(path)}",
        )
    assert isinstance(record, dict)
    return record


def check_header(header: Any, folder: Path) -> dict[str, str]:
    """A journal's header, if it is one. Raises DataError with what it lacks."""
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise DataError(
            expected=f"a journal of format {FORMAT} in {folder}",
            found=str(header)[:80],
            remedy="Name another folder with --journal.",
        )
    for name in ("base_hash", "source"):
        if not isinstance(header.get(name), str):
            raise DataError(
                expected=f"text as the {name!r} of the journal in {folder}",
                found=repr(header.get(name)),
                remedy="Its header was changed: restore it from a backup.",
            )
    return header


def lost_header(path: Path, base_hash: str) -> DataError:
    """What to say where records have no header.

    Args:
        base_hash: which model they are about, as they say themselves; "" where they do not.
    """
    header = json.dumps({"format": FORMAT, "base_hash": base_hash, "source": ""})
    return DataError(
        expected=f"{path}, which says which model its records are about",
        found="records, and no such file",
        remedy=f"Restore it from a backup, or write what its records say: {header}"
        if base_hash
        else "Restore it from a backup, or name another folder with --journal.",
    )


def _ways_out(path: Path) -> str:
    if path.name == HEADER:
        return "Restore it from a backup, or remove it: the next command says what goes there."
    return (
        f"Restore it from a backup, or remove {path.parent}: without its record nothing in it can "
        "be used, and an undo in it is no more."
    )


def _fault(record: Any, number: int) -> str:
    """What is wrong with a record, in words; "" for nothing."""
    if not isinstance(record, dict) or record.get("number") != number:
        return str(record)[:80]
    fields = _KINDS.get(str(record.get("kind")))
    if fields is None:
        return f"the kind {record.get('kind')!r}"
    for name, types in fields.items():
        if name not in record:
            return f"an {record['kind']} without {name!r}"
        if not isinstance(record[name], types):
            return f"{record[name]!r:.60} as its {name!r}"
    if record["kind"] == "undo":
        whole = all(type(item) is int for item in record["of"])
        return "" if whole else f"{record['of']!r:.60} as its 'of'"
    for name, keys in _ENTRIES.items():
        for entry in record[name]:
            if not isinstance(entry, dict) or not all(isinstance(entry.get(k), str) for k in keys):
                return f"{entry!r:.60} among its {name!r}"
    if not record["corrections"]:
        return "an edit of no corrections"
    if record["health"] is not None and not isinstance(record["health"].get("past"), list):
        return "a 'health' without 'past'"
    return ""
