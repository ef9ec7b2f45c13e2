"""`dvc repro` on all cores: what does not depend on each other runs side by side.

DVC runs one stage at a time, and a small model trained by one thread leaves the other cores idle.
DVC allows several `dvc repro` of different targets at once (they take turns at its lock files), so
the benchmarks' own stages run as lanes first, and each benchmark's editors as soon as its edit
targets are there. A last plain `dvc repro` adds the report and finds the rest up to date.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from pipeline.config import Params
from pipeline.errors import ErrataError, SettingsError
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
    with warm() as folder:  # it imports while DVC looks
        if stale := _stale(root, environment):
            environment = with_python_of(environment, folder)
            if count > 1:
                _Lanes(root, params, count, environment).run(stale)
        _dvc(root, ["repro"], environment)


def _stale(root: Path, environment: Mapping[str, str]) -> set[str]:
    """Names of the stages whose settings, inputs or outputs are not those of the lock file."""
    found = subprocess.run(
        [*_QUICK_DVC, "status", "--json"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise _failed("status", found.returncode, found.stderr.strip())
    return set(json.loads(found.stdout.strip().splitlines()[-1]))


@dataclass(frozen=True)
class _Lane:
    """Targets that one call of DVC brings up to date."""

    bench: str
    name: str
    targets: tuple[str, ...]


class _Lanes:
    """What there is to do: a lane for each benchmark, and then one for each editor on it."""

    def __init__(
        self, root: Path, params: Params, count: int, environment: Mapping[str, str]
    ) -> None:
        self.root, self.count, self.environment = root, count, environment
        self.benches = [_Lane(bench, bench, _before(params, bench)) for bench in params["used"]]
        self.editors = _editors(params)
        self.ended = Event()

    def run(self, stale: set[str]) -> None:
        """Run the lanes of stale benchmarks, each followed by its editors; or these alone."""
        with ThreadPoolExecutor(self.count) as pool:
            try:
                self._schedule(pool, stale)
            except BaseException:
                self.ended.set()  # what runs is finished and kept, like make -j; nothing starts
                raise

    def _schedule(self, pool: ThreadPoolExecutor, stale: set[str]) -> None:
        waiting: dict[Future[None], _Lane] = {}
        redone = set()
        for lane in self.benches:
            if any(f"{stage}@{lane.bench}" in stale for stage in _BENCH_STAGES):
                redone.add(lane.bench)
                waiting[pool.submit(self._run, lane)] = lane
        for lane in self.editors:
            if lane.bench not in redone and stale.intersection(lane.targets):
                waiting[pool.submit(self._run, lane, alone=True)] = lane
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                over = waiting.pop(future)
                future.result()
                following = [lane for lane in self.editors if lane.bench == over.bench]
                for lane in following if over in self.benches else ():
                    waiting[pool.submit(self._run, lane, alone=True)] = lane

    def _run(self, lane: _Lane, *, alone: bool = False) -> None:
        """`alone`: the targets without what they need, which other lanes are reading."""
        if not self.ended.is_set():
            words = ["--wait-for-lock", "repro", *(["--single-item"] if alone else [])]
            words += lane.targets
            _dvc(self.root, words, self.environment, f"{lane.name} | ")


def _before(params: Params, bench: str) -> tuple[str, ...]:
    """What a benchmark's editors wait for, and what waits for none of them."""
    ends = [
        stage
        for stage, key in (("moments", "moments"), ("trace", "traces"))
        if bench in params[key]
    ]
    return tuple(f"{stage}@{bench}" for stage in ("label", *ends))


def _editors(params: Params) -> list[_Lane]:
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
        )
        for editor, runs in shared.items()
    ]


def _dvc(
    root: Path,
    words: Sequence[str],
    environment: Mapping[str, str],
    prefix: str = "",
) -> None:
    """Run DVC and pass its words on as they come."""
    with subprocess.Popen(
        [*_QUICK_DVC, *words],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() and not line.startswith(_CHATTER) and _SKIPPED not in line:
                _LOG.info("%s%s", prefix, line.rstrip())
    if process.returncode:
        raise _failed(" ".join(words), process.returncode, "its messages are above")


def _failed(words: str, code: int, found: str) -> StageError:
    return StageError(
        expected=f"`dvc {words}` to succeed",
        found=f"exit code {code}: {found}",
        remedy="Mend the cause and run it again: what is finished is kept.",
    )
