"""`dvc repro` on all cores: what does not depend on each other runs side by side.

DVC runs one stage at a time, and a small model trained by one thread leaves the other cores idle.
DVC allows several `dvc repro` of different targets at once (they take turns at its lock files), so
the benchmarks' own stages run as lanes first, and each benchmark's editors as soon as its edit
targets are there: first those that took longest by the last report, so that the cores end their
work together. A last plain `dvc repro` adds the report and finds the rest up to date.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Params
from pipeline.errors import ErrataError, SettingsError
from pipeline.quick_dvc import PARSED
from pipeline.results import report_folder
from pipeline.warm import warm, with_python_of

_LOG = logging.getLogger(__name__)
_BENCH_STAGES = ("prepare", "base", "label", "moments", "trace")
# What DVC says of every stage in every lane.
_CHATTER = (
    "Updating lock file",
    "To track the changes",
    "Use `dvc push`",
    "\tgit add",
    "To enable",
    "\tdvc config",
)
_SKIPPED = "didn't change, skipping"
_QUICK_DVC = ("python", "-m", "pipeline.quick_dvc")  # the first on PATH, which is warm


class StageError(ErrataError):
    """A stage of the graph failed."""


def lanes(params: Params, jobs: int | None) -> int:
    """How many stages run side by side: the cores there are, shared by `threads` each.

    Raises:
        SettingsError: fewer than one was asked for.
    """
    if jobs is not None and jobs < 1:
        raise SettingsError(
            expected="at least one stage at a time",
            found=str(jobs),
            remedy="Leave --jobs out: as many run as there are cores for.",
        )
    return jobs or max(1, (os.cpu_count() or 1) // int(params["threads"]))


def repro(root: Path, params: Params, jobs: int | None = None) -> None:
    """Bring everything that the record names up to date.

    Args:
        root: the project's folder.
        params: the composed settings.
        jobs: stages side by side; None for as many as there are cores for.

    Raises:
        StageError: a stage failed. Those that were running are finished first; none starts.
    """
    count = lanes(params, jobs)
    environment = with_python_of(os.environ, Path(sys.executable).parent)  # stages say `python`
    dvc = _Dvc(root, environment)
    with _ended_by_signals(dvc), warm() as folder:  # it imports while DVC looks
        environment[PARSED] = str(folder)
        if stale := dvc.stale():
            dvc.environment = with_python_of(environment, folder)
            if count > 1:
                _Lanes(dvc, params, count).run(stale)
        dvc.run(["repro"])


@contextmanager
def _ended_by_signals(dvc: _Dvc) -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a run as Ctrl-C does, of which a terminal tells DVC too."""

    def end(_number: int, _frame: object) -> None:
        dvc.interrupt()
        raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()  # others may set no handler
    heard = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) == signal.SIG_DFL]
    before = {number: signal.signal(number, end) for number in heard if ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Dvc:
    """Calls of DVC in one project, several at once."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self.root, self.environment = root, environment
        self._running: set[subprocess.Popen[str]] = set()

    def interrupt(self) -> None:
        """End those that run, as Ctrl-C does."""
        for process in tuple(self._running):
            process.send_signal(signal.SIGINT)

    def stale(self) -> set[str]:
        """Names of the stages whose settings, inputs or outputs are not those of the lock file."""
        with self._started(["status", "--json"], stderr=subprocess.PIPE) as process:
            found, said = process.communicate()
        if process.returncode:
            raise self._failed("status", process.returncode, said.strip())
        return set(json.loads(found.strip().splitlines()[-1]))

    def run(self, words: Sequence[str], prefix: str = "") -> None:
        """Pass DVC's words on as they come.

        Raises:
            StageError: it ended in failure.
        """
        with self._started(words, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() and not line.startswith(_CHATTER) and _SKIPPED not in line:
                    _LOG.info("%s%s", prefix, line.rstrip())
        if process.returncode:
            raise self._failed(" ".join(words), process.returncode, "its messages are above")

    def _failed(self, words: str, code: int, found: str) -> StageError:
        remedy = "Mend the cause and run it again: what is finished is kept."
        lock = self.root / ".dvc" / "tmp" / "rwlock"
        if lock.is_file() and not lock.stat().st_size:
            remedy = f"Delete {lock}, which a DVC that was killed left empty, and run it again."
        return StageError(
            expected=f"`dvc {words}` to succeed", found=f"exit code {code}: {found}", remedy=remedy
        )

    @contextmanager
    def _started(self, words: Sequence[str], stderr: int) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [*_QUICK_DVC, *words],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process:
            self._running.add(process)
            try:
                yield process
            finally:
                self._running.discard(process)


@dataclass(frozen=True)
class _Lane:
    """Targets that one call of DVC brings up to date, and how long that took last time."""

    bench: str
    name: str
    targets: tuple[str, ...]
    seconds: float


class _Lanes:
    """What there is to do: a lane for each benchmark, and then one for each editor on it."""

    def __init__(self, dvc: _Dvc, params: Params, count: int) -> None:
        self.dvc, self.count = dvc, count
        self.benches = [
            _Lane(bench, bench, _before(params, bench), math.inf) for bench in params["used"]
        ]
        self.editors = _editors(params, _seconds(dvc.root, params))

    def run(self, stale: set[str]) -> None:
        """Run the lanes of stale benchmarks, each followed by its editors; or these alone.

        After a failure what runs is finished and kept, like make -j; nothing starts.
        """
        first = [lane for lane in self.benches if _stages(lane.bench) & stale]
        redone = {lane.bench for lane in first}
        ready = [
            lane
            for lane in self.editors
            if lane.bench not in redone and stale.intersection(lane.targets)
        ]
        ready = first + ready
        running: dict[Future[None], _Lane] = {}
        with ThreadPoolExecutor(self.count) as pool:
            while ready or running:
                ready.sort(key=lambda lane: lane.seconds, reverse=True)
                while ready and len(running) < self.count:
                    lane = ready.pop(0)
                    running[pool.submit(self._run, lane)] = lane
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    over = running.pop(future)
                    future.result()
                    if over in first:
                        ready += [lane for lane in self.editors if lane.bench == over.bench]

    def _run(self, lane: _Lane) -> None:
        """Editors without what they need, which other lanes are reading."""
        alone = ["--single-item"] if lane in self.editors else []
        words = ["--wait-for-lock", "repro", *alone, *lane.targets]
        self.dvc.run(words, f"{lane.name} | ")


def _stages(bench: str) -> set[str]:
    return {f"{stage}@{bench}" for stage in _BENCH_STAGES}


def _seconds(root: Path, params: Params) -> dict[str, tuple[float, float]]:
    """What fitting and evaluating took by the last report, run by run, as far as it says."""
    place = report_folder(root, params) / "tables" / "timings.csv"
    if not place.is_file():
        return {}
    with place.open(newline="", encoding="utf-8", errors="replace") as lines:
        rows = list(csv.DictReader(lines))
    found = {}
    for row in rows:
        with suppress(KeyError, TypeError, ValueError):  # of another version, or torn by a merge
            each = sum(float(row[f"{name}seconds_per_edit"]) for name in ("", "scoring_"))
            fit, evaluation = float(row["fit_seconds"] or 0), float(row["edits"]) * each
            if math.isfinite(fit + evaluation):
                found[row["run"]] = fit, evaluation
    return found


def _before(params: Params, bench: str) -> tuple[str, ...]:
    """What a benchmark's editors wait for, and what waits for none of them."""
    ends = [
        stage
        for stage, key in (("moments", "moments"), ("trace", "traces"))
        if bench in params[key]
    ]
    return tuple(f"{stage}@{bench}" for stage in ("label", *ends))


def _editors(params: Params, seconds: Mapping[str, tuple[float, float]]) -> list[_Lane]:
    """Runs that share what was fitted are one lane: two cannot write it at once."""
    shared: dict[str, list[str]] = {}
    for run, item in params["runs"].items():
        shared.setdefault(item["editor"] if item["fit"] else run, []).append(run)
    fits = {item["editor"]: fit for fit, item in params["fits"].items()}
    return [
        _Lane(
            bench=params["runs"][runs[0]]["bench"],
            name=runs[0],
            targets=(
                *([f"fit@{fits[editor]}"] if editor in fits else []),
                *(f"evaluate@{run}" for run in runs),
            ),
            seconds=_together([seconds.get(run) for run in runs]),
        )
        for editor, runs in shared.items()
    ]


def _together(seconds: Sequence[tuple[float, float] | None]) -> float:
    """Of runs that share a fit. One that nobody knows may take long: it starts early."""
    known = [one for one in seconds if one is not None]
    if len(known) < len(seconds):
        return math.inf
    return max(fit for fit, _ in known) + sum(evaluation for _, evaluation in known)
