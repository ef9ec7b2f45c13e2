"""Numbers to a report: Markdown, one HTML page, CSV, figures, and a JSON for `dvc metrics diff`.

Everything is read from the tables that the stages left, through a composed list of runs; a file
that the list does not name is never looked at. The same tables give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import DataError
from pipeline.metrics import Summary
from pipeline.reporting import columns, details, html, markdown, overview, tables, tracing
from pipeline.reporting.inputs import (
    Bench,
    Difference,
    Material,
    Request,
    Run,
    Skipped,
    Trace,
    read,
)
from pipeline.reporting.sections import compose
from pipeline.storage import write_aside, write_json

__all__ = [
    "Bench",
    "Difference",
    "Request",
    "Run",
    "Skipped",
    "Trace",
    "readme_table",
    "write_report",
]


def write_report(request: Request, folder: Path) -> list[Path]:
    """Write `report.md`, `report.html`, `metrics.json`, `tables/` and `figures/` into a folder.

    Tables and figures of an earlier report are removed: what lies there afterwards is this
    report's.

    Returns:
        What was written.

    Raises:
        DataError: a table is missing or broken.
        StorageError: the folder cannot be written; each file is whole or as it was.
    """
    material = read(request)
    document, report = compose(material)
    texts = {
        **{f"tables/{name}.csv": _csv(frame) for name, frame in report.csv.items()},
        **{f"figures/{picture.name}.svg": picture.svg for picture in report.pictures},
        "report.md": markdown.render(document),
        "report.html": html.render(document),
    }
    written = [_write(folder / name, text) for name, text in texts.items()]
    write_json(folder / "metrics.json", _metrics_json(material))
    written.append(folder / "metrics.json")
    _sweep(folder, written)
    return written


def readme_table(report_folder: Path) -> str:
    """The base models and the main tables of a written report, as Markdown.

    Rebuilt from the CSV files alone, so it can be compared with what is committed.

    Raises:
        DataError: the folder holds no report.
    """
    base = _read_csv(report_folder / "tables" / "base.csv")
    parts = [markdown.table(details.base_table(base))]
    whole = report_folder / "tables" / "overview.csv"
    if whole.is_file():  # a study of edits at once has none
        parts.append(markdown.table(overview.table(_read_csv(whole))))
    chosen = {name: columns.ALL[name] for name in columns.README}
    for bench in base["bench"]:
        path = report_folder / "tables" / f"{bench}.csv"
        if not path.is_file():  # a benchmark without runs has a base model and no table
            continue
        frame = _read_csv(path)
        caption = f"{tables.title(bench)}: single edits, {tables.cases(frame, chosen)}"
        notes = tables.table_notes(frame)
        parts.append(markdown.table(tables.main_table(frame, chosen, caption, notes=notes)))
    return "\n\n".join(parts) + "\n"


def _metrics_json(material: Material) -> dict[str, Any]:
    """Run -> metric -> value; intervals apart, as lists: `dvc metrics diff` passes over those."""
    values: dict[str, Any] = {}
    intervals: dict[str, dict[str, list[float | None]]] = {}
    for name, summary in material.metrics.items():
        values[name] = {metric: _rounded(n["value"]) for metric, n in summary.items()}
        intervals[name] = _intervals(summary)
    for bench, found in material.traces.items():
        whole = tracing.totals(found, material.request.seed)["total effect"]
        mlp = tracing.peak(
            tracing.effects(found, material.request.seed), "mlp", "", ["subject_last"]
        )
        values[f"trace-{bench}"] = {
            "total_effect": _rounded(whole.value),
            "mlp_effect_subject_last": _rounded(float(mlp["effect"])),
            "mlp_block_subject_last": int(mlp["layer"]),
        }
    return values | {"intervals": intervals}


def _intervals(summary: Summary) -> dict[str, list[float | None]]:
    return {
        metric: [_rounded(numbers["low"]), _rounded(numbers["high"])]
        for metric, numbers in summary.items()
        if numbers["low"] is not None or numbers["high"] is not None
    }


def _rounded(number: float | None) -> float | None:
    """Six significant digits: what a diff can show, and more than an interval allows."""
    return None if number is None or not np.isfinite(number) else float(f"{number:.6g}")


def _csv(frame: pd.DataFrame) -> str:
    """Short numbers, Unix line ends, empty where there is nothing."""
    return str(frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def _write(path: Path, text: str) -> Path:
    write_aside(path, lambda part: part.write_text(text, encoding="utf-8"))
    return path


def _sweep(folder: Path, written: Sequence[Path]) -> None:
    """Remove tables and figures that an earlier report left and this one does not have."""
    for pattern in ("tables/*.csv", "tables/curves/*.csv", "figures/*.svg"):
        for path in folder.glob(pattern):
            if path not in written:
                path.unlink()


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except OSError as error:
        raise DataError(
            expected=f"a report's table at {path}",
            found=str(error),
            remedy="Run the report stage: dvc repro.",
        ) from error
