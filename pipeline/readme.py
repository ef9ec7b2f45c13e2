"""The results table of README.md, between two markers."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import RECORD, read_params
from pipeline.errors import DataError
from pipeline.reporting import readme_table
from pipeline.results import report_folder
from pipeline.storage import write_aside

BEGIN, END = "<!-- results: written by `make readme` -->", "<!-- end of results -->"


def with_table(text: str, table: str) -> str:
    """README text with what stands between the markers replaced.

    Raises:
        DataError: the two markers are not there, once each and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise DataError(
            expected=f"the lines {BEGIN} and {END} in README.md, once each",
            found="no such pair",
            remedy="Put them back where the results table belongs.",
        )
    return f"{before}{BEGIN}\n\n{table.strip()}\n\n{END}{after}"


def update(root: Path) -> bool:
    """Write the table of the record's report into README.md; tell whether that changed it.

    Raises:
        DataError: README.md, its markers or the report are missing.
    """
    path = root / "README.md"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            expected="README.md", found=str(error), remedy="Run this in the project's folder."
        ) from error
    new = with_table(text, readme_table(report_folder(root, read_params(root / RECORD))))
    if new != text:
        write_aside(path, lambda part: part.write_text(new, encoding="utf-8"))
    return new != text
