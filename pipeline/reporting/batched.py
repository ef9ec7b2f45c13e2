"""Many edits at once: success and drawdown against k, as in table 5 of the MEND paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from pipeline.reporting import figures, headline, published
from pipeline.reporting.blocks import DASH, Cell, Picture, Table
from pipeline.reporting.inputs import Bench, Material, Run
from pipeline.reporting.lines import Line, Panel, panels
from pipeline.reporting.tables import title


def present(material: Material) -> bool:
    """Whether any run makes more than one edit at once."""
    return any(run.k > 1 and not run.in_turn for run in material.request.runs)


def frame(material: Material) -> pd.DataFrame:
    """Success and drawdown of every editor at every k, with the number of groups of edits."""
    rows = [
        {"bench": run.bench, "editor": editor(run), "k": run.k}
        | headline.flat(material.metrics[run.name])
        | {"groups": material.groups(run)}
        for run in material.request.runs
    ]
    return pd.DataFrame(rows)


def table(material: Material, bench: Bench) -> Table:
    """A row for each k, two columns per editor, the paper's rows below where they may stand.

    Of many editors and few k, a row for each editor.
    """
    runs = {(editor(run), run.k): run for run in material.of(bench.name)}
    editors = list(dict.fromkeys(name for name, _ in runs))
    ks = sorted({k for _, k in runs})
    paper = _published(bench, editors, ks)
    counts = {f"k = {k}": k for k in ks}
    if len(editors) > 2 * len(ks) and not paper:
        corner, across = "Editor", list(counts)
        rows = [
            (Cell(text=name), *(c for k in ks for c in _cells(material, runs.get((name, k)))))
            for name in editors
        ]
    else:
        corner, across = "Edits at once", editors
        rows = [
            (
                Cell(text=text),
                *(c for name in editors for c in _cells(material, runs.get((name, k)))),
            )
            for text, k in counts.items()
        ]
    heads = [f"{name}: {what}" for name in across for what in ("success (↑)", "drawdown (↓)")]
    fitted = (
        "by editors fitted for that k where they learn"
        if _fitted_anew(material, runs.values())
        else "by editors as they are fitted for one edit"
    )
    notes = [
        f"k edits are made together, {fitted}; each case's own probes are then asked of the model "
        "that all k have changed. Intervals draw whole groups of k edits again, and a single "
        "group has none. Probes that another edit of their group is about are left out: where "
        "every one is, a cell is empty."
    ]
    notes += _fewer(material, runs.values())
    return Table(
        header=(corner, *heads),
        rows=(*rows, *paper),
        caption=title(bench.name),
        notes=tuple(notes),
    )


def _fewer(material: Material, runs: Iterable[Run]) -> list[str]:
    """Where drawdown is of far fewer cases than success is."""
    few: dict[int, float] = {}
    for run in runs:
        summary = material.metrics[run.name]
        n = headline.value(summary, headline.drawdown(summary)).n
        if n < headline.value(summary, headline.SUCCESS).n:
            few[run.k] = min(n, few.get(run.k, n))
    if not few:
        return []
    counts = ", ".join(f"{n:,.0f} at k = {k:,}" for k, n in sorted(few.items()))
    return [f"Cases with an unrelated probe left, which drawdown is of: {counts}."]


def _fitted_anew(material: Material, runs: Iterable[Run]) -> bool:
    """Whether an editor that learns learned something else for some number of edits."""
    learned: dict[str, set[str]] = {}
    for run in runs:
        if run.name in material.fits:
            digest = str(material.outcomes[run.name]["editor_hash"].iloc[0])
            learned.setdefault(editor(run), set()).add(digest)
    return any(len(digests) > 1 for digests in learned.values())


def picture(bench: str, found: pd.DataFrame, order: Sequence[str]) -> Picture | None:
    """Success above and drawdown below, against k."""
    own = found[found["bench"] == bench]
    if own["k"].nunique() < 2:
        return None
    groups = {str(name): rows.sort_values("k") for name, rows in own.groupby("editor", sort=False)}
    drawn = [
        Panel(
            label=label,
            lines=tuple(
                Line(
                    name=name,
                    x=rows["k"],
                    y=rows[column],
                    low=rows[f"{column}_low"],
                    high=rows[f"{column}_high"],
                )
                for name, rows in groups.items()
            ),
            share=column == "success",
        )
        for column, label in (
            ("success", "Success (share)"),
            ("drawdown", figures.unit(str(own["drawdown_metric"].iloc[0]))),
        )
    ]
    caption = (
        f"{title(bench)}: success on a rephrasing, and drawdown, against the number of edits made "
        "at once (logarithmic); bands are 95 % intervals over groups of edits."
    )
    axis = "Edits at once (k)"
    return panels(f"batched-{bench}", drawn, axis, caption, order, ticks=sorted(own["k"].unique()))


def editor(run: Run) -> str:
    """The editor and its variant, whatever k."""
    return f"{run.alg}-{run.variant}" if run.variant else run.alg


def _cells(material: Material, run: Run | None) -> tuple[Cell, Cell]:
    if run is None:
        return Cell(text=DASH), Cell(text=DASH)
    return headline.cells(material.metrics[run.name])


def _published(bench: Bench, editors: Sequence[str], ks: Sequence[int]) -> list[tuple[Cell, ...]]:
    rows = []
    for k in ks:
        setting = published.beside(bench.paper, bench.name, "Table 5", k)
        if setting and any(name in setting.rows for name in editors):
            first = Cell(text=f"k = {k}", detail=f"published: {setting.source}, {setting.model}")
            cells = [
                Cell(text=setting.value(name, metric) or DASH)
                for name in editors
                for metric in setting.metrics
            ]
            rows.append((first, *cells))
    return rows
