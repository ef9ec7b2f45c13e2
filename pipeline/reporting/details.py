"""What stands around the main tables: base models, chosen settings, data.

Each function returns a frame of plain values, for CSV, and the block that shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.reporting import columns
from pipeline.reporting.blocks import DASH, Cell, Table
from pipeline.reporting.inputs import Material
from pipeline.reporting.tables import title
from pipeline.reporting.words import leaves, text, words

Shown = tuple[pd.DataFrame, Table]

_BASE = {
    "kind": "Kind",
    "source": "Source",
    "parameters": "Parameters",
    "taught": "Facts or texts taught",
    "exact_taught": "Exact, taught",
    "exact_heldout": "Exact, held out",
    "majority_baseline": "Majority class",
    "perplexity_heldout": "Perplexity, held out",
    "sampler_agreement": "Sampler agrees",
}


# What other tables show of fitting's notes, or nobody reads.
_ELSEWHERE = frozenset({"parameters", "seconds", "fit_seconds", "peak_rss_mb", "curve", "seed"})


def base_frame(material: Material) -> pd.DataFrame:
    """The base models' own quality, a row per benchmark."""
    rows = [
        {"bench": bench.name, "sampler_agreement": _agreement(material, bench.name)}
        | {key: value for key, value in material.base[bench.name].items() if key in _BASE}
        for bench in material.request.benches
    ]
    return pd.DataFrame(rows, columns=["bench", *_BASE])


def base_table(frame: pd.DataFrame) -> Table:
    """How well each base model knows what it was taught, before anything is edited."""
    shown = [key for key in _BASE if frame[key].notna().any()]
    rows = [
        (Cell(text=title(str(row["bench"]))), *(_quality(key, row[key]) for key in shown))
        for row in frame.to_dict("records")
    ]
    return Table(
        header=("Benchmark", *(_BASE[key] for key in shown)),
        rows=tuple(rows),
        caption="The unedited models",
        notes=(
            "Exact: the whole target is the likeliest continuation, token by token, on what the "
            "model was taught and on what was held out. Majority class: the share of the "
            "commonest label among the taught claims. Sampler agrees: how often the "
            "model that wrote the edits' targets and the edited model continue alike.",
            "A dash: the benchmark has no such measure.",
        ),
    )


def choices(material: Material) -> Table | None:
    """What fitting chose, on training cases only: values tried, and what came of each."""
    rows = []
    for run in material.request.runs:
        notes = material.fits.get(run.name, {})
        # Lists are what an editor keeps to work with (FT+KL's examples), not what it chose.
        notes = {key: value for key, value in notes.items() if not isinstance(value, list)}
        notes = {key: value for key, value in notes.items() if key not in _ELSEWHERE}
        tried = {key: value for key, value in notes.items() if "_by_" in key}
        chosen = {key: value for key, value in notes.items() if key not in tried}
        costs = material.metrics[run.name]
        steps, stopped = (
            costs.get(name, {}).get("value") or 0.0 for name in ("steps_mean", "stopped_early")
        )
        if notes:
            cells = (
                "; ".join(f"{words(key)}: {_span(value)}" for key, value in chosen.items()),
                "; ".join(_attempts(key, value) for key, value in tried.items()) or DASH,
                DASH if steps <= run.k and not stopped else f"{100 * stopped:.1f} %",
            )
            rows.append((Cell(text=run.name), *(Cell(text=cell) for cell in cells)))
    if not rows:
        return None
    return Table(
        header=("Run", "Chosen", "Tried on training cases", "Edits that stopped early"),
        rows=tuple(rows),
        notes=(
            "An edit stops early once its own target is the likeliest answer. Tried, of a rate: "
            "the share of training cases whose edits did so in time. A try ends as soon as it is "
            "settled whether the share is enough, so an accepted rate has at least what stands "
            "here, and a rejected one at most. The last column: the share of the edits that were "
            "scored; of edits made together or in turn (k, t), the share of groups whose every "
            "edit did. A dash: one step, or nothing to try.",
        ),
        look="facts",
    )


def data(material: Material) -> Shown:
    """What each benchmark kept, dropped and checked."""
    rows = []
    for bench in material.request.benches:
        card, audit = material.cards[bench.name], material.audits[bench.name]
        parts = (
            ("source", {"source": card.get("source", "")}),
            ("kept", card.get("counts", {})),
            ("dropped", card.get("dropped", {})),
            ("audit", {key: value for key, value in audit.items() if key != "bench"}),
        )
        rows += [
            {"bench": bench.name, "part": part, "what": what, "value": value}
            for part, mapping in parts
            for what, value in leaves(mapping)
        ]
    frame = pd.DataFrame(rows, columns=["bench", "part", "what", "value"]).astype(str)
    cells = []
    for bench in material.request.benches:
        own = frame[frame["bench"] == bench.name]
        texts = [
            "; ".join(
                row["value"] if part == "source" else f"{words(row['what'])}: {row['value']}"
                for row in own[own["part"] == part].to_dict("records")
            )
            for part in ("source", "kept", "dropped", "audit")
        ]
        cells.append((Cell(text=title(bench.name)), *(Cell(text=text or DASH) for text in texts)))
    table = Table(
        header=("Benchmark", "Source", "Kept", "Dropped, and why", "Audit"),
        rows=tuple(cells),
        caption="Data",
        look="texts",
    )
    return frame, table


def kept_probes(material: Material, bench: str) -> list[str]:
    """Which locality probes are asked: a note, where the others were left out."""
    notes = material.audits[bench].get("labels", {})
    if not notes.get("probes"):
        return []
    share = columns.number(100 * notes["probes_right"] / notes["probes"], 1)
    return [
        "Locality probes are those that the base model gets exactly right before any edit: "
        f"{notes['probes_right']:,} of {notes['probes']:,} ({share} %)."
    ]


def _quality(key: str, value: Any) -> Cell:
    if key in ("kind", "source"):
        return Cell(text=text(value))
    decimals = {"parameters": 0, "taught": 0, "perplexity_heldout": 1}.get(key, 3)
    return Cell(text=columns.number(float("nan" if value is None else value), decimals))


def _agreement(material: Material, bench: str) -> float | None:
    """How often the model that wrote the targets continues as the base does (label stage)."""
    value = material.audits[bench].get("labels", {}).get("sampler_agreement")
    return None if value is None else float(value)


def _attempts(key: str, results: Mapping[str, float]) -> str:
    """ "share_reached_by_rate" and its values -> "rate 0.001: share reached 0.96, ..." """
    what, _, setting = key.partition("_by_")
    return ", ".join(
        f"{words(setting)} {value}: {words(what)} {text(result)}"
        for value, result in sorted(results.items(), key=lambda item: float(item[0]))
    )


def _span(value: Any) -> str:
    """Many numbers as their range."""
    if isinstance(value, Mapping) and len(value) > 3:
        low, high = min(value.values()), max(value.values())
        return f"{text(low)} to {text(high)} in {len(value)} places"
    return text(value)
