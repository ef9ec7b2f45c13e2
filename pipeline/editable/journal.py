"""What was done to a model, on disk: one folder for each edit or undo, written once, never changed.

    model.errata/
      journal.json          which model it is about
      000001/               an edit: its requests, settings, hashes, time, and what it did
        record.json
        patch.safetensors
      000002/               an undo: the numbers it takes back
        record.json
      editors/              editors that were fitted on the spot

A record is filled in a folder aside, flushed to the disk, and renamed into place: a process killed
at any moment leaves whole records and at most a folder that nobody reads, which the next writer
removes. Writers take turns by a lock that the system drops when its holder dies. Reading needs no
torch, so the history shows at once, and an edit whose patch is broken can still be undone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.editable.failures import JournalError
from pipeline.errors import DataError, StorageError
from pipeline.storage import hash_file, read_json, write_json

FORMAT = "errata-journal-1"
PATCH = "patch.safetensors"
_RECORD, _HEADER, _EDITORS = "record.json", "journal.json", "editors"

Record = dict[str, Any]


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


class Journal:
    """The records of one model's edits. Nothing is created before the first is written.

    Args:
        folder: where it lies or will lie.
        base_hash: the model's identity; None to look without checking.

    Raises:
        JournalError: it is about another model.
        DataError: its header is broken.
    """

    def __init__(self, folder: Path, base_hash: str | None = None, source: str = "") -> None:
        self.folder, self.base_hash, self.source = folder, base_hash, source
        header = folder / _HEADER
        if header.is_file():
            self._check(read_json(header))

    def records(self) -> list[Record]:
        """All records in order. Raises DataError when one is broken."""
        return [self.record(number) for number in self._numbers()]

    def record(self, number: int) -> Record:
        """One record. Raises JournalError when there is none, DataError when it is broken."""
        path = self._place(number) / _RECORD
        if not path.is_file():
            raise JournalError(
                expected=f"a record {number} in {self.folder}",
                found="none",
                remedy="`errata log` lists them.",
            )
        record = read_json(path)
        if not isinstance(record, dict) or record.get("number") != number:
            raise DataError(
                expected=f"record {number} in {path}",
                found=str(record)[:80],
                remedy="The file was changed: restore it from a backup.",
            )
        return record

    def active(self) -> list[int]:
        """The edits in force, in the order in which they were made."""
        return in_force(self.records())

    def patch(self, number: int) -> Path:
        """The file of an edit's patch. Raises DataError when it is not what was written."""
        path = self._place(number) / PATCH
        expected = self.record(number)["patch_hash"]
        found = hash_file(path) if path.is_file() else "no such file"
        if found != expected:
            raise DataError(
                expected=f"the patch of edit {number} in {path}, SHA-256 {expected[:12]}",
                found=found[:12],
                remedy=f"It is corrupted: restore it, or take edit {number} back (errata undo).",
            )
        return path

    def append(self, record: Record, save: Callable[[Path], object] | None = None) -> Record:
        """Write a record as the next one, whole or not at all.

        Args:
            record: plain values; number, time and the patch's hash are added.
            save: writes the patch to the path that it is given.

        Raises:
            StorageError: the disk is full or refuses; the journal is as it was.
        """
        try:
            with self._writing():
                return self._append(record, save)
        except OSError as error:
            raise _not_written(self.folder, error) from error

    def undo(self, numbers: Sequence[int]) -> Record:
        """Take edits back, in one record. Raises JournalError where one is not in force."""
        records = self.records()
        edits = {record["number"] for record in records if record["kind"] == "edit"}
        active = in_force(records)
        for number in numbers:
            if number not in active:
                raise not_in_force(number, active, known=number in edits)
        return self.append({"kind": "undo", "of": sorted(set(numbers))})

    def editors(self) -> Path:
        """Where editors that were fitted on the spot are kept."""
        return self.folder / _EDITORS

    def _append(self, record: Record, save: Callable[[Path], object] | None) -> Record:
        self._clean()
        number = max(self._numbers(), default=0) + 1
        part = self.folder / f".{number:06d}.part"
        part.mkdir()
        whole = record | {"number": number, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        try:
            if save is not None:
                save(part / PATCH)
                whole["patch_hash"] = hash_file(part / PATCH)
            write_json(part / _RECORD, whole)
            _flush(part)
            part.rename(self._place(number))
            _flush(self.folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return whole

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            header = self.folder / _HEADER
            if header.is_file():
                self._check(read_json(header))  # it may have been made since
            else:
                write_json(
                    header,
                    {"format": FORMAT, "base_hash": self.base_hash, "source": self.source},
                )
            yield

    def _check(self, header: Any) -> None:
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise DataError(
                expected=f"a journal of format {FORMAT} in {self.folder}",
                found=str(header)[:80],
                remedy="Name another folder with --journal.",
            )
        if self.base_hash is None:
            self.base_hash = header["base_hash"]
        elif header["base_hash"] != self.base_hash:
            raise JournalError(
                expected=f"{self.folder} to be about the model {self.base_hash[:12]}",
                found=f"{str(header['base_hash'])[:12]} ({header['source']})",
                remedy="The model's files have changed since, or it is another's journal: restore "
                "the model, or name another folder with --journal.",
            )

    def _numbers(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())

    def _place(self, number: int) -> Path:
        return self.folder / f"{number:06d}"

    def _clean(self) -> None:
        """What a killed writer left; no other writer is at work now."""
        for path in self.folder.glob(".*.part"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def in_force(records: Sequence[Record]) -> list[int]:
    """The numbers of edits that no undo took back."""
    undone = {number for record in records if record["kind"] == "undo" for number in record["of"]}
    edits = [record["number"] for record in records if record["kind"] == "edit"]
    return [number for number in edits if number not in undone]


def not_in_force(number: int, active: Sequence[int], *, known: bool) -> JournalError:
    """What to say of a number that cannot be undone."""
    return JournalError(
        expected=f"{number} to be an edit in force ({', '.join(map(str, active)) or 'none is'})",
        found="an edit that was undone already" if known else "no edit of that number",
        remedy="`errata log` lists them.",
    )


def _flush(folder: Path) -> None:
    """Make the names in a folder last through a power cut, and the files with them."""
    for path in folder.iterdir():
        if path.is_file() and path.suffix == ".safetensors":
            _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _not_written(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        expected=f"to write a record in {folder}",
        found=str(error),
        remedy="Free disk space or fix the folder's permissions; earlier records are untouched.",
    )
