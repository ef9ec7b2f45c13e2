"""Seconds and memory: of each run, of fitting, and of the whole study."""

from __future__ import annotations

from math import isnan, nan
from pathlib import Path

import pandas as pd

from pipeline import metrics
from pipeline.reporting import columns
from pipeline.reporting.blocks import DASH, Cell, Table
from pipeline.reporting.inputs import Material
from pipeline.reporting.properties import fit_seconds, note
from pipeline.reporting.tables import title
from pipeline.reporting.words import text

Shown = tuple[pd.DataFrame, Table]
_BASE, _TOTAL = "base model", "total"
_MEASURED = {
    "seconds_per_edit": "Seconds per edit",
    "scoring_seconds_per_edit": "Scoring, seconds per edit",
    "steps_mean": "Steps",
    "stopped_early": "Stopped early",
    "peak_rss_mb": "Peak memory, MB",
}


def timings(material: Material) -> Shown:
    """Seconds, steps and memory of each run."""
    rows = []
    for run in material.request.runs:
        times = material.timings[run.name]
        summary = metrics.costs(times)
        rows.append(
            {"run": run.name, "edits": int(times["n_cases"].sum())}
            | {name: summary[name]["value"] if name in summary else None for name in _MEASURED}
            | {
                "fit_seconds": fit_seconds(material, run),
                "fit_peak_rss_mb": note(material, run, "peak_rss_mb"),
            }
        )
    named = _MEASURED | {"fit_seconds": "Fitting, seconds", "fit_peak_rss_mb": "Fitting, peak MB"}
    frame = pd.DataFrame(rows, columns=["run", "edits", *named])
    shown = [name for name in named if frame[name].notna().any()]
    cells = [
        (Cell(text=str(row["run"])), *(Cell(text=text(row[key])) for key in ("edits", *shown)))
        for row in frame.to_dict("records")
    ]
    table = Table(
        header=("Run", "Edits", *(named[name] for name in shown)),
        rows=tuple(cells),
        caption="Costs on the machine that ran this",
        notes=(
            "Steps of one edit, and the share of edits that stopped early; of edits made together "
            "or in turn (k, t), all of a group's steps, and the share of groups whose every edit "
            "did. "
            "A dash: the editor takes no steps, learns nothing by steps, or it was not recorded. "
            "Peak memory is the whole process's, model and libraries included.",
        ),
    )
    return frame, table


def whole(material: Material) -> Shown:
    """Where the time went: the base model, then fitting and evaluating each editor."""
    benches = [bench.name for bench in material.request.benches if material.of(bench.name)]
    rows = [
        {"what": _BASE, "bench": bench, "stage": "train", "seconds": _base(material, bench)}
        for bench in benches
    ]
    counted: set[Path] = set()  # runs may share what was fitted
    for run in material.request.runs:
        times = material.timings[run.name]
        spent = float((times["edit_seconds"] + times["score_seconds"]).sum())
        stages = {"fit": fit_seconds(material, run), "evaluate": spent}
        if run.fit is not None:
            if run.fit in counted:
                stages.pop("fit")
            counted.add(run.fit)
        for stage, seconds in stages.items():
            rows.append({"what": run.label, "bench": run.bench, "stage": stage, "seconds": seconds})
    frame = pd.DataFrame(rows).dropna(subset=["seconds"], ignore_index=True)
    cells = [
        (
            Cell(text=str(what)),
            *(_spent(frame[(frame["what"] == what) & (frame["bench"] == b)]) for b in benches),
            _spent(frame[frame["what"] == what]),
        )
        for what in dict.fromkeys(frame["what"])
    ]
    sums = (_spent(frame[frame["bench"] == bench], split=False) for bench in benches)
    cells.append((Cell(text=_TOTAL), *sums, _spent(frame, split=False)))
    table = Table(
        header=("", *(title(bench) for bench in benches), "All"),
        rows=tuple(cells),
        caption="Where the time went, in seconds",
        notes=(
            "Training the base model, fitting each editor, and evaluating it: its edits and their "
            "scoring. Wall clock inside the stages, without starting them and loading models; data "
            "and labels are not in it, nor fitting that recorded no time. What several runs "
            "share is counted at the first.",
        ),
    )
    return frame, table


def memory(material: Material) -> Shown | None:
    """Peak memory while fitting, editors by benchmarks; None where nothing was recorded."""
    peaks = {
        (run.label, run.bench): peak
        for run in material.request.runs
        if not isnan(peak := note(material, run, "peak_rss_mb"))
    }
    if not peaks:
        return None
    rows = [(*who, peak) for who, peak in peaks.items()]
    frame = pd.DataFrame(rows, columns=["editor", "bench", "fit_peak_rss_mb"])
    benches = [b.name for b in material.request.benches if b.name in set(frame["bench"])]
    cells = [
        (
            Cell(text=str(editor)),
            *(Cell(text=columns.number(peaks.get((editor, b), nan), 0)) for b in benches),
        )
        for editor in dict.fromkeys(frame["editor"])
    ]
    return frame, Table(
        header=("Editor", *(title(bench) for bench in benches)),
        rows=tuple(cells),
        caption="Peak memory while fitting, MB",
        notes=(
            "Of the whole process, model and libraries included. A dash: the editor was not fitted "
            "there, or its memory was not recorded.",
        ),
    )


def _base(material: Material, bench: str) -> float:
    found = material.base[bench].get("seconds")
    return float(found) if isinstance(found, int | float) else nan


def _spent(rows: pd.DataFrame, *, split: bool = True) -> Cell:
    """Seconds, and in smaller type what of it was fitting and what evaluating."""
    if rows.empty:
        return Cell(text=DASH)
    stages = rows.groupby("stage", sort=False)["seconds"].sum()
    detail = ", ".join(f"{stage} {columns.number(value, 1)}" for stage, value in stages.items())
    return Cell(
        text=columns.number(float(rows["seconds"].sum()), 1),
        detail=detail if split and len(stages) > 1 else "",
    )
