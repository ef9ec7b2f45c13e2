"""The main tables: one per benchmark, editors as rows, metrics as columns.

Each is first a frame of plain numbers, which is what the CSV holds, and then a block made from that
frame, so that the README's table can be rebuilt from the committed CSV alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline import metrics
from pipeline.metrics import Summary
from pipeline.reporting import columns, published
from pipeline.reporting.blocks import DASH, Cell, Table
from pipeline.reporting.columns import Column
from pipeline.reporting.inputs import Material, Run

UNEDITED = "unedited model"
_TITLES = {"zsre": "zsRE", "fever": "FEVER", "wikitext": "Wikitext", "counterfact": "CounterFact"}
_ENDS = ("low", "high", "n")


def title(bench: str) -> str:
    """A benchmark's name as its authors write it."""
    return _TITLES.get(bench, bench)


def main_frame(material: Material, bench: str) -> pd.DataFrame:
    """Every metric of every run: `editor, skipped`, then METRIC, METRIC_low, _high and _n.

    The first row is the model before any edit. An editor that was left out has its reason under
    `skipped` and no numbers.
    """
    runs = material.of(bench)
    rows: list[dict[str, Any]] = []
    if runs:
        unedited = material.outcomes[material.untouched(bench).name]
        before = metrics.unedited(unedited, material.request.seed)
        rows.append({"editor": UNEDITED, "skipped": ""} | _flat(before))
    rows += [{"editor": r.label, "skipped": ""} | _flat(material.metrics[r.name]) for r in runs]
    rows += [
        {"editor": skipped.alg, "skipped": skipped.reason}
        for skipped in material.request.skipped
        if skipped.bench == bench
    ]
    known = [*columns.ALL, *metrics.METRICS]
    found = {name for row in rows for name in row}
    extra = sorted(name for name in found if name not in ("editor", "skipped"))
    stems = [name for name in extra if not name.endswith(tuple(f"_{end}" for end in _ENDS))]
    ordered = sorted(stems, key=lambda name: known.index(name) if name in known else len(known))
    names = [f"{stem}{end}" for stem in ordered for end in ("", *(f"_{end}" for end in _ENDS))]
    return pd.DataFrame(rows, columns=["editor", "skipped", *names])


def main_table(
    frame: pd.DataFrame,
    chosen: Mapping[str, Column],
    caption: str,
    *,
    setting: published.Setting | None = None,
    notes: Sequence[str] = (),
) -> Table:
    """The columns of `chosen` that any editor has, with published rows under ours if given."""
    edited = frame[frame["editor"] != UNEDITED]
    present = {
        name: column
        for name, column in chosen.items()
        if name in frame and not edited[name].isna().all()
    }
    rows = [
        (Cell(text=str(row["editor"])), *(_cell(row, name, present[name]) for name in present))
        for row in frame.to_dict("records")
    ]
    if setting:
        rows += _published_rows(setting, present, list(edited["editor"]))
    head = [f"{c.label} ({'↓' if c.better == 'lower' else '↑'})" for c in present.values()]
    return Table(header=("Editor", *head), rows=tuple(rows), caption=caption, notes=tuple(notes))


def table_notes(frame: pd.DataFrame) -> list[str]:
    """Why cells are empty, what the base knew before, and which edits broke the model."""
    notes = []
    for row in frame.to_dict("records"):
        if isinstance(row["skipped"], str) and row["skipped"]:  # read from CSV, none is NaN
            notes.append(f"{row['editor']}: {DASH} because {row['skipped']}")
        broken = row.get("collapsed", 0.0)
        if broken and broken > 0:
            count = round(broken * row["collapsed_n"])
            notes.append(
                f"{row['editor']}: {count} of {int(row['collapsed_n'])} edits collapsed the model "
                "(a loss that is no number, or no text where there was one) and count as failures."
            )
    before = frame[frame["editor"] == UNEDITED]
    known = [
        f"{columns.number(100 * float(before[name].iloc[0]), 1)} % of {words}"
        for name, words in (
            ("accuracy_unrelated", "the unrelated probes"),
            ("accuracy_neighbour", "the neighbours"),
            ("accuracy_hard_neighbour", "the hard neighbours"),
        )
        if name in before and before[name].notna().any()
    ]
    notes += _against_the_original(frame)
    if known:
        notes.append(f"Before any edit the model is exactly right on {', '.join(known)}.")
    return notes


def edits(runs: Sequence[Run]) -> str:
    """How the edits of a table were made, for its caption."""
    return "Single edits" if all(run.k == 1 for run in runs) else "Edits, one or k at a time"


def cases(frame: pd.DataFrame, shown: Iterable[str] = columns.MAIN) -> str:
    """How many cases stand behind the metrics that are shown of a frame."""
    names = [f"{name}_n" for name in shown if name in metrics.METRICS and f"{name}_n" in frame]
    counts = {int(n) for n in frame[names].to_numpy(float).ravel() if not np.isnan(n)}
    if not counts:
        return "no cases"
    low, high = min(counts), max(counts)
    return f"{high:,} cases" if low == high else f"{low:,} to {high:,} cases per metric"


def _against_the_original(frame: pd.DataFrame) -> list[str]:
    """What an editor that trains the model itself cost before it made any edit."""
    notes = []
    for kind in ("accuracy", "perplexity"):
        name = f"{kind}_drawdown_original"
        for row in frame.to_dict("records") if name in frame else ():
            if not np.isnan(row[name]):
                cell = _cell(row, name, columns.ALL[name])
                notes.append(
                    f"{row['editor']} trains the model that it edits, and is measured against "
                    f"that; against the original model its {kind} drawdown is {cell.text} "
                    f"{cell.detail}".rstrip()
                    + "."
                )
    return notes


def _flat(summary: Summary) -> dict[str, float]:
    flat = {}
    for name, numbers in summary.items():
        value = _float(numbers.get("value"), np.inf)
        absent = np.inf if np.isinf(value) else np.nan
        flat[name] = value
        flat |= {f"{name}_{end}": _float(numbers.get(end), absent) for end in _ENDS}
    return flat


def _float(number: float | None, absent: float) -> float:
    return absent if number is None else float(number)


def _cell(row: Mapping[str, Any], name: str, column: Column) -> Cell:
    ends = (row.get(f"{name}_low", np.nan), row.get(f"{name}_high", np.nan))
    return columns.value_cell(column, float(row[name]), float(ends[0]), float(ends[1]))


def _published_rows(
    setting: published.Setting, present: Mapping[str, Column], editors: Sequence[str]
) -> list[tuple[Cell, ...]]:
    """The paper's row of each editor that we ran; its own unedited model first."""
    return [
        (
            Cell(text=editor, detail=f"published: {setting.source}, {setting.model}"),
            *(Cell(text=setting.value(editor, name) or DASH) for name in present),
        )
        for editor in ("base", *editors)
        if editor in setting.rows
    ]
