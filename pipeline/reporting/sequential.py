"""Edits made in turn, as in tables 2 and 10 of the MEND paper: what the last costs the first."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline import metrics
from pipeline.reporting import columns, examples, figures, headline
from pipeline.reporting.batched import editor
from pipeline.reporting.blocks import Cell, Picture, Table
from pipeline.reporting.inputs import Bench, Material, Run
from pipeline.reporting.lines import Line, Panel, panels
from pipeline.reporting.tables import title


def runs(material: Material, bench: str) -> list[Run]:
    """The runs of edits in turn, and those of a single edit beside them; or none."""
    own = [run for run in material.of(bench) if run.in_turn or run.k == 1]
    return own if any(run.in_turn for run in own) else []


def frame(material: Material, bench: str) -> pd.DataFrame:
    """By editor and number of edits: success of all, of the first, of the last, and drawdown."""
    rows = []
    for run in runs(material, bench):
        row: dict[str, object] = {"bench": bench, "editor": editor(run), "edits": run.k}
        row |= headline.flat(material.metrics[run.name])
        for name, step in (("first", 1), ("last", run.k)):
            found = headline.value(_of_step(material, run, step), headline.SUCCESS)
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


def _of_step(material: Material, run: Run, step: int) -> metrics.Summary:
    """Metrics of the cases that were edited at one place in their sequences."""
    outcomes = material.outcomes[run.name]
    own = outcomes[outcomes["step"] == step] if run.in_turn else outcomes
    return metrics.summarise(own.assign(k=1), material.timings[run.name], material.request.seed)


def table(bench: Bench, found: pd.DataFrame) -> Table:
    """A row for each number of edits, three columns for each editor."""
    editors = list(dict.fromkeys(found["editor"]))
    at = found.set_index(["editor", "edits"])
    rows = []
    for edits in sorted(found["edits"].unique()):
        cells = [Cell(text=f"{edits:,}")]
        for name in editors:
            row = at.loc[(name, edits)]
            metric = str(row["drawdown_metric"])
            shown = (("first", headline.SUCCESS), ("last", headline.SUCCESS), ("drawdown", metric))
            cells += [
                columns.value_cell(columns.ALL[m], row[c], row[f"{c}_low"], row[f"{c}_high"])
                for c, m in shown
            ]
        rows.append(tuple(cells))
    what = ("first (↑)", "last (↑)", "drawdown (↓)")
    return Table(
        header=("Edits in turn", *(f"{name}: {w}" for name in editors for w in what)),
        rows=tuple(rows),
        caption=f"{title(bench.name)}: edits made in turn",
        notes=(
            "Each edit is made on the model as those before it left it, and all are judged when "
            "the last is made. First, last: success on a rephrasing of the first and of the last "
            "edit of a sequence. Intervals draw whole sequences, and a single one has none.",
        ),
    )


def picture(bench: str, found: pd.DataFrame, order: Sequence[str]) -> Picture | None:
    """Success of the first edit above and drawdown below, against the number of edits."""
    if found["edits"].nunique() < 2:
        return None
    lines = {
        str(name): rows.sort_values("edits") for name, rows in found.groupby("editor", sort=False)
    }
    unit = figures.unit(str(found["drawdown_metric"].iloc[0]))
    drawn = [
        Panel(
            label=label,
            lines=tuple(
                Line(
                    name=name,
                    x=rows["edits"],
                    y=rows[column],
                    low=rows[f"{column}_low"],
                    high=rows[f"{column}_high"],
                )
                for name, rows in lines.items()
            ),
            share=column == "first",
        )
        for column, label in (("first", "First edit holds (share)"), ("drawdown", unit))
    ]
    caption = (
        f"{title(bench)}: whether the first edit still holds on a rephrasing, and drawdown, "
        "against the number of edits made in turn (logarithmic); bands are 95 % intervals."
    )
    ticks = sorted(found["edits"].unique())
    return panels(f"sequence-{bench}", drawn, "Edits in turn", caption, order, ticks=ticks)


def pairs(material: Material, bench: str) -> list[Table]:
    """Two edits in turn that a reader can look at, chosen by the rules of other examples."""
    outcomes = {
        editor(run): material.outcomes[run.name]
        for run in runs(material, bench)
        if run.in_turn and run.k == 2
    }
    if not outcomes:
        return []
    first = next(iter(outcomes.values()))
    cases = first.drop_duplicates("case_id").set_index("case_id")["step"]
    ids = [str(case) for case in cases.index]
    shown = []
    for case, rule in examples.choose(outcomes):
        at = ids.index(case) - (int(cases[case]) - 1)
        for place, name in ((at, "first"), (at + 1, "second")):
            chosen = f"{rule}: " if ids[place] == case else ""
            text = f"{chosen}the {name} of two edits in turn"
            shown.append(examples.table(outcomes, ids[place], text[0].upper() + text[1:]))
    return shown
