"""Benchmarks as a table on the screen, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.clock import Outcome, Timing
from benchmarks.growth import Line, saturation
from benchmarks.memory import Peak
from pipeline.storage import write_aside

_SAME = ("device", "threads", "torch", "dtype", "size")
_KEPT = ("name", "what", "unit", "goal", "difference", "notes")
_HEAD = (
    "what",
    "ours, per second",
    "plain, per second",
    "ratio (processor time)",
    "ratio (clock)",
    "goal",
    "largest difference",
    "peak MB, ours / plain",
    "runs",
    "load",
)


def table(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """A row for each contest; rates are of medians, in processor time on a processor."""
    return [_HEAD, *(_row(outcome) for outcome in outcomes)]


def _row(outcome: Outcome) -> tuple[str, ...]:
    ours, plain = outcome.ours, outcome.plain
    goal = "" if outcome.goal is None else f"≥ {outcome.goal:g}×"
    if outcome.goal and outcome.cpu_ratio is not None:
        goal += " met" if outcome.cpu_ratio >= outcome.goal else " missed"
    return (
        outcome.what,
        f"{1 / ours.cpu_each:.3g} {outcome.unit}",
        f"{1 / plain.cpu_each:.3g} {outcome.unit}" if plain else "–",
        "–" if outcome.cpu_ratio is None else f"{outcome.cpu_ratio:.1f}×",
        "–" if outcome.ratio is None else f"{outcome.ratio:.1f}×",
        goal or "–",
        "–" if outcome.difference is None else f"{outcome.difference:.0e}",
        f"{ours.peak_mb:.0f} / " + (f"{plain.peak_mb:.0f}" if plain else "–"),
        str(len(ours.wall)),
        str(outcome.notes.get("load", "–")),
    )


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table for the screen."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table for a file."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


class Report:
    """What was measured so far at one size on one device; written anew after every part."""

    def __init__(self, path: Path, title: str, about: Mapping[str, Any]) -> None:
        self.path, self.title, self.about = path, title, dict(about)
        self.outcomes: list[Outcome] = []
        self.peaks: list[Peak] = []
        self.lines: list[Line] = []
        self.by_size: list[Peak] = []
        self.bounds: list[dict[str, Any]] = []

    def beside(self, name: str) -> Path:
        """Where a figure of this report lies."""
        return self.path.with_name(f"{self.path.name}-{name}")

    def resume(self) -> None:
        """Take up what an earlier run on the same hardware and software found."""
        path = self.path.with_suffix(".json")
        if not path.is_file():
            return
        found = json.loads(path.read_text(encoding="utf-8"))
        if any(found.get(name) != self.about.get(name) for name in _SAME):
            return
        for contest in found["contests"]:
            ours, plain = Timing(**contest["ours"]), contest["plain"]
            self.outcomes.append(
                Outcome(
                    **{name: contest[name] for name in _KEPT},
                    ours=ours,
                    plain=Timing(**plain) if plain else None,
                )
            )
        self.peaks, self.by_size = (
            [
                Peak(**{n: v for n, v in peak.items() if n != "budget_mb"})
                for peak in found.get(part, [])
            ]
            for part in ("memory", "memory_by_size")
        )
        self.bounds = found["bounds"]
        self.lines = [
            Line(line["what"], line["axis"], tuple(line["values"]), tuple(line["seconds"]))
            for line in found["growth"]
        ]

    def add(self, outcome: Outcome) -> None:
        """Put a contest in the place of an earlier one, or at the end."""
        names = [earlier.name for earlier in self.outcomes]
        if outcome.name in names:
            self.outcomes[names.index(outcome.name)] = outcome
        else:
            self.outcomes.append(outcome)

    def write(self) -> None:
        """Both files, each at once."""
        write_aside(
            self.path.with_suffix(".md"),
            lambda part: part.write_text(self.markdown(), encoding="utf-8"),
        )
        text = json.dumps(self.plain(), indent=1, ensure_ascii=False) + "\n"
        write_aside(
            self.path.with_suffix(".json"), lambda part: part.write_text(text, encoding="utf-8")
        )

    def plain(self) -> dict[str, Any]:
        """All numbers."""
        return {
            **self.about,
            "contests": [
                {**asdict(o), "ratio": o.ratio, "cpu_ratio": o.cpu_ratio} for o in self.outcomes
            ],
            "memory": [{**asdict(p), "budget_mb": p.budget_mb} for p in self.peaks],
            "memory_by_size": [asdict(peak) for peak in self.by_size],
            "bounds": self.bounds,
            "growth": [{**asdict(line), "exponent": line.exponent} for line in self.lines],
        }

    def markdown(self) -> str:
        """For people."""
        parts = [f"# {self.title}\n"]
        parts += [f"- {name.replace('_', ' ')}: {value}" for name, value in self.about.items()]
        if self.outcomes:
            parts += ["\n## Against one at a time\n", as_markdown(table(self.outcomes)), _LEGEND]
        parts += self._bounds() + self._memory() + self._by_size() + self._growth()
        return "\n".join(parts) + "\n"

    def _bounds(self) -> list[str]:
        if not self.bounds:
            return []
        rows = [("training step", "Gflops", "Gflops a second", "seconds at that rate", "measured")]
        rows += [
            (
                bound["name"],
                f"{bound['flops'] / 1e9:.0f}",
                f"{bound['rate'] / 1e9:.0f}",
                f"{bound['seconds']:.2f}",
                f"{bound['measured']:.2f} ({bound['measured'] / bound['seconds']:.1f}×)",
            )
            for bound in self.bounds
        ]
        return ["\n## Against the bound of its matrix products\n", as_markdown(rows)]

    def _memory(self) -> list[str]:
        if not self.peaks:
            return []
        rows = [("training", "peak MB over the model", "budget", "parameters", "activations")]
        rows += [
            (
                peak.name,
                f"{peak.peak_mb:.0f}",
                f"{peak.budget_mb:.0f} {'met' if peak.peak_mb <= peak.budget_mb else 'missed'}",
                f"{peak.parameters_mb:.0f}",
                f"{peak.activations_mb:.0f}",
            )
            for peak in self.peaks
        ]
        return ["\n## Memory\n", as_markdown(rows)]

    def _by_size(self) -> list[str]:
        if not self.by_size:
            return []
        names = list(dict.fromkeys(peak.name for peak in self.by_size))
        models = list(dict.fromkeys(peak.model_parameters for peak in self.by_size))
        taken = {(peak.name, peak.model_parameters): peak.peak_mb for peak in self.by_size}
        rows = [("the edited model", *(f"{name}, peak MB over it" for name in names))]
        rows += [
            (
                f"{model / 1e6:.3g} million parameters",
                *(f"{taken[name, model]:.0f}" for name in names),
            )
            for model in models
        ]
        picture = f"\n![Memory]({self.beside('memory.svg').name})"
        return ["\n## Memory of training by the model's size\n", as_markdown(rows), picture]

    def _growth(self) -> list[str]:
        if not self.lines:
            return []
        rows = [("what", "by", "from", "to", "exponent of the time")]
        rows += [
            (
                line.what,
                line.axis,
                f"{line.values[0]}: {line.seconds[0]:.3g} s",
                f"{line.values[-1]}: {line.seconds[-1]:.3g} s",
                f"{line.exponent:.2f}",
            )
            for line in self.lines
        ]
        picture = f"\n![Growth]({self.beside('growth.svg').name})"
        return ["\n## Growth\n", as_markdown(rows), f"\n{reach(self.lines[-1])}", picture]


def reach(line: Line) -> str:
    """How throughput grows with rows, in words."""
    exponent, rows = saturation(line)
    grows = "" if math.isnan(exponent) else f"; it grows as rows to the power of {exponent:.2f}"
    return (
        "Throughput of scoring, an edit and a prompt a row, reaches half of its best at "
        f"{rows} rows{grows}{' up to there' if grows else ''}."
    )


_LEGEND = (
    "\nMedians of runs in turns, in one process. Rates are items a second of processor time "
    "(of the clock on a GPU); ratios in processor time are robust to what else runs, absolute "
    "times are not. The largest difference is that of any result of the two sides, relative to "
    "the result's largest value, found before anything was timed; of FT, z vectors and ROME, whose "
    "steps make rounding large, it is found in float64."
)
