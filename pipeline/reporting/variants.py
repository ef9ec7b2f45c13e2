"""Variants of an editor: ablations as in table 6 of the MEND paper, places as in its table 9."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from pipeline.reporting import columns, headline, published
from pipeline.reporting.blocks import DASH, Cell, Table
from pipeline.reporting.inputs import Bench, Material, Run
from pipeline.reporting.properties import fit_seconds, fit_steps, note
from pipeline.reporting.tables import title

PLACES = ("mlp", "attention")
RADII = ("half", "double")
HARD = "hard"
# In the paper's order, which ends with the editor as it is; then ours.
_ABLATIONS = (
    "no_sharing",
    "no_norm",
    "no_id_init",
    "no_id_init_residual",
    "only_u",
    "only_delta",
    "only_smaller",
    "whitened",
)
_BUDGET = {
    "parameters": "Trained parameters",
    "steps": "Training steps",
    "seconds": "Training, seconds",
}


def place(run: Run) -> str:
    """The matrices a run edits: "mlp", unless its variant says otherwise."""
    return run.variant or "mlp"


def ablated(material: Material, bench: str) -> list[Run]:
    """The variants on a benchmark, the editor as it is after its own; [] where there are none."""
    runs = [run for run in material.of(bench) if run.k == 1]
    others = [
        run
        for run in runs
        if run.variant and not set(run.variant.split("_")) & {*PLACES, *RADII, HARD}
    ]
    algs = {run.alg for run in others}
    whole = [run for run in runs if run.alg in algs and not run.variant]

    def order(run: Run) -> tuple[str, bool, int]:
        known = run.variant in _ABLATIONS
        at = _ABLATIONS.index(run.variant) if known else len(_ABLATIONS)
        return run.alg, not run.variant, at

    return sorted([*others, *whole], key=order) if others else []


def taken_apart(runs: Sequence[Run]) -> bool:
    """Whether each variant changes one part of the editor, as far as we know them."""
    return {run.variant for run in runs if run.variant} <= set(_ABLATIONS)


def hardened(material: Material) -> list[Run]:
    """Runs of editors that were also trained on hard neighbours, and these; [] for none."""
    runs = [run for run in material.request.runs if run.k == 1 and run.variant in ("", HARD)]
    both = {(run.bench, run.alg) for run in runs if run.variant == HARD}
    return [run for run in runs if (run.bench, run.alg) in both]


def hard(material: Material, bench: Bench, runs: Sequence[Run]) -> Table:
    """Success, and what it cost ever nearer to the edit, a row per run on one benchmark."""
    names = (headline.SUCCESS, "accuracy_drawdown", "neighbour_drawdown", "hard_neighbour_drawdown")
    rows = [
        (
            Cell(text=run.label),
            *(headline.value(material.metrics[run.name], name).cell(name) for name in names),
        )
        for run in runs
        if run.bench == bench.name
    ]
    heads = [
        f"{columns.ALL[name].label} ({'↑' if i == 0 else '↓'})" for i, name in enumerate(names)
    ]
    return Table(header=("Editor", *heads), rows=tuple(rows), caption=title(bench.name))


def placed(material: Material) -> list[Run]:
    """Runs of editors that were tried in more than one place; [] where none was."""
    runs = [run for run in material.request.runs if run.k == 1 and place(run) in PLACES]
    places: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        places.setdefault((run.bench, run.alg), set()).add(place(run))
    return [run for run in runs if len(places[run.bench, run.alg]) > 1]


def frame(material: Material, runs: Sequence[Run]) -> pd.DataFrame:
    """Success, drawdown and what training took, a row per run."""
    rows: list[dict[str, Any]] = [
        {"bench": run.bench, "editor": run.alg, "variant": run.variant}
        | headline.flat(material.metrics[run.name])
        | {
            "parameters": note(material, run, "parameters"),
            "steps": fit_steps(material, run),
            "seconds": fit_seconds(material, run),
        }
        for run in runs
    ]
    return pd.DataFrame(rows)


def ablations(material: Material, bench: Bench, found: pd.DataFrame) -> Table:
    """A row per variant of one benchmark, the paper's below where they may stand."""
    own = found[found["bench"] == bench.name].to_dict("records")
    shown = [name for name in _BUDGET if any(pd.notna(row[name]) for row in own)]
    runs = {(run.alg, run.variant): run for run in material.of(bench.name) if run.k == 1}
    rows = []
    for row in own:
        run = runs[row["editor"], row["variant"]]
        budget = (Cell(text=columns.number(float(row[name]), 0)) for name in shown)
        rows.append((Cell(text=run.label), *headline.cells(material.metrics[run.name]), *budget))
    setting = published.beside(bench.paper, bench.name, "Table 6")
    if setting:
        for row in own:
            variant = str(row["variant"] or row["editor"])
            if variant in setting.rows:
                values = (Cell(text=setting.value(variant, m) or DASH) for m in setting.metrics)
                first = Cell(text=variant, detail=f"published: {setting.source}, {setting.model}")
                rows.append((first, *values, *(Cell(text=DASH) for _ in shown)))
    name = columns.ALL[str(own[0]["drawdown_metric"])].label
    return Table(
        header=(
            "Variant", "Success, rephrasing (↑)", f"{name} (↓)", *(_BUDGET[key] for key in shown)
        ),
        rows=tuple(rows),
        caption=title(bench.name),
    )  # fmt: skip


def places(material: Material, runs: Sequence[Run]) -> Table:
    """MLP against attention: a row per benchmark and editor, the paper's below each."""
    found = {(run.bench, run.alg, place(run)): run for run in runs}
    papers = {bench.name: bench.paper for bench in material.request.benches}
    rows = []
    for bench, alg in dict.fromkeys((run.bench, run.alg) for run in runs):
        cells = (
            cell
            for where in PLACES
            for cell in headline.cells(material.metrics[found[bench, alg, where].name])
        )
        rows.append((Cell(text=f"{title(bench)}, {alg}"), *cells))
        setting = published.beside(papers[bench], bench, "Table 9")
        if setting and alg == "mend":
            first = Cell(
                text=f"{title(bench)}, {alg}",
                detail=f"published: {setting.source}, {setting.model}",
            )
            printed = (
                Cell(text=setting.value(where, metric) or DASH)
                for where in PLACES
                for metric in setting.metrics
            )
            rows.append((first, *printed))
    names = {"mlp": "MLP", "attention": "Attention"}
    heads = [f"{names[w]}: {what}" for w in PLACES for what in ("success (↑)", "drawdown (↓)")]
    return Table(
        header=("Benchmark, editor", *heads),
        rows=tuple(rows),
        caption="The same blocks, edited in their MLP or in their attention",
        notes=(
            "Success on a rephrasing. Drawdown: of perplexity on Wikitext, of accuracy elsewhere.",
        ),
    )
