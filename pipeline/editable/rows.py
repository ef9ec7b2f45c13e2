"""Files that people write by hand or in a spreadsheet: JSON lines and CSV, row by row.

No cell is lost without a word: what has no column, or shares one, is an error with its line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pipeline.editable.texts import lines
from pipeline.errors import DataError

Row = tuple[str, Any]  # where it stands, and what


def json_rows(path: Path, text: str, remedy: str) -> list[Row]:
    """One JSON value on each line.

    Raises:
        DataError: a line is no JSON, or has a name twice in one object.
    """
    _refuse_one_value(path, text)
    rows = []
    for number, line in lines(text):
        where = f"{path}, line {number}"
        try:
            rows.append((where, json.loads(line, object_pairs_hook=_once)))
        except (ValueError, RecursionError) as error:
            raise DataError(
                expected=f"a JSON object in {where}",
                found=f"{line[:60]!r} ({error})",
                remedy=remedy,
            ) from error
    return rows


def csv_rows(path: Path, text: str, known: Collection[str]) -> list[Row]:
    """Rows of a CSV with a header as dictionaries; a cell that a short row lacks is empty.

    Raises:
        DataError: a quote is never closed, two columns have one name, or a row has a cell without
            a column; or the first line has none of the known names.
    """
    # A blank before a cell is nobody's text; before a quote it would make the quote text.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    rows = []
    try:
        filled = (cells for cells in reader if any(cell.strip() for cell in cells))
        names = _header(path, filled, known)
        for cells in filled:
            where = f"{path}, line {reader.line_num}"
            rows.append((where, _row(where, names, cells)))
    except csv.Error as error:
        raise DataError(
            expected=f"a row of CSV in {path}, line {reader.line_num}",
            found=str(error).strip(),
            remedy="Put a cell with quotes, commas or line breaks in quotes, and double the quotes "
            "inside.",
        ) from error
    return rows


def _refuse_one_value(path: Path, text: str) -> None:
    """Raises DataError for a list of objects, or an object over several lines."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return
    several = isinstance(whole, list) and any(isinstance(item, dict | list) for item in whole)
    if several or len(lines(text)) > 1:
        raise DataError(
            expected=f"one JSON object on each line of {path}",
            found=f"one array of {len(whole)}" if several else "one value over several lines",
            remedy="Write each object on a line of its own"
            + (f": jq -c '.[]' {path}." if several else f": jq -c . {path}."),
        )


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """JSON lets a name stand twice in an object, and the last one win."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a name twice among {', '.join(name for name, _ in pairs)}")
    return found


def _header(path: Path, filled: Iterator[list[str]], known: Collection[str]) -> list[str]:
    names = [name.strip() for name in next(filled, [])]
    if names and not set(names) & set(known):
        first = ",".join(names)
        other = next((sign for sign in ";\t" if set(first.split(sign)) & set(known)), "")
        raise DataError(
            expected=f"a header in the first line of {path}, as prompt,target",
            found=f"{first[:60]!r}" + (f", with {other!r} for commas" if other else ""),
            remedy="Save it with commas between its cells."
            if other
            else "Write the names of the columns there: " + ", ".join(known) + ".",
        )
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(
            expected=f"each column of {path} once",
            found=f"{', '.join(twice)} twice",
            remedy="Leave one out; several rephrases or neighbours go into one cell, with | "
            "between them.",
        )
    return names


def _row(where: str, names: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if len(cells) > len(names):
        raise DataError(
            expected=f"at most {len(names)} cells in {where}, as the header has",
            found=f"{len(cells)}: {', '.join(map(repr, cells))[:120]}",
            remedy="Put a cell with commas in quotes.",
        )
    pairs = list(zip_longest(names, cells, fillvalue=""))
    for name, cell in pairs:
        if not name and cell.strip():
            raise DataError(
                expected=f"a name in the header for each cell in {where}",
                found=f"{cell[:60]!r} in a column without one",
                remedy="Name the column, or put a cell with commas in quotes.",
            )
    return {name: cell for name, cell in pairs if name}
