"""The cache editor's radius: table 11 of the MEND paper, and success and drawdown against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

import pandas as pd

from pipeline.reporting import columns, figures, headline, published
from pipeline.reporting.blocks import DASH, Cell, Picture, Table
from pipeline.reporting.inputs import Bench, Material, Run
from pipeline.reporting.lines import Line, Panel, panels
from pipeline.reporting.tables import title

_RADII, _CHOSEN = ("epsilon", "epsilons", "radii"), ("epsilon_star", "epsilon", "radius")
_HARMS = ("drawdown", "share_of_bystanders_hit", "hit")
_ROWS = {"half": ("½ε*", 0.5, "cache_half"), "": ("ε*", 1.0, "cache"),
         "double": ("2ε*", 2.0, "cache_double")}  # fmt: skip
_HARM_WORDS = {
    "hit": "Unrelated, within ε",
    "share_of_bystanders_hit": "Unrelated, within ε",
}


def curve(notes: Mapping[str, Any]) -> pd.DataFrame:
    """The radii that fitting tried and what came of each: epsilon, success, and the harm there.

    The lists stand under `curve`, or among the notes. Empty where there are none.
    """
    notes = notes["curve"] if isinstance(notes.get("curve"), Mapping) else notes
    tried = next((notes[key] for key in _RADII if isinstance(notes.get(key), list)), None)
    if not tried:
        return pd.DataFrame()
    lists = {
        key: value
        for key, value in notes.items()
        if isinstance(value, list) and len(value) == len(tried) and key not in _RADII
    }
    found = pd.DataFrame({"epsilon": tried} | lists)
    return found.astype(float).sort_values("epsilon", ignore_index=True)


def chosen(notes: Mapping[str, Any]) -> float:
    """ε*, or NaN where the notes do not say."""
    found = next((notes[key] for key in _CHOSEN if isinstance(notes.get(key), int | float)), None)
    return float("nan") if found is None else float(found)


def runs(material: Material, bench: str) -> dict[str, Run]:
    """The cache's runs on a benchmark: "half", "" and "double" of the chosen radius."""
    own = [run for run in material.of(bench) if run.alg == "cache" and run.k == 1]
    found = {_radius(run.variant): run for run in own}
    return {name: found[name] for name in _ROWS if name in found}


def table(material: Material, bench: Bench) -> Table | None:
    """MEND, and the cache at ½ε*, ε* and 2ε*: on validation cases where those were run."""
    own = runs(material, bench.name)
    if not own:
        return None
    notes = next((material.fits[r.name] for r in own.values() if r.name in material.fits), {})
    star = chosen(notes)
    if isnan(star) and len(own) == 1:  # nothing that other tables do not say
        return None
    mend = material.plain(bench.name).get("mend")
    rows: list[tuple[Cell, ...]] = []
    if mend:
        rows.append(
            (Cell(text="mend"), Cell(text=DASH), *headline.cells(material.metrics[mend.name]))
        )
    for name, (word, factor, _) in _ROWS.items():
        radius = Cell(text=columns.number(factor * star))
        if name in own:
            cells = headline.cells(material.metrics[own[name].name])
            rows.append((Cell(text=f"cache, {word}"), radius, *cells))
    rows += _published(bench, own, mend is not None)
    name = columns.ALL[headline.drawdown(material.metrics[next(iter(own.values())).name])].label
    words = "½ε* and 2ε* were not run on validation cases; the figure shows them on training cases."
    return Table(
        header=("Editor", "Radius ε", "Success, rephrasing (↑)", f"{name} (↓)"),
        rows=tuple(rows),
        caption=f"{title(bench.name)}: the cache's radius",
        notes=(
            "ε*: the radius that fitting chose on training cases. A prompt whose mean hidden state "
            "lies nearer than ε to the edit's is answered with the edit.",
            *((words,) if len(own) < len(_ROWS) and not curve(notes).empty else ()),
        ),
    )


def picture(
    bench: str, notes: Mapping[str, Any], order: Sequence[str], metric: str
) -> Picture | None:
    """Success, and harm, against the radius, with ½ε*, ε* and 2ε* marked.

    `metric`: the drawdown that the benchmark is judged by.
    """
    found = curve(notes)
    if found.empty or "success" not in found:
        return None
    harm = next((key for key in _HARMS if key in found), None)
    star = chosen(notes)
    drawn = [_panel("Success (share)", found, "success", share=True)]
    if harm:
        drawn.append(
            _panel(
                _HARM_WORDS.get(harm, figures.unit(metric)), found, harm, share=harm in _HARM_WORDS
            )
        )
    within = (found["epsilon"].min(), found["epsilon"].max())
    marks = [
        (factor * star, word)
        for word, factor, _ in _ROWS.values()
        if within[0] <= factor * star <= within[1]
    ]
    caption = (
        f"{title(bench)}: the cache's success, and what it disturbs, against its radius ε, on "
        "training cases. Dotted: half the chosen radius, the chosen one, and twice that."
    )
    return panels(f"cache-{bench}", drawn, "Radius ε", caption, order, marks=marks)


def _panel(label: str, found: pd.DataFrame, column: str, *, share: bool) -> Panel:
    line = Line(name="cache", x=found["epsilon"], y=found[column])
    return Panel(label=label, lines=(line,), share=share)


def _radius(variant: str) -> str:
    return next((word for word in ("half", "double") if word in variant), variant)


def _published(bench: Bench, own: Mapping[str, Run], with_mend: bool) -> list[tuple[Cell, ...]]:
    setting = published.beside(bench.paper, bench.name, "Table 11")
    if not setting:
        return []
    keys = [("mend", "mend")] if with_mend else []
    keys += [(f"cache, {_ROWS[name][0]}", _ROWS[name][2]) for name in own]
    source = f"published: {setting.source}, {setting.model}"
    return [
        (
            Cell(text=word, detail=source),
            Cell(text=DASH),
            *(Cell(text=setting.value(key, metric) or DASH) for metric in setting.metrics),
        )
        for word, key in keys
        if key in setting.rows
    ]
