"""What a report is written from: a composed list of runs, and the tables that they left on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import DataError
from pipeline.metrics import Summary, measured_original
from pipeline.storage import read_json
from pipeline.tables import read_frame

OUTCOMES, TIMINGS = "outcomes.parquet", "timings.parquet"
# The papers' order of editors, and of MEND's variants; what is not named follows as it was given.
EDITORS = (
    *("ft", "ft_kl", "enn", "ke", "mend", "cache", "malmen"),
    *("ft_l", "ft_w", "rome", "memit"),
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One editor on one benchmark.

    Attributes:
        name: the run's key, such as "zsre-mend".
        folder: where `outcomes.parquet` and `timings.parquet` lie.
        metrics: JSON, metric -> {"value", "low", "high", "n"}.
        curve: the learning curve of `fit`, for editors that learn.
        fit: JSON of what `fit` chose, name -> value. A name such as `share_reached_by_rate` maps
            what was tried to what came of it.
        variant: what was changed about the editor ("no_norm", "attention"), or about the groups of
            edits ("one_relation", "two_relations"); "" for nothing.
        protocol: how edits were applied before they were scored.
        k: edits made at once, or in turn.
    """

    name: str
    bench: str
    alg: str
    folder: Path
    metrics: Path
    curve: Path | None = None
    fit: Path | None = None
    variant: str = ""
    protocol: str = "single"
    k: int = 1

    @property
    def label(self) -> str:
        """What tells the run from the others on its benchmark: "mend", "mend-no_norm", "ke-k25"."""
        many = f"{'t' if self.in_turn else 'k'}{self.k}" if self.k > 1 else ""
        return "-".join(part for part in (self.alg, self.variant, many) if part)

    @property
    def in_turn(self) -> bool:
        """Whether its edits were made one after another."""
        return self.protocol == "sequential"

    @property
    def plain(self) -> bool:
        """Whether this is the editor as it is, one edit at a time."""
        return not self.variant and self.k == 1


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One benchmark: its base model's quality, its data card, its audit, all JSON.

    `paper` is the key of a published setting that this suite rebuilds (see `published`), or None;
    `moments` is of the second moments that some editors read.
    """

    name: str
    base: Path
    card: Path
    audit: Path
    paper: str | None = None
    moments: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A pair of benchmark and editor that was left out, and why."""

    bench: str
    alg: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A setting of this record that is not what the default composition gives."""

    setting: str
    default: object
    value: object


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Causal tracing of one benchmark's base model: `facts.parquet`, `states.parquet` and
    `trace.json` in a folder.

    `layers`: by editor that names the blocks it edits, those blocks in words.
    """

    bench: str
    folder: Path
    layers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TraceTables:
    """The same, read."""

    facts: pd.DataFrame
    states: pd.DataFrame
    notes: Mapping[str, Any]
    layers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Request:
    """All that a report is about, in the order in which it is to be shown.

    `split` names the cases that were scored.
    """

    suite: str
    study: str
    seed: int
    benches: tuple[Bench, ...]
    runs: tuple[Run, ...]
    skipped: tuple[Skipped, ...] = ()
    differences: tuple[Difference, ...] = ()
    split: str = "validation"
    traces: tuple[Trace, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Material:
    """The tables of a request, read: by benchmark name, or by run name."""

    request: Request
    base: Mapping[str, Mapping[str, Any]]
    cards: Mapping[str, Mapping[str, Any]]
    audits: Mapping[str, Mapping[str, Any]]
    outcomes: Mapping[str, pd.DataFrame]
    timings: Mapping[str, pd.DataFrame]
    metrics: Mapping[str, Summary]
    curves: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    fits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    traces: Mapping[str, TraceTables] = field(default_factory=dict)
    moments: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def of(self, bench: str) -> Sequence[Run]:
        """The runs on one benchmark, in order."""
        return [run for run in self.request.runs if run.bench == bench]

    def plain(self, bench: str) -> Mapping[str, Run]:
        """The editors as they are, one edit at a time, by name."""
        return {run.alg: run for run in self.of(bench) if run.plain}

    def labels(self) -> Sequence[str]:
        """All editors and their variants, in order."""
        return list(dict.fromkeys(run.label for run in self.request.runs))

    def adapts(self, run: Run) -> bool:
        """Whether the editor changed the model before any edit: then it was measured as well."""
        return measured_original(self.outcomes[run.name])

    def groups(self, run: Run) -> int:
        """How many groups of edits made at once were scored."""
        return int(self.outcomes[run.name]["case_id"].nunique()) // run.k

    def by_tokens(self, bench: str) -> bool:
        """Whether this is zsRE of a language model, which its papers score by shares of tokens."""
        return bench.startswith("zsre") and self.base[bench]["kind"] == "causal"

    def untouched(self, bench: str) -> Run:
        """The run whose unedited model is the base itself, if there is one; else the first."""
        runs = self.of(bench)
        return next((run for run in runs if not self.adapts(run)), runs[0])


def read(request: Request) -> Material:
    """Read every file that a request names.

    Raises:
        DataError: a file is missing or broken, or a run belongs to no benchmark of the request.
    """
    known = [bench.name for bench in request.benches]
    for run in request.runs:
        if run.bench not in known:
            raise DataError(
                expected=f"run {run.name} on one of {', '.join(known)}",
                found=repr(run.bench),
                remedy="Pass the benchmark to the report along with its runs.",
            )
    request = replace(request, runs=_in_order(request.runs, known))
    curves = {run.name: read_frame(run.curve) for run in request.runs if run.curve}
    return Material(
        request=request,
        base={bench.name: read_json(bench.base) for bench in request.benches},
        cards={bench.name: read_json(bench.card) for bench in request.benches},
        audits={bench.name: read_json(bench.audit) for bench in request.benches},
        outcomes={run.name: read_frame(run.folder / OUTCOMES) for run in request.runs},
        timings={run.name: read_frame(run.folder / TIMINGS) for run in request.runs},
        metrics={run.name: read_json(run.metrics) for run in request.runs},
        curves={name: curve for name, curve in curves.items() if not curve.empty},
        fits={run.name: read_json(run.fit) for run in request.runs if run.fit},
        traces={trace.bench: _read_trace(trace) for trace in request.traces},
        moments={
            bench.name: pd.DataFrame(read_json(bench.moments)["curve"])
            for bench in request.benches
            if bench.moments
        },
    )


def _read_trace(trace: Trace) -> TraceTables:
    return TraceTables(
        facts=read_frame(trace.folder / "facts.parquet"),
        states=read_frame(trace.folder / "states.parquet"),
        notes=read_json(trace.folder / "trace.json"),
        layers=trace.layers,
    )


def _in_order(runs: Sequence[Run], benches: Sequence[str]) -> tuple[Run, ...]:
    """By benchmark, editor and number of edits; variants as they were given."""

    def place(run: Run) -> tuple[int, int, int]:
        known = run.alg in EDITORS
        return benches.index(run.bench), EDITORS.index(run.alg) if known else len(EDITORS), run.k

    return tuple(sorted(runs, key=place))
