"""Editor against editor over the same cases, resampled together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline import metrics
from pipeline.errors import DataError
from pipeline.reporting import columns
from pipeline.reporting.blocks import DASH, Cell, Table
from pipeline.reporting.inputs import Material, Run
from pipeline.reporting.tables import title

METRICS = ("edit_success_rephrase", "accuracy_drawdown", "perplexity_drawdown", "S")
_COLUMNS = ["bench", "a", "b", "metric", "difference", "low", "high", "n"]


def pairs(material: Material) -> tuple[pd.DataFrame, Table]:
    """Differences with intervals: a row for two editors, a column for each metric."""
    rows: list[dict[str, Any]] = []
    for bench in material.request.benches:
        for a, b in _opponents(material, bench.name):
            for metric in METRICS:
                numbers = _difference(material, a, b, metric)
                if numbers:
                    who = {"bench": bench.name, "a": a.label, "b": b.label}
                    rows.append(who | {"metric": metric} | numbers)
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    shown = [metric for metric in METRICS if metric in set(frame["metric"])]
    found = {(r["bench"], r["a"], r["b"], r["metric"]): r for r in frame.to_dict("records")}
    cells = [
        (
            Cell(text=title(bench)),
            Cell(text=f"{a} less {b}"),
            *(_cell(found.get((bench, a, b, metric))) for metric in shown),
        )
        for bench, a, b in dict.fromkeys(key[:3] for key in found)
    ]
    table = Table(
        header=("Benchmark", "Editors", *(columns.ALL[metric].label for metric in shown)),
        rows=tuple(cells),
        caption="Paired differences, with 95 % intervals",
        look="facts",
    )
    return frame, table


def _opponents(material: Material, bench: str) -> list[tuple[Run, Run]]:
    """Whom to compare, among runs with equally many edits at once.

    Variants with their editor as it is; all pairs of up to three editors; of more, each against the
    most successful.
    """
    found: list[tuple[Run, Run]] = []
    runs = material.of(bench)
    for k in dict.fromkeys(run.k for run in runs):
        group = [run for run in runs if run.k == k]
        whole = {run.alg: run for run in group if not run.variant}
        found += [(run, whole[run.alg]) for run in group if run.variant and run.alg in whole]
        plain = list(whole.values())
        if len(plain) <= 3:
            found += [(b, a) for a, b in itertools.combinations(plain, 2)]
        else:
            best = max(plain, key=lambda run: _success(material, run))
            found += [(best, run) for run in plain if run is not best]
    return found


def _success(material: Material, run: Run) -> float:
    value = material.metrics[run.name].get("edit_success_rephrase", {}).get("value")
    return -math.inf if value is None else value


def _difference(material: Material, a: Run, b: Run, metric: str) -> metrics.Numbers:
    if not all(metric in material.metrics[run.name] for run in (a, b)):
        return {}
    try:
        return metrics.compare(
            material.outcomes[a.name], material.outcomes[b.name], metric, material.request.seed
        )
    except DataError:
        return {}  # scored on different cases: nothing can be paired


def _cell(row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return Cell(text=DASH)
    column = columns.ALL[row["metric"]]
    cell = columns.value_cell(column, row["difference"], row["low"], row["high"])
    return Cell(text=cell.text, detail=f"{cell.detail} {_reading(row)}".strip())


def _reading(row: Mapping[str, Any]) -> str:
    if math.isnan(row["low"]) and math.isfinite(row["difference"]):
        return "no interval: a single group of edits"
    if not row["low"] <= row["high"] or row["low"] <= 0 <= row["high"]:
        return "no difference shown"
    lower_is_better = columns.ALL[row["metric"]].better == "lower"
    winner = row["b"] if (row["low"] > 0) == lower_is_better else row["a"]
    return f"{winner} is better"
