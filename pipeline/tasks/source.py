"""Where a benchmark's raw material comes from: the sample world, or a folder of real files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, SettingsError, near_misses
from pipeline.storage import hash_file
from pipeline.world import Config, World, make_world

WORLDS, FOLDERS = ("sample", "tiny"), ("local",)


@dataclass(frozen=True)
class Row:
    """A record with the place it was read from."""

    values: dict[str, Any]
    place: str

    def text(self, name: str) -> str:
        """A field that must be there and be text. Raises DataError with file, line and field."""
        value = str(self.get(name, str))
        if not value.strip():
            raise self.broken(f"text in the field {name!r}", "nothing but spaces")
        try:
            value.encode()
        except UnicodeEncodeError:  # half of a pair, which JSON can write and UTF-8 cannot
            raise self.broken(f"text in the field {name!r}", repr(value)) from None
        return value

    def get(self, name: str, kind: type[Any] | tuple[type[Any], ...]) -> Any:
        """A field that must be there and of a type. Raises DataError with file, line and field."""
        if name not in self.values:
            names = ", ".join(map(repr, self.values))
            raise self.broken(f"the field {name!r}", f"the fields {names or 'none'}")
        value = self.values[name]
        if not isinstance(value, kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            wanted = " or ".join(k.__name__ for k in kinds)
            raise self.broken(f"{wanted} in the field {name!r}", f"{type(value).__name__}")
        return value

    def broken(self, expected: str, found: str) -> DataError:
        """The error that says what is wrong with this record."""
        return DataError(
            expected=f"{expected} in {self.place}",
            found=found,
            remedy="Restore the file from its publisher, or correct or delete the record.",
        )


def numbered(rows: Iterable[Row], name: str) -> list[Row]:
    """Records, each with a number that no other has. Raises DataError where two have the same."""
    found: dict[int, Row] = {}
    for row in rows:
        number = row.get(name, int)
        if number in found:
            raise row.broken(
                f"a number of its own in {name!r}", f"{number}, as in {found[number].place}"
            )
        found[number] = row
    return list(found.values())


@dataclass
class Folder:
    """A folder of real files. It remembers the hash of each file that was read."""

    root: Path
    hashes: dict[str, str] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """A file of the folder. Raises DataError when it is not there."""
        path = self.root / name
        if not path.is_file():
            raise DataError(
                expected=f"the file {name} in {self.root}",
                found="no such file",
                remedy="Put it there, or point `raw` at the folder that has it.",
            )
        if name not in self.hashes:
            self.hashes[name] = hash_file(path)
        return path

    def names(self, pattern: str) -> list[str]:
        """The files that a pattern finds, sorted. Raises DataError when there is none."""
        found = sorted(path.relative_to(self.root).as_posix() for path in self.root.glob(pattern))
        if not found:
            raise DataError(
                expected=f"files {pattern} in {self.root}",
                found="none",
                remedy="Put them there, or point `raw` at the folder that has them.",
            )
        return found

    def lines(self, name: str) -> list[str]:
        """A text file's lines. Raises DataError when it is missing or not UTF-8."""
        return self._read(name).split("\n")

    def json_lines(self, name: str) -> Iterator[Row]:
        """The records of a JSON-lines file. Raises DataError with the number of a broken line."""
        for number, line in enumerate(self._read(name).split("\n"), start=1):
            if line.strip():
                place = f"{name}, line {number}"
                yield Row(self._object(self._parse(line, name, number), place), place)

    def json_list(self, name: str) -> Iterator[Row]:
        """The records of a file that holds one JSON list. Raises DataError as `json_lines`."""
        value = self._parse(self._read(name), name, 1)
        if not isinstance(value, list):
            raise DataError(
                expected=f"a list of records in {name}",
                found=type(value).__name__,
                remedy="Restore the file from its publisher.",
            )
        for number, item in enumerate(value, start=1):
            place = f"{name}, record {number}"
            yield Row(self._object(item, place), place)

    def _read(self, name: str) -> str:
        path = self.path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                expected=f"UTF-8 text in {path}",
                found=str(error),
                remedy="Restore the file from its publisher.",
            ) from error
        if not text.strip():
            raise DataError(
                expected=f"records in {path}",
                found="an empty file",
                remedy="Restore the file from its publisher.",
            )
        return text

    @staticmethod
    def _parse(text: str, name: str, first_line: int) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            line = first_line + error.lineno - 1
            # A string that never ends runs to the end of the text: strings hold no line breaks.
            cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
            raise DataError(
                expected=f"JSON in {name}, line {line}",
                found=f"{error.msg} at column {error.colno}" + (" (truncated?)" if cut else ""),
                remedy="Correct the line, or restore the file from its publisher.",
            ) from error

    @staticmethod
    def _object(value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise DataError(
                expected=f"a record in {place}",
                found=type(value).__name__,
                remedy="Restore the file from its publisher.",
            )
        return value


Source = World | Folder


def open_source(suite: str, raw: str, world: Config, seed: int) -> Source:
    """The source of a suite: a generated world, or the folder that `raw` names.

    Raises:
        SettingsError: the suite is unknown.
        DataError: the folder does not exist.
    """
    if suite in WORLDS:
        return make_world(world, seed)
    if suite not in FOLDERS:
        raise SettingsError(
            expected="the name of a suite",
            found=repr(suite),
            remedy=near_misses(suite, (*WORLDS, *FOLDERS)),
        )
    root = Path(raw)
    if not raw or not root.is_dir():
        raise DataError(
            expected=f"a folder of raw files for the suite {suite!r}",
            found=f"raw: {raw!r}, which is no folder",
            remedy="Set raw to the folder's absolute path: dvc exp run -S raw=/path/to/data.",
        )
    return Folder(root)
