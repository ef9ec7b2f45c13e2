"""Figures of lines over one axis: a panel per measure, bands for intervals, a colour per editor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline.reporting import figures
from pipeline.reporting.blocks import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Line:
    """Values along x, with the ends of their intervals where they have any."""

    name: str
    x: pd.Series
    y: pd.Series
    low: pd.Series | None = None
    high: pd.Series | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Lines that share a y axis; `share` for values between 0 and 1."""

    label: str
    lines: tuple[Line, ...]
    share: bool = False


def panels(
    name: str,
    drawn: Sequence[Panel],
    axis: str,
    caption: str,
    order: Sequence[str],
    *,
    ticks: Sequence[float] = (),
    marks: Sequence[tuple[float, str]] = (),
    whole: bool = False,
) -> Picture:
    """Panels one above the other. With `ticks` the x axis is logarithmic and marked at those.

    Args:
        order: all editors of the report, which fixes each one's colour.
        marks: positions on the x axis to point out, with what they are.
        whole: whether x counts something, so that only whole numbers are marked.
    """

    def draw(figure: Figure) -> None:
        places = np.atleast_1d(figure.subplots(len(drawn), 1, sharex=True))
        for axes, panel in zip(places, drawn, strict=True):
            for line in panel.lines:
                _line(axes, line, order)
            axes.set_ylabel(panel.label)
            if panel.share:
                axes.set_ylim(-0.04, 1.04)
            for place, _ in marks:
                axes.axvline(place, color=figures.INK, lw=0.8, ls=":")
        for place, word in marks:
            places[0].annotate(
                word, (place, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3),
                textcoords="offset points", ha="center", fontsize=8,
            )  # fmt: skip
        if ticks:
            places[-1].set_xscale("log")
            places[-1].set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
            places[-1].minorticks_off()
        if whole:
            places[-1].xaxis.get_major_locator().set_params(integer=True)
        places[-1].set_xlabel(axis)
        if len(drawn[0].lines) > 1 or not marks:
            figures.legend(figure, places[0])

    return figures.picture(name, draw, caption, (4.6, 1.95 * len(drawn) + 0.2))


def _line(axes: Axes, line: Line, order: Sequence[str]) -> None:
    x, y = line.x.to_numpy(float), line.y.to_numpy(float)
    look = figures.look(line.name, order)
    axes.plot(x, np.where(np.isfinite(y), y, np.nan), **look, ms=4, lw=1.4, label=line.name)
    if line.low is not None and line.high is not None:
        low, high = (ends.to_numpy(float) for ends in (line.low, line.high))
        known = np.isfinite(low) & np.isfinite(high)
        if known.any():
            axes.fill_between(
                x, low, high, where=known, color=look["color"], alpha=0.16, linewidth=0
            )
