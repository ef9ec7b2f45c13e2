"""What it takes to use each editor, measured where it can be: table 1 of the MEND paper."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import isnan
from typing import Any

import pandas as pd

from pipeline.reporting import columns, headline
from pipeline.reporting.blocks import DASH, Cell, Table
from pipeline.reporting.inputs import Material, Run
from pipeline.reporting.words import text

Shown = tuple[pd.DataFrame, Table]
# What an editor asks for at the moment of the edit, beside the prompt and its target.
_SUBJECT = "the subject's place in the prompt, and the model's second moments"
_NEEDS_MORE: Mapping[str, str] = {
    "ft_kl": "unrelated examples, fresh ones at every step",
    "rome": _SUBJECT,
    "memit": _SUBJECT,
}
_HEAD = {
    "preserves": "Leaves the model as it is",
    "pair_only": "Needs the edit pair alone",
    "at_once": "Takes several edits at once",
    "steps": "Steps per edit",
    "seconds": "Seconds per edit",
    "memory_mb": "Memory over the leanest, MB",
    "parameters": "Trained parameters",
    "fit_seconds": "Fitting, seconds",
    "fit_memory_mb": "Memory while fitting, MB",
}
_NUMBERS = tuple(_HEAD)[3:]


def properties(material: Material) -> Shown:
    """One row per editor; a range is over the benchmarks."""
    runs: dict[str, list[Run]] = {}
    for run in material.request.runs:
        runs.setdefault(run.alg, []).append(run)
    rows = [_row(material, alg, own) for alg, own in runs.items()]
    ends = [f"{name}_{end}" for name in _NUMBERS for end in ("low", "high")]
    frame = pd.DataFrame(rows, columns=["editor", "preserves", "pair_only", "at_once", *ends])
    shown = [name for name in _HEAD if _told(frame, name)]
    cells = [
        (Cell(text=str(row["editor"])), *(_cell(row, name) for name in shown))
        for row in frame.to_dict("records")
    ]
    notes = [
        "Leaves the model as it is: no, where the editor trains the model that it edits; then the "
        "runs hold measures of the original model too. Needs the edit pair alone: at the moment of "
        "the edit; before it, an editor with seconds of fitting has learned, or had a setting "
        "chosen, on training cases. Takes several edits at once: every editor here makes any "
        "number of them as one; how success and drawdown bear it is the study `batched`'s to say. "
        "A range is over the benchmarks; a dash: the editor learns nothing by steps, or it was "
        "not recorded.",
        "Memory over the leanest: peak memory of the evaluating process less the least that any "
        "editor took on the same benchmark. Seconds per edit: of many made side by side.",
    ]
    return frame, Table(
        header=("Editor", *(_HEAD[name] for name in shown)),
        rows=tuple(cells),
        caption="Properties of the editors, as measured",
        notes=tuple(notes),
        look="facts",
    )


def fit_seconds(material: Material, run: Run) -> float:
    """How long fitting took: from its notes, or the last second of its learning curve; or NaN."""
    notes, curve = material.fits.get(run.name, {}), material.curves.get(run.name)
    for key in ("seconds", "fit_seconds"):
        if isinstance(notes.get(key), int | float):
            return float(notes[key])
    return float("nan") if curve is None else float(curve["seconds"].max())


def fit_steps(material: Material, run: Run) -> float:
    """The last training step of the learning curve, or NaN."""
    curve = material.curves.get(run.name)
    return float("nan") if curve is None else float(curve["step"].max())


def note(material: Material, run: Run, key: str) -> float:
    """A number among what fitting noted, or NaN."""
    found = material.fits.get(run.name, {}).get(key)
    return float(found) if isinstance(found, int | float) else float("nan")


def _row(material: Material, alg: str, runs: list[Run]) -> dict[str, Any]:
    plain = [run for run in runs if run.plain] or runs

    def cost(name: str) -> list[float]:
        return [headline.value(material.metrics[run.name], name).value for run in plain]

    row: dict[str, Any] = {
        "editor": alg,
        "preserves": "no" if any(material.adapts(run) for run in runs) else "yes",
        "pair_only": f"no: {_NEEDS_MORE[alg]}" if alg in _NEEDS_MORE else "yes",
        "at_once": _at_once(max((run.k for run in runs if not run.in_turn), default=1)),
    }
    measured: Mapping[str, Iterable[float]] = {
        "steps": cost("steps_mean"),
        "seconds": cost("seconds_per_edit"),
        "memory_mb": [_above_leanest(material, run) for run in plain],
        "parameters": _each(plain, lambda run: note(material, run, "parameters")),
        "fit_seconds": _each(plain, lambda run: fit_seconds(material, run)),
        "fit_memory_mb": _each(plain, lambda run: note(material, run, "peak_rss_mb")),
    }
    for name, numbers in measured.items():
        known = [number for number in numbers if not isnan(number)]
        row[f"{name}_low"], row[f"{name}_high"] = (
            (min(known), max(known)) if known else (float("nan"),) * 2
        )
    return row


def _each(runs: Iterable[Run], measure: Callable[[Run], float]) -> list[float]:
    return [measure(run) for run in runs]


def _above_leanest(material: Material, run: Run) -> float:
    others = [
        other.name
        for other in material.of(run.bench)
        if (other.k, other.in_turn) == (run.k, run.in_turn)
    ]
    peaks = {name: headline.value(material.metrics[name], "peak_rss_mb").value for name in others}
    return peaks[run.name] - min(peaks.values())


def _at_once(most: int) -> str:
    return f"yes: up to {most} here" if most > 1 else "yes"


def _told(frame: pd.DataFrame, name: str) -> bool:
    return name not in _NUMBERS or bool(frame[f"{name}_high"].notna().any())


def _cell(row: Mapping[str, Any], name: str) -> Cell:
    if name not in _NUMBERS:
        return Cell(text=text(row[name]))
    low, high = (_number(row[f"{name}_{end}"], name) for end in ("low", "high"))
    return Cell(text=low if low == high else f"{low} to {high}")


def _number(value: float, name: str) -> str:
    if isnan(value):
        return DASH
    return columns.number(value, {"steps": 1, "seconds": 4}.get(name, 0))
