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
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.editable.failures import JournalError
from pipeline.editable.force import changed, in_force, not_in_force
from pipeline.editable.recorded import (
    EDITORS,
    FORMAT,
    HEADER,
    check_header,
    check_record,
    lost_header,
    read_kept,
)
from pipeline.errors import DataError, StorageError
from pipeline.storage import hash_file, write_json

PATCH = "patch.safetensors"
_RECORD = "record.json"

Record = dict[str, Any]


class Journal:
    """The records of one model's edits. Nothing is created before the first is written.

    Args:
        folder: where it lies or will lie.
        base_hash: the model's identity; None to look without checking.

    Raises:
        JournalError: it is about another model.
        DataError: its header is broken, or lost while records are there.
    """

    def __init__(self, folder: Path, base_hash: str | None = None, source: str = "") -> None:
        self.folder, self.base_hash, self.source = folder, base_hash, source
        self._read_header()

    def records(self) -> list[Record]:
        """All records in order. Raises DataError when one is broken."""
        return [self.record(number) for number in self.numbers()]

    def numbers(self) -> list[int]:
        """The numbers of all records, in order; none is read."""
        if not self.folder.is_dir():
            return []
        names = [path.name for path in self.folder.iterdir()]
        digits = [name for name in names if name.isascii() and name.isdigit()]
        return sorted(int(name) for name in digits if name == self._place(int(name)).name)

    def record(self, number: int) -> Record:
        """One record. Raises JournalError when there is none, DataError when it is broken."""
        folder = self._place(number)
        if not folder.exists():
            raise JournalError(
                expected=f"a record {number} in {self.folder}",
                found="none",
                remedy="`errata log` lists them.",
            )
        path = folder / _RECORD
        if not path.is_file():
            raise DataError(
                expected=f"record {number} in {path}",
                found="no such file",
                remedy=f"Restore it from a backup, or remove {folder}: without its record nothing "
                "in it can be used.",
            )
        return check_record(read_kept(path, f"record {number}"), number, path)

    def active(self) -> list[int]:
        """The edits in force, in the order in which they were made."""
        return in_force(self.records())

    def patch(self, number: int) -> Path:
        """The file of an edit's patch. Raises DataError when it is not what was written."""
        record, path = self.record(number), self._place(number) / PATCH
        if record["kind"] != "edit":
            raise JournalError(
                expected=f"{number} to be an edit", found="an undo", remedy="`errata log` tells."
            )
        try:
            found = hash_file(path) if path.is_file() else "no such file"
        except OSError as error:
            found = str(error)
        if found != record["patch_hash"]:
            raise DataError(
                expected=f"the patch of edit {number} in {path}, SHA-256 {record['patch_hash']}",
                found=found,
                remedy=f"It is corrupted: restore it, or take edit {number} back (errata undo).",
            )
        return path

    def append(
        self,
        record: Record,
        save: Callable[[Path], object] | None = None,
        known: Sequence[Record] | None = None,
    ) -> Record:
        """Write a record as the next one, whole or not at all.

        Args:
            record: plain values; number, time and the patch's hash are added.
            save: writes the patch to the path that it is given.
            known: the records that there were when an edit was made; None where it does not matter.

        Raises:
            StorageError: the disk is full or refuses; the journal is as it was.
            ChangedError: other edits are in force by now than by the records known.
            JournalError: it takes back an edit that is not in force, be it by another process.
        """
        with self._writing():
            if known is not None:
                self._refuse_changed(known)
            return self._append(record, save)

    def undo(self, numbers: Sequence[int] | None = None) -> Record | None:
        """Take edits back in one record, by default all; None where there is nothing to take back.

        Raises:
            JournalError: one is not in force; then none is taken back.
        """
        if not self._undoable(numbers):  # also so that nothing is created for a mistake
            return None
        with self._writing():
            found = self._undoable(numbers)  # as it is when nobody else can write
            return self._append({"kind": "undo", "of": found}, None) if found else None

    def editors(self) -> Path:
        """Where editors that were fitted on the spot are kept."""
        return self.folder / EDITORS

    def editor(self, record: Record) -> Path:
        """Where the editor lies that trained the model that an edit is made on (ENN).

        Raises JournalError where it is gone; what is in it is looked at as it is opened.
        """
        folder: Path = self.editors() / record["on"][:16]
        if not folder.is_dir():
            raise JournalError(
                expected=f"the editor that edit {record['number']} was made with in {folder}",
                found="no such folder",
                remedy=f"Restore it, or take the edit back (errata undo {record['number']}).",
            )
        return folder

    def _append(self, record: Record, save: Callable[[Path], object] | None) -> Record:
        if record["kind"] == "undo":
            self._undoable(record["of"])
        self._clean()
        number = max(self.numbers(), default=0) + 1
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

    def _refuse_changed(self, known: Sequence[Record]) -> None:
        """An edit is made, and judged by the guard, on what was in force: on that alone it holds.

        Records never change, so that their numbers tell whether any need be read.
        """
        if self.numbers() == sorted(record["number"] for record in known):
            return
        before, now = in_force(known), self.active()
        if before != now:
            raise changed(before, now)

    def _undoable(self, numbers: Sequence[int] | None) -> list[int]:
        """Those of these numbers, or of all edits in force. JournalError: one is not in force."""
        records = self.records()
        active = in_force(records)
        for number in numbers or ():
            if number not in active:
                known = any(r["number"] == number and r["kind"] == "edit" for r in records)
                raise not_in_force(number, active, known=known)
        return sorted(set(active if numbers is None else numbers))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A writer's turn, in a journal that has its header."""
        header = self.folder / HEADER
        if self.base_hash is None and not header.is_file():
            raise JournalError(
                expected=f"a journal in {self.folder}",
                found="none, and no model that a new one would be about",
                remedy="Give the model's hash along with the folder.",
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                if not self._read_header():  # it may have been made since
                    about = {"base_hash": self.base_hash, "source": self.source}
                    write_json(header, {"format": FORMAT} | about)
                yield
        except OSError as error:
            raise _not_written(self.folder, error) from error

    def _read_header(self) -> bool:
        """Whether there is one, for the model that the journal is opened for."""
        numbers, path = self.numbers(), self.folder / HEADER  # writers make them the other way
        if path.is_file():
            self._check(check_header(read_kept(path, "a journal's header"), self.folder))
            return True
        if numbers:
            raise lost_header(path, self._said_by(numbers))
        return False

    def _said_by(self, numbers: Sequence[int]) -> str:
        """The model that records themselves say they are about."""
        for number in numbers:
            with suppress(DataError):
                if base_hash := self.record(number).get("base_hash"):
                    return str(base_hash)
        return ""

    def _check(self, header: dict[str, str]) -> None:
        if self.base_hash is None:
            self.base_hash = header["base_hash"]
        elif header["base_hash"] != self.base_hash:
            raise JournalError(
                expected=f"{self.folder} to be about the model {self.base_hash[:12]}",
                found=f"{header['base_hash'][:12]} ({header['source']})",
                remedy="The model's files have changed since, or it is another's journal: restore "
                "the model, or name another folder with --journal.",
            )

    def _place(self, number: int) -> Path:
        return self.folder / f"{number:06d}"

    def _clean(self) -> None:
        """What a killed writer left; no other writer is at work now."""
        for path in self.folder.glob(".*.part"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


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
