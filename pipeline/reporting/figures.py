"""Figures as SVG text: the same numbers give the same bytes.

Nothing in them depends on the clock or on chance: no date, and identifiers hashed with the
figure's own name (so that several can stand in one page). Sizes suit a phone's width, where the
page shows a figure at four fifths of its size. The colours are told apart by colour-blind eyes and
on light and dark ground; ink and lines take the page's own colours there.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.reporting import columns
from pipeline.reporting.blocks import Picture
from pipeline.reporting.headline import drawdown
from pipeline.reporting.tables import UNEDITED, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, RULE = "#23272e", "#d9d8d3"
COLOURS = ("#d55e00", "#0c7bb3", "#009e73", "#b8619a", "#a98600", "#5a6fd0", "#8a5a44", "#7a7f87")
_MARKERS = "osD^vP*X"
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the layout is the same everywhere
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.unicode_minus": True,
}


def success_and_drawdown(bench: str, frame: pd.DataFrame, order: Sequence[str]) -> Picture | None:
    """Edit success on a rephrasing against drawdown, one point per editor, 95 % intervals.

    `order` is that of all the report's editors, which fixes each one's colour. An editor whose
    drawdown is infinite has no place on the axis; the caption says so.
    """
    y_name, x_name = "edit_success_rephrase", drawdown(frame)
    if y_name not in frame or x_name not in frame:
        return None
    edited = frame[(frame["editor"] != UNEDITED) & frame[y_name].notna() & frame[x_name].notna()]
    shown = edited[np.isfinite(edited[x_name])]
    if shown.empty:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for _, row in shown.iterrows():
            x, y = float(row[x_name]), float(row[y_name])
            axes.errorbar(
                x,
                y,
                xerr=_arms(row, x_name),
                yerr=_arms(row, y_name),
                **look(str(row["editor"]), order),
                linestyle="",
                markersize=6,
                capsize=3,
                linewidth=1.2,
                label=str(row["editor"]),
            )
        ends = (shown[name].fillna(shown[x_name]) for name in (f"{x_name}_low", f"{x_name}_high"))
        _spread_axis(axes, shown[x_name], *ends)
        axes.set_ylim(-0.04, 1.04)
        axes.set_xlabel(_axis(x_name))
        axes.set_ylabel("Edit success on a rephrasing (share of cases)")
        legend(figure, axes)

    lost = [str(name) for name in edited["editor"] if name not in set(shown["editor"])]
    beyond = f" Not drawn, their drawdown being infinite: {', '.join(lost)}." if lost else ""
    caption = (
        f"{title(bench)}: edit success against drawdown, with 95 % intervals over cases. "
        f"Up and to the left is better.{beyond}"
    )
    return picture(f"success-{bench}", draw, caption, (4.6, 3.3))


def learning_curves(
    bench: str, curves: Mapping[str, pd.DataFrame], order: Sequence[str]
) -> Picture | None:
    """Validation success and validation loss against training steps, a line per editor."""
    if not curves:
        return None

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, 1, sharex=True)
        named = (("val_success", "Success (share)"), ("val_loss", "Loss (nats)"))
        for axes, (column, label) in zip(panels, named, strict=True):
            for editor, curve in curves.items():
                points = curve.dropna(subset=[column])
                axes.plot(
                    points["step"].to_numpy(float),
                    points[column].to_numpy(float),
                    **look(editor, order),
                    ms=3,
                    lw=1.4,
                    label=editor,
                )
            axes.set_ylabel(label)
        panels[0].set_ylim(-0.04, 1.04)
        losses = pd.concat([curve["val_loss"] for curve in curves.values()]).dropna()
        if len(losses) and losses.min() > 0 and losses.max() > 50 * losses.min():
            panels[1].set_yscale("log")  # editors weigh the losses differently
        panels[1].set_xlabel("Training step")
        legend(figure, panels[0])

    caption = (
        f"{title(bench)}: learning curves on the frozen validation draw of the training cases. "
        "Above, edit success; below, the loss that stops training early."
    )
    return picture(f"curve-{bench}", draw, caption, (4.6, 3.9))


def look(editor: str, order: Sequence[str]) -> Any:
    """An editor's colour and marker: the same in every figure of a report."""
    i = order.index(editor)
    turn = i // len(COLOURS)  # a ninth editor has the first one's colour and another marker
    marker = _MARKERS[(i + turn) % len(_MARKERS)]
    return {"color": COLOURS[i % len(COLOURS)], "marker": marker}


def legend(figure: Figure, axes: Axes) -> None:
    """The editors above the drawing, where they hide no point."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        across = min(len(labels), 4)
        figure.legend(
            handles, labels, loc="outside upper center", ncols=across, handletextpad=0.4,
            columnspacing=1.2,
        )  # fmt: skip


def unit(name: str) -> str:
    """A drawdown as the label of an axis that has little room."""
    return f"Drawdown ({'perplexity' if name.startswith('perplexity') else 'share of probes'})"


def _arms(row: pd.Series, name: str) -> NDArray[np.float64]:
    """How far an interval reaches below and above its value, as matplotlib wants it.

    Where there is no interval (a single group), nowhere.
    """
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return np.nan_to_num(np.maximum([[value - low], [high - value]], 0))


def _spread_axis(axes: Axes, *positions: pd.Series) -> None:
    """A symmetric logarithm where drawdowns differ by orders of magnitude, else a plain axis."""
    sizes = np.abs(pd.concat(positions).to_numpy(float))
    least = sizes[sizes > 0].min(initial=1.0)
    if sizes.max() > 50 * max(least, 0.01):
        axes.set_xscale("symlog", linthresh=max(least, 0.01))
    else:
        axes.margins(x=0.12)


def _axis(name: str) -> str:
    column = columns.ALL[name]
    unit = "perplexity" if name.startswith("perplexity") else "share of probes"
    return f"{column.label} ({unit}; lower is better)"


def picture(name: str, draw: Any, caption: str, inches: tuple[float, float]) -> Picture:
    import matplotlib  # heavy, and wanted by this function alone
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = _STYLE | {"svg.hashsalt": name}  # its keys are a type of their own
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=inches, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return Picture(name=name, svg=buffer.getvalue(), caption=caption)


def inline(picture: Picture) -> str:
    """The SVG element alone, for a page: its ids made unique there, its ink the page's own."""
    svg = picture.svg[picture.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{picture.name}-', svg)
    svg = re.sub(r'href="#', f'href="#{picture.name}-', svg)
    svg = svg.replace("url(#", f"url(#{picture.name}-")
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg, count=1)
    for colour, variable in ((INK, "--ink"), (RULE, "--rule"), ("#ffffff", "--page")):
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", svg)
    return svg.strip()
