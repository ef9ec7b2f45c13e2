"""Where a report's numbers come from: hashes, files, changed settings, what was left out."""

from __future__ import annotations

import pandas as pd

from pipeline.reporting.blocks import Cell, Table
from pipeline.reporting.inputs import Material
from pipeline.reporting.tables import title
from pipeline.reporting.words import text

_HASHES = ("base_hash", "editor_hash", "cases_hash", "seed")


def identities(material: Material) -> tuple[pd.DataFrame, Table]:
    """What exactly was edited and scored, as a frame and as a table of SHA-256 sums."""
    rows = []
    for run in material.request.runs:
        outcomes = material.outcomes[run.name]
        found = {key: outcomes[key].iloc[0] for key in _HASHES if key in outcomes}
        rows.append({"run": run.name} | found)
    frame = pd.DataFrame(rows, columns=["run", *_HASHES])
    cells = [
        (Cell(text=str(row["run"])), *(Cell(text=text(row[key])[:12]) for key in _HASHES))
        for row in frame.to_dict("records")
    ]
    head = ("Run", "Base model", "Editor", "Cases", "Seed")
    caption = "SHA-256, first twelve digits (in full in tables/hashes.csv)"
    return frame, Table(header=head, rows=tuple(cells), caption=caption, look="facts")


def files(material: Material) -> Table | None:
    """The raw files that the data came from, by name and hash."""
    rows = [
        (Cell(text=title(bench.name)), Cell(text=str(name)), Cell(text=str(digest)[:12]))
        for bench in material.request.benches
        for name, digest in sorted(material.cards[bench.name].get("files", {}).items())
    ]
    if not rows:
        return None
    return Table(
        header=("Benchmark", "File", "SHA-256"), rows=tuple(rows), caption="Files", look="facts"
    )


def differences(material: Material) -> Table | None:
    """Settings of this record that the default composition does not give."""
    rows = [
        (Cell(text=item.setting), Cell(text=text(item.default)), Cell(text=text(item.value)))
        for item in material.request.differences
    ]
    head = ("Setting", "By default", "Here")
    return Table(header=head, rows=tuple(rows), look="facts") if rows else None


def skipped(material: Material) -> Table | None:
    """Pairs of benchmark and editor without numbers, with the reason."""
    rows = [
        (Cell(text=title(item.bench)), Cell(text=item.alg), Cell(text=item.reason))
        for item in material.request.skipped
    ]
    head = ("Benchmark", "Editor", "Why")
    return Table(header=head, rows=tuple(rows), look="facts") if rows else None


def covered(material: Material) -> str:
    """What was run, where nothing of it was left out."""
    benches = [bench.name for bench in material.request.benches]
    pairs = {(run.bench, run.alg) for run in material.request.runs}
    editors = dict.fromkeys(run.alg for run in material.request.runs)
    if not pairs:
        return "The study edits nothing."
    if pairs >= {(bench, editor) for bench in benches for editor in editors}:
        return "Every editor was run on every benchmark."
    ran = [
        f"{title(bench)}: {', '.join(alg for alg in editors if (bench, alg) in pairs)}"
        for bench in benches
        if any(bench == on for on, _ in pairs)
    ]
    return f"The study's plan is {'; '.join(ran)}. Nothing of it was left out."
