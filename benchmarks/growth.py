"""How time grows with rows, tokens, layers and width: a figure with fitted exponents."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks import material, training
from benchmarks.clock import seconds
from benchmarks.editing import fact_patch, measured
from benchmarks.setup import Setup, setup
from benchmarks.sizes import Size, resized
from pipeline import scoring

SWEEPS: dict[str, tuple[int, ...]] = {
    "rows": (2, 4, 8, 16, 32, 64),
    "tokens": (15, 30, 60, 120),
    "layers": (4, 6, 8, 12, 16),
    "width": (64, 128, 256, 512),
}
PROMPTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Line:
    """Seconds at each value of what was varied."""

    what: str
    axis: str
    values: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """Of the power law that fits best, over all values."""
        return slope(self.values, self.seconds)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least squares of log y on log x."""
    u, v = [math.log(value) for value in x], [math.log(value) for value in y]
    mean_u, mean_v = statistics.mean(u), statistics.mean(v)
    above = sum((a - mean_u) * (b - mean_v) for a, b in zip(u, v, strict=True))
    return above / sum((a - mean_u) ** 2 for a in u)


def measure(
    size: Size, device: torch.device, dtype: torch.dtype, repeats: int, *, short: bool
) -> list[Line]:
    """Training steps of MEND both ways along every axis, and scoring along rows.

    Args:
        size: the shape that axes lead away from.
        device: where.
        dtype: of the model.
        repeats: timed runs of each point.
        short: two points of each axis, to see that it works.
    """
    lines: list[Line] = []
    for axis, values in SWEEPS.items():
        values = values[:2] if short else values
        found: dict[str, list[float]] = {"ours": [], "one at a time": []}
        for value in values:
            made = setup(_varied(size, axis, value), device, dtype, repeats)
            sides = training.sides_of(made, "mend")
            times = _times([sides.ours, sides.plain], made.work.edits, made)
            for side, time in zip(found, times, strict=True):
                found[side].append(time)
        lines += [
            Line(f"MEND step, {side}", axis, tuple(values), tuple(taken))
            for side, taken in found.items()
        ]
    values = PROMPTS[:2] if short else PROMPTS
    made = setup(size, device, dtype, repeats)
    taken = [_scored(made, count) for count in values]
    lines.append(Line("edited prompts scored together", "rows", tuple(values), tuple(taken)))
    return lines


def saturation(line: Line) -> tuple[float, int]:
    """Exponent of throughput in rows up to where it reaches half of its best, and those rows."""
    rates = [value / second for value, second in zip(line.values, line.seconds, strict=True)]
    end = next(i for i, rate in enumerate(rates) if rate >= 0.5 * max(rates))
    if end == 0:
        return math.nan, line.values[0]
    return slope(line.values[: end + 1], rates[: end + 1]), line.values[end]


def draw(lines: Sequence[Line], path: Path) -> None:
    """One panel for each axis, both scales logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels = [*SWEEPS, "prompts"]
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 3.4))
    for axis, panel in zip(axes, panels, strict=True):
        for line in lines:
            scored = line.what.startswith("edited prompts")
            if (panel == "prompts") != scored or (not scored and line.axis != panel):
                continue
            y = [v / s for v, s in zip(line.values, line.seconds, strict=True)]
            fit = slope(line.values, y) if scored else line.exponent
            label = f"{line.what.removeprefix('MEND step, ')}: exponent {fit:.2f}"
            axis.loglog(line.values, y if scored else line.seconds, "o-", label=label)
        axis.set_xlabel("edited prompts at once" if panel == "prompts" else panel)
        axis.set_ylabel("prompts a second" if panel == "prompts" else "seconds a step")
        axis.legend(fontsize=7)
        axis.grid(visible=True, which="both", alpha=0.2)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _varied(size: Size, axis: str, value: int) -> Size:
    """The shape with one thing changed; tokens share out as 2/3 prompt, 1/3 target."""
    if axis == "rows":
        return resized(size, edits=value)
    if axis == "tokens":
        target = value // 3
        return resized(size, prompt=value - target, target=target, bystander=2 * value)
    return resized(size, **{axis: value})


def _times(
    runs: Sequence[Callable[[int], object]], count: int, made: Setup, *, clock: bool = False
) -> list[float]:
    """Median seconds of work (or by the clock) of each run, in turns."""
    found: list[list[float]] = [[] for _ in runs]
    for turn in range(made.repeats + 1):
        for run, taken in zip(runs, found, strict=True):
            wall, work = seconds(partial(run, count), made.device)
            if turn:
                taken.append(wall if clock else work)
    return [statistics.median(taken) for taken in found]


def _scored(made: Setup, count: int) -> float:
    facts = material.facts(made.size, count)
    cases = [replace(case, rephrases=(), neighbours=()) for case in facts]
    patch = fact_patch(made.face, [0, 1, 2], count)
    config = scoring.Config(generate=False, rows=10_000)

    def run(_count: int) -> object:
        return measured(scoring.score(made.face, cases, patch, config, range(count)))

    # By the clock: whether a device is busy is the question, and one row keeps one core busy.
    return _times([run], count, made, clock=True)[0]
