"""The two numbers an editor is judged by: success on a rephrasing, and drawdown."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from math import inf, nan

from pipeline.metrics import Summary
from pipeline.reporting import columns
from pipeline.reporting.blocks import Cell

SUCCESS = "edit_success_rephrase"


@dataclass(frozen=True, kw_only=True)
class Value:
    """A metric with its interval; NaN where it was not measured or has no interval."""

    value: float
    low: float
    high: float
    n: float

    def cell(self, name: str) -> Cell:
        """As a table prints it."""
        return columns.value_cell(columns.ALL[name], self.value, self.low, self.high)


def drawdown(summary: Container[str]) -> str:
    """The drawdown that a benchmark is judged by: perplexity where it has passages."""
    return "perplexity_drawdown" if "perplexity_drawdown" in summary else "accuracy_drawdown"


def value(summary: Summary, name: str) -> Value:
    """A metric of a run's summary, with infinity where JSON had to say null."""
    numbers = summary.get(name)
    if numbers is None:
        return Value(value=nan, low=nan, high=nan, n=nan)
    number = inf if numbers.get("value") is None else float(numbers["value"] or 0.0)
    absent = inf if number == inf else nan
    ends = {
        key: absent if numbers.get(key) is None else float(numbers[key] or 0.0)
        for key in ("low", "high", "n")
    }
    return Value(value=number, **ends)


def flat(summary: Summary) -> dict[str, float | str]:
    """Success and drawdown as plain values, for CSV."""
    name = drawdown(summary)
    row: dict[str, float | str] = {"drawdown_metric": name}
    for column, metric in (("success", SUCCESS), ("drawdown", name)):
        found = value(summary, metric)
        row |= {column: found.value, f"{column}_low": found.low, f"{column}_high": found.high}
        row |= {f"{column}_n": found.n}
    return row


def cells(summary: Summary) -> tuple[Cell, Cell]:
    """Success and drawdown, each with its interval."""
    name = drawdown(summary)
    return value(summary, SUCCESS).cell(SUCCESS), value(summary, name).cell(name)
