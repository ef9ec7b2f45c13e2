"""Two ways of doing one thing: first that they agree, then how long each takes, in turns."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Found = Mapping[str, Tensor]
_MB = 2**20
TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Contest:
    """One thing that can be done for any number of items.

    Attributes:
        name, what: for the table.
        unit: what an item is.
        ours, plain: do it for so many items and give the results, the same from both. With `plain`
            None only our rate is measured.
        count, few: items of one timed run of ours, and of the plain one.
        goal: least ratio of the times of one item.
        widen: a model to compare the results in float64 on, where an optimiser divides by what
            rounding leaves of small gradients; it is timed as it is.
        notes: more to say about it.
    """

    name: str
    what: str
    unit: str
    ours: Callable[[int], Found]
    plain: Callable[[int], Found] | None
    count: int
    few: int
    goal: float | None = None
    widen: nn.Module | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Runs of one side: seconds by the clock and of work, and memory at its peak."""

    items: int
    wall: list[float]
    cpu: list[float]
    peak_mb: float

    @property
    def each(self) -> float:
        """Seconds of one item, the median run."""
        return statistics.median(self.wall) / self.items

    @property
    def cpu_each(self) -> float:
        """Seconds of work on one item, the median run; other processes do not count."""
        return statistics.median(self.cpu) / self.items


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A contest's numbers."""

    name: str
    what: str
    unit: str
    goal: float | None
    difference: float | None  # the largest, relative to the largest value
    ours: Timing
    plain: Timing | None
    notes: Mapping[str, Any]

    @property
    def ratio(self) -> float | None:
        """How often ours goes into plain, by the clock."""
        return self.plain.each / self.ours.each if self.plain else None

    @property
    def cpu_ratio(self) -> float | None:
        """The same in processor time."""
        return self.plain.cpu_each / self.ours.cpu_each if self.plain else None


def settle(contest: Contest, device: torch.device, repeats: int, *, check: bool = True) -> Outcome:
    """Check a contest's results, which also warms both sides up, then time them in turns.

    Args:
        contest: what to time.
        device: where it runs.
        repeats: timed runs of each side.
        check: compare the results; without it both sides are only warmed up.
    """
    worst = agree(contest) if check else None
    if not check or contest.widen:
        _warm(contest)
    sides = {"ours": (contest.ours, contest.count)}
    if contest.plain:
        sides["plain"] = (contest.plain, contest.few)
    runs: dict[str, list[tuple[float, float, float]]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, (run, items) in sides.items():
            runs[side].append(_timed(run, items, device))
    timings = {}
    for side, found in runs.items():
        wall, cpu, peak = zip(*found, strict=True)
        timings[side] = Timing(sides[side][1], list(wall), list(cpu), max(peak))
    return Outcome(
        name=contest.name,
        what=contest.what,
        unit=contest.unit,
        goal=contest.goal,
        difference=worst,
        ours=timings["ours"],
        plain=timings.get("plain"),
        notes={**contest.notes, "load": load()},
    )


def agree(contest: Contest) -> float | None:
    """The largest difference between both sides' results, relative to the largest value of each.

    On two items at least: what goes wrong between the rows of a batch shows on no single one.

    Raises:
        AssertionError: it is above 1e-5, or they are not the same results.
    """
    if contest.plain is None:
        contest.ours(contest.few)
        return None
    with _widened(contest.widen):
        items = max(contest.few, min(contest.count, 2))
        ours, plain = contest.ours(items), contest.plain(items)
    assert ours.keys() == plain.keys(), f"{contest.name}: {set(ours) ^ set(plain)}"
    worst = {name: _apart(ours[name], plain[name]) for name in ours}
    bad = {name: apart for name, apart in worst.items() if not apart <= TOLERANCE}
    assert not bad, f"{contest.name}: the two sides disagree: {bad}"
    return max(worst.values())


@contextmanager
def _widened(model: nn.Module | None) -> Iterator[None]:
    """A float32 model in float64, and back to the very same numbers."""
    if model is None:
        yield
        return
    try:
        model.double()
        yield
    finally:
        model.float()


def _warm(contest: Contest) -> None:
    contest.ours(contest.few)
    if contest.plain:
        contest.plain(contest.few)


def _apart(one: Tensor, two: Tensor) -> float:
    assert one.shape == two.shape, f"{tuple(one.shape)} and {tuple(two.shape)}"
    if not torch.equal(one.isnan(), two.isnan()):
        return float("nan")
    one, two = one.double().nan_to_num(), two.double().nan_to_num()
    return ((one - two).abs().max() / two.abs().max().clamp(min=1e-30)).item()


def _timed(
    run: Callable[[int], Found], items: int, device: torch.device
) -> tuple[float, float, float]:
    """Wall seconds, seconds of work, and peak MB above what was held before."""
    with peak_memory(device) as peak:
        wall, work = seconds(lambda: run(items), device)
    return wall, work, peak[0]


def seconds(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds by the clock, and of work: a processor's own for each thread, a GPU's by the clock.

    What other processes do is no part of the latter.
    """
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    _wait(device)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall, wall if device.type == "cuda" else cpu / torch.get_num_threads()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[float]]:
    """MB at the peak above what was held on entry; filled in when the context ends.

    On a processor this is resident memory, sampled every few milliseconds.
    """
    found = [0.0]
    tidy()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        allocated = torch.cuda.memory_allocated(device)
        yield found
        found[0] = (torch.cuda.max_memory_allocated(device) - allocated) / _MB
        return
    before = resident_mb()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.003):
            found[0] = max(found[0], resident_mb() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        found[0] = max(found[0], resident_mb() - before)
        stop.set()
        watcher.join()


def tidy() -> None:
    """Give back what is free, so that it is not counted as held."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def load() -> float | None:
    """Processes that wanted a core in the last minute."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def resident_mb() -> float:
    """Resident memory of this process without files (libraries are read in as they are used).

    Where /proc is missing, the highest so far, with them.
    """
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            _, resident, shared, *_ = map(int, file.read().split())
        return (resident - shared) * resource.getpagesize() / _MB
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
