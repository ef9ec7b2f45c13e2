"""Many facts written at once: MEMIT's main tables, its scaling curves, and scores by relation.

Every number is of the runs' own outcome rows. Where several groups of n edits were made, intervals
draw whole groups; where one group is all, they draw its cases, given that one joint edit, as the
paper's do.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline import metrics
from pipeline.metrics import Summary
from pipeline.reporting import columns, headline, published
from pipeline.reporting.batched import editor
from pipeline.reporting.blocks import DASH, Cell, Picture, Table
from pipeline.reporting.inputs import Bench, Material, Run
from pipeline.reporting.lines import Line, Panel, panels
from pipeline.reporting.tables import UNEDITED, title
from pipeline.studies import RELATIONS

FACTS = ("S", "ES", "PS", "NS", "GE", "RS")
TOKENS = tuple(columns.OTHER)  # zsRE of a language model: score, efficacy, paraphrase, specificity
_DRAWN = 4
_LEAST = 5  # cases of a relation that has a row of its own
# A likelier answer need not be the likeliest one: how many edits say it.
_EXACT = ("edit_success_edit", "edit_success_rephrase")
_TICKS = 9


def shown(material: Material, bench: str) -> tuple[str, ...]:
    """What MEMIT's tables show of a benchmark: likelihood scores, or shares of tokens of zsRE."""
    return TOKENS if material.by_tokens(bench) else FACTS


def runs(material: Material, bench: str) -> list[Run]:
    """The runs that have these scores, if any of them makes more than one edit at once."""
    score = shown(material, bench)[0]
    own = [run for run in material.of(bench) if score in material.metrics[run.name]]
    return own if any(run.k > 1 and not run.in_turn for run in own) else []


def frame(material: Material, bench: str) -> pd.DataFrame:
    """Each editor's scores at each n: bench, editor, n, groups, then SCORE, _low, _high, _n."""
    rows = []
    for run in runs(material, bench):
        names = shown(material, bench)
        groups = material.groups(run)
        summary = _scores(material, run) if groups == 1 else material.metrics[run.name]
        row: dict[str, object] = {"bench": bench, "editor": editor(run), "n": run.k}
        row |= {"groups": groups}
        for name in (*names, *_EXACT, "seconds_per_edit"):
            found = headline.value(summary, name)
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
            row |= {f"{name}_n": found.n}
        rows.append(row)
    return pd.DataFrame(rows)


def _scores(material: Material, run: Run) -> Summary:
    """A single group's scores, with intervals over its cases."""
    cases = material.outcomes[run.name].assign(k=1)
    return metrics.summarise(cases, material.timings[run.name], material.request.seed)


def table(material: Material, bench: Bench, found: pd.DataFrame) -> Table:
    """The scores of every editor at the largest n that it was run with, as in MEMIT's table."""
    before = metrics.unedited(
        material.outcomes[material.untouched(bench.name).name], material.request.seed
    )
    scores = (*shown(material, bench.name), *_EXACT)
    largest = found.loc[found.groupby("editor", sort=False)["n"].idxmax()]
    rows = [
        (
            Cell(text=UNEDITED),
            Cell(text=DASH),
            *(headline.value(before, name).cell(name) for name in scores),
            Cell(text=DASH),
        )
    ]
    names = (*scores, "seconds_per_edit")
    for row in largest.to_dict("records"):
        cells = (
            columns.value_cell(columns.ALL[n], row[n], row[f"{n}_low"], row[f"{n}_high"])
            for n in names
        )
        rows.append((Cell(text=str(row["editor"])), Cell(text=f"{row['n']:,}"), *cells))
    rows += _published(bench, list(largest["editor"]), scores)
    head = [columns.ALL[name].label + (" (↓)" if name not in scores else " (↑)") for name in names]
    return Table(
        header=("Editor", "Edits at once", *head),
        rows=tuple(rows),
        caption=f"{title(bench.name)}: every editor at its largest number of edits at once",
        notes=(*_notes(largest), *_of_relations(material, bench.name)),
    )


def _notes(largest: pd.DataFrame) -> list[str]:
    notes: list[str] = []
    alone = [str(name) for name in largest["editor"][(largest["groups"] == 1) & (largest["n"] > 1)]]
    if alone:
        notes.append(
            f"{', '.join(alone)}: one group of edits, so the intervals draw its cases, given that "
            "one joint edit; other intervals draw whole groups."
        )
    notes += _kept(largest)
    if "GE" not in largest:
        return notes
    if largest["GE"].notna().any():
        counts = sorted({int(n) for n in largest["GE_n"].dropna()})
        notes.append(
            "GE and RS are of the cases that write texts "
            f"({' to '.join(f'{n:,}' for n in dict.fromkeys((counts[0], counts[-1])))})."
        )
    else:
        notes.append(f"GE and RS: {DASH} because no texts were written.")
    if largest["GE"].notna().any() and largest["RS"].isna().all():
        notes.append(f"RS: {DASH} because the cases come without reference texts.")
    return notes


