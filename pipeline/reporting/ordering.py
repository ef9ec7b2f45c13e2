"""Whether the MEND paper's ordering of editors appears: statements, each with its numbers.

The statements are what table 4 and table 11 of the paper show of its small models, as bounds that
can hold at another scale.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan

import pandas as pd

from pipeline import metrics
from pipeline.errors import DataError
from pipeline.reporting import columns, headline
from pipeline.reporting.blocks import Cell, Paragraph, Table
from pipeline.reporting.inputs import Material, Run
from pipeline.reporting.tables import title

HOLDS, FAILS = "holds", "does not hold here"
_SUCCEED: Sequence[tuple[str, tuple[str, ...], float]] = (
    ("fever", ("mend", "enn", "ke"), 0.9),
    ("zsre", ("mend", "enn", "ke"), 0.9),
    ("wikitext", ("mend", "enn"), 0.75),
    ("fever", ("cache",), 0.9),
    ("zsre", ("cache",), 0.9),
)
_FAIL: Sequence[tuple[str, tuple[str, ...], float]] = (("wikitext", ("cache",), 0.05),)
_ABOVE = (("wikitext", ("mend", "enn"), ("ke", "ft")),)
_SPARES = (("wikitext", "ft_kl", "ft"),)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison: by how much it holds (0 or more), and the interval of that."""

    shown: tuple[str, ...]
    slack: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        return self.slack >= 0

    @property
    def open(self) -> bool:
        """Whether the interval reaches to the other side."""
        return self.low < 0 if self.holds else self.high >= 0


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement about one benchmark; it holds where all its comparisons do."""

    bench: str
    text: str
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks)

    @property
    def open(self) -> bool:
        """Whether the intervals would allow the opposite verdict."""
        if self.holds:
            return any(check.open for check in self.checks)
        return all(check.open for check in self.checks if not check.holds)

    @property
    def shown(self) -> str:
        return ", ".join(dict.fromkeys(text for check in self.checks for text in check.shown))


def claims(material: Material) -> list[Claim]:
    """Every statement about editors that were run; those that were not are left out of it."""
    return [*_bounds(material), *_rankings(material)]


def summary(found: Sequence[Claim]) -> Paragraph:
    """In words: whether the ordering appears, and where it does not."""
    lost = [claim for claim in found if not claim.holds]
    held = len(found) - len(lost)
    if not lost:
        how = f"appears at this scale: all {held} statements below that could be checked hold"
    elif held:
        how = f"appears in part at this scale: {held} of {len(found)} statements below hold"
    else:
        how = f"does not appear at this scale: none of {len(found)} statements below holds"
    text = f"The paper's ordering of editors {how}."
    if lost:
        where = "; ".join(f"on {title(c.bench)}, {c.text} (here {c.shown})" for c in lost)
        text += f" What does not hold: {where}."
    doubt = sum(claim.open for claim in found)
    if doubt:
        text += f" The intervals leave {doubt} of the {len(found)} verdicts open."
    return Paragraph(text=text)


def table(found: Sequence[Claim]) -> tuple[pd.DataFrame, Table]:
    """Each statement with its numbers and the verdict."""
    rows = [
        {
            "bench": claim.bench,
            "statement": claim.text,
            "here": claim.shown,
            "verdict": HOLDS if claim.holds else FAILS,
            "intervals": "leave it open" if claim.open else "confirm it",
        }
        for claim in found
    ]
    frame = pd.DataFrame(rows)
    cells = [
        (
            Cell(text=title(str(row["bench"]))),
            Cell(text=str(row["statement"])),
            Cell(text=str(row["here"])),
            Cell(text=str(row["verdict"])),
            Cell(text=str(row["intervals"])),
        )
        for row in rows
    ]
    return frame, Table(
        header=("Benchmark", "As in the paper", "Here", "Verdict", "Intervals"),
        rows=tuple(cells),
        notes=(
            "Success is on a rephrasing. A verdict goes by the values; the intervals confirm it "
            "where they lie on the same side, those of a comparison being paired over cases. "
            "Editors that were not run are left out of a statement.",
        ),
        look="facts",
    )


def _bounds(material: Material) -> Iterator[Claim]:
    """Success at least, or below, a bound."""
    for least, rules in ((True, _SUCCEED), (False, _FAIL)):
        for bench, editors, bound in rules:
            runs = {
                alg: run
                for alg, run in _found(material, bench, editors).items()
                if headline.SUCCESS in material.metrics[run.name]
            }
            if not runs:
                continue
            words = (
                f"{'reach' if len(runs) > 1 else 'reaches'} at least" if least else "stays under"
            )
            yield Claim(
                bench=bench,
                text=f"{_and(list(runs))} {words} {bound:g} success",
                checks=tuple(_bound(material, run, bound, least) for run in runs.values()),
            )


def _bound(material: Material, run: Run, bound: float, least: bool) -> Check:
    found = headline.value(material.metrics[run.name], headline.SUCCESS)
    ends = [(end - bound) if least else (bound - end) for end in (found.low, found.high)]
    slack = found.value - bound if least else bound - found.value
    shown = (f"{run.alg} {columns.number(found.value)}",)
    if not least and slack == 0:
        slack = -1e-9  # under means under
    return Check(shown=shown, slack=slack, low=min(ends), high=max(ends))


def _rankings(material: Material) -> Iterator[Claim]:
    """One editor against another, over the same cases."""
    for bench, better, worse in _ABOVE:
        above, below = (_found(material, bench, names) for names in (better, worse))
        pairs = itertools.product(above.values(), below.values())
        tried = [_pair(material, a, b, headline.SUCCESS) for a, b in pairs]
        checks = tuple(check for check in tried if check)
        if checks:
            words = "succeed" if len(above) > 1 else "succeeds"
            yield Claim(
                bench=bench,
                text=f"{_and(list(above))} {words} more often than {_and(list(below))}",
                checks=checks,
            )
    for bench, better_one, worse_one in _SPARES:
        runs = _found(material, bench, (better_one, worse_one))
        if len(runs) == 2:
            name = headline.drawdown(material.metrics[runs[worse_one].name])
            check = _pair(material, runs[worse_one], runs[better_one], name)
            if check:
                text = f"{better_one} has less drawdown than {worse_one}"
                yield Claim(bench=bench, text=text, checks=(check,))


def _pair(material: Material, more: Run, less: Run, metric: str) -> Check | None:
    """Whether one run has more of something than another."""
    values = [headline.value(material.metrics[run.name], metric).value for run in (more, less)]
    outcomes = [material.outcomes[run.name] for run in (more, less)]
    try:
        numbers = metrics.compare(outcomes[0], outcomes[1], metric, material.request.seed)
    except DataError:
        return None  # scored on different cases, or not on this: nothing can be paired
    named = zip((more, less), values, strict=True)
    shown = tuple(f"{run.alg} {columns.number(value)}" for run, value in named)
    slack, low, high = (float(numbers[key] or 0.0) for key in ("difference", "low", "high"))
    if isnan(slack):  # both are infinite
        return None
    return Check(shown=shown, slack=slack if slack else -1e-9, low=low, high=high)


def _found(material: Material, bench: str, editors: Sequence[str]) -> Mapping[str, Run]:
    plain = material.plain(bench)
    return {alg: plain[alg] for alg in editors if alg in plain}


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
