"""The results table of README.md, between two markers."""

from __future__ import annotations

from pathlib import Path

from pipeline.composition import compose, parse
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
    before, _, rest = text.partition(BEGIN)
    between, end, after = rest.partition(END)
    if not end or BEGIN in between + after or END in after:
        raise DataError(
            expected=f"the lines {BEGIN} and {END} in README.md, once each",
            found="no such pair",
            remedy="Put them back where the results table belongs.",
        )
    return f"{before}{BEGIN}\n\n{table.strip()}\n\n{END}{after}"


def update(root: Path) -> bool:
    """Write the default suite's table into README.md; tell whether that changed it.

    The record may be of another suite by now; the README stays with what `make repro` gives.

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
    folder = report_folder(root, parse(compose(root)))
    new = with_table(text, readme_table(folder))
    if new != text:
        write_aside(path, lambda part: part.write_text(new, encoding="utf-8"))
    return new != text