def _kept(largest: pd.DataFrame) -> list[str]:
    """How many cases have a probe left that no other edit of their group is about."""
    name = "NS" if "NS" in largest else TOKENS[-1]
    few = largest[largest[f"{name}_n"] < largest[f"{_EXACT[0]}_n"]]
    if few.empty:
        return []
    counts = few.groupby(f"{name}_n", sort=False)["editor"].agg(", ".join)
    told = "; ".join(f"{n:,.0f} ({editors})" for n, editors in counts.items())
    return [
        f"{columns.ALL[name].label} (and the harmonic mean with it) is of fewer cases: {told}. Of "
        "the others every probe is what another edit of their group is about."
    ]


def _of_relations(material: Material, bench: str) -> list[str]:
    called = tuple(RELATIONS.values())
    if not any(run.variant.endswith(called) for run in runs(material, bench)):
        return []
    return [
        f"{', '.join(called)}: a group's edits are of one relation, or of two in equal shares. "
        "What fills no group is left out, so fewer cases are scored; else edits are of any."
    ]


def _published(
    bench: Bench, editors: Sequence[str], scores: Sequence[str]
) -> list[tuple[Cell, ...]]:
    """The paper's rows, where the suite rebuilds its setting; numbers of others compare nothing."""
    if bench.paper is None:
        return []
    setting = published.setting(bench.paper, bench.name)
    return [
        (
            Cell(text=name, detail=f"published: {setting.source}, {setting.model}"),
            Cell(text=DASH, detail=setting.data),
            *(Cell(text=setting.value(name, metric) or DASH) for metric in scores),
            Cell(text=DASH),
        )
        for name in ("base", *editors)
        if name in setting.rows
    ]


def picture(bench: str, found: pd.DataFrame, order: Sequence[str]) -> Picture | None:
    """The first four scores against the number of edits made at once, a line per editor."""
    if found["n"].nunique() < 2:
        return None
    lines = {str(name): rows.sort_values("n") for name, rows in found.groupby("editor", sort=False)}
    names = [name for name in found if name in (*FACTS[:_DRAWN], *TOKENS)]
    words = "efficacy (ES), paraphrase (PS), neighbourhood (NS) and their harmonic mean S"
    if TOKENS[0] in names:
        words = "efficacy, paraphrase, specificity (shares of tokens) and their harmonic mean"
    drawn = [
        Panel(
            label=f"{columns.ALL[score].label} (share)",
            lines=tuple(
                Line(
                    name=name,
                    x=rows["n"],
                    y=rows[score],
                    low=rows[f"{score}_low"],
                    high=rows[f"{score}_high"],
                )
                for name, rows in lines.items()
            ),
            share=True,
        )
        for score in names
    ]
    ticks = sorted(found["n"].unique())
    caption = (
        f"{title(bench)}: {words} against the number of edits made at once (logarithmic); bands "
        "are 95 % intervals."
    )
    few = ticks[:: -(-len(ticks) // _TICKS)]
    return panels(f"scaling-{bench}", drawn, "Edits at once (n)", caption, order, ticks=few)


def by_relation(material: Material, bench: str, found: pd.DataFrame) -> pd.DataFrame:
    """S of each relation's cases at each editor's largest n: editor, n, relation, cases, S, ends.

    Empty where the rows do not say their relation, or have no likelihoods to compare.
    """
    if "S" not in found:
        return pd.DataFrame()
    largest = found.groupby("editor")["n"].max()
    rows = []
    for run in runs(material, bench):
        outcomes = material.outcomes[run.name]
        if run.k != largest[editor(run)] or "relation" not in outcomes:
            continue
        for relation, own in outcomes[outcomes["relation"] != ""].groupby("relation"):
            times = material.timings[run.name]
            summary = metrics.summarise(own.assign(k=1), times, material.request.seed)
            score = headline.value(summary, "S")
            if not score.n >= _LEAST:
                continue
            rows.append(
                {"editor": editor(run), "n": run.k, "relation": str(relation),
                 "cases": int(score.n), "S": score.value, "S_low": score.low, "S_high": score.high}
            )  # fmt: skip
    return pd.DataFrame(rows)


def relations(bench: str, found: pd.DataFrame) -> Table:
    """S by relation, a column per editor."""
    editors = list(dict.fromkeys(found["editor"]))
    at = found.set_index(["relation", "editor"])
    counts = found.groupby("relation")["cases"].max().sort_values(ascending=False, kind="stable")
    rows = []
    for relation, cases in counts.items():
        cells = []
        for name in editors:
            if (relation, name) not in at.index or pd.isna(at.loc[(relation, name), "S"]):
                cells.append(Cell(text=DASH))
                continue
            row = at.loc[(relation, name)]
            column = columns.ALL["S"]
            cells.append(columns.value_cell(column, row["S"], row["S_low"], row["S_high"]))
        rows.append((Cell(text=str(relation)), Cell(text=f"{cases:,}"), *cells))
    return Table(
        header=("Relation", "Cases", *(f"{name}: S (↑)" for name in editors)),
        rows=tuple(rows),
        caption=f"{title(bench)}: S by relation",
        notes=(
            f"Relations with at least {_LEAST} cases that have an edit, a paraphrase and a "
            "neighbour left to ask, at each editor's largest number of edits at once; intervals "
            "over cases; the count is the largest of any editor. A dash: there are fewer.",
        ),
    )
