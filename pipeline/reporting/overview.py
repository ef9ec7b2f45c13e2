"""All editors on all benchmarks in one table, as in table 4 of the MEND paper."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from pipeline import metrics
from pipeline.reporting import columns, headline, published
from pipeline.reporting.blocks import DASH, Cell, Table
from pipeline.reporting.inputs import Material
from pipeline.reporting.tables import UNEDITED, title

_COLUMNS = (
    "editor", "bench", "success", "success_low", "success_high", "drawdown", "drawdown_low",
    "drawdown_high", "drawdown_original", "success_n", "drawdown_n", "drawdown_metric",
)  # fmt: skip
Shown = tuple[pd.DataFrame, Table]


def overview(material: Material) -> Shown:
    """Success and drawdown of every editor and variant, a column per benchmark."""
    benches = [b for b in material.request.benches if material.of(b.name)]
    rows: list[Mapping[str, object]] = [_before(material, bench.name) for bench in benches]
    for run in material.request.runs:
        summary = material.metrics[run.name]
        original = headline.value(summary, f"{headline.drawdown(summary)}_original").value
        rows.append(
            {"editor": run.label, "bench": run.bench, "drawdown_original": original}
            | headline.flat(summary)
        )
    frame = pd.DataFrame(rows, columns=list(_COLUMNS))
    return frame, table(frame, _published(material))


def table(frame: pd.DataFrame, beside: tuple[tuple[Cell, ...], ...] = ()) -> Table:
    """The table of such a frame, as it was made or as its CSV gives it back."""
    benches = list(dict.fromkeys(frame["bench"]))
    found = {(row["editor"], row["bench"]): row for row in frame.to_dict("records")}
    rows = [
        (Cell(text=str(editor)), *(_cell(found.get((editor, bench))) for bench in benches))
        for editor in dict.fromkeys(frame["editor"])
    ]
    return Table(
        header=("Editor", *(title(str(bench)) for bench in benches)),
        rows=(*rows, *beside),
        caption="Edit success on a rephrasing (↑) / drawdown (↓)",
        notes=tuple(_notes(frame)),
    )


def _before(material: Material, bench: str) -> Mapping[str, object]:
    """The base model: right by chance, or because the edit asks for what it knows (FEVER)."""
    run = material.untouched(bench)
    before = metrics.unedited(material.outcomes[run.name], material.request.seed)
    known = {headline.SUCCESS: before[headline.SUCCESS]} if headline.SUCCESS in before else {}
    name = headline.drawdown(material.metrics[run.name])
    return {"editor": UNEDITED, "bench": bench} | headline.flat(known) | {"drawdown_metric": name}


def _cell(row: dict[str, float] | None) -> Cell:
    if row is None or (pd.isna(row["success"]) and pd.isna(row["drawdown"])):
        return Cell(text=DASH)
    texts, details = [], []
    for name, metric in (("success", headline.SUCCESS), ("drawdown", str(row["drawdown_metric"]))):
        ends = (row[f"{name}_low"], row[f"{name}_high"])
        cell = columns.value_cell(columns.ALL[metric], row[name], *ends)
        texts.append(cell.text)
        details += [cell.detail] if cell.detail else []
    return Cell(text=" / ".join(texts), detail=" / ".join(details))


def _notes(frame: pd.DataFrame) -> list[str]:
    harm = {
        words: [title(str(b)) for b in dict.fromkeys(frame["bench"][frame["drawdown_metric"] == m])]
        for m, words in (("accuracy_drawdown", "accuracy"), ("perplexity_drawdown", "perplexity"))
    }
    parts = [f"of {words} on {', '.join(names)}" for words, names in harm.items() if names]
    notes = [
        f"Drawdown: {'; '.join(parts)}. Both columns with 95 % intervals over cases. The unedited "
        "model's success is what an editor that does nothing would score."
    ]
    if not pd.Series(frame["drawdown_original"]).isna().all():
        changed = frame[frame["drawdown_original"].notna()]
        against = [
            f"{row['editor']} on {title(row['bench'])} "
            + columns.number(row["drawdown_original"], 3)
            for row in changed.to_dict("records")
        ]
        notes.append(
            "An editor that trains the model itself is measured against that trained model; "
            f"against the original its drawdown is: {', '.join(against)}."
        )
    return notes


def _published(material: Material) -> tuple[tuple[Cell, ...], ...]:
    """The papers' rows, where a suite rebuilds their setting."""
    benches = [b for b in material.request.benches if material.of(b.name)]
    settings = [published.setting(b.paper, b.name) if b.paper else None for b in benches]
    rows = []
    for editor in material.labels():
        found = [(s.both(editor) if s else None) for s in settings]
        if any(found):
            sources = dict.fromkeys(s.source for s, text in zip(settings, found, strict=True)
                                    if s and text)  # fmt: skip
            cells = (Cell(text=text or DASH) for text in found)
            rows.append((Cell(text=editor, detail=f"published: {'; '.join(sources)}"), *cells))
    return tuple(rows)
