"""Lanes: every target runs once, after what it needs, and after a failure nothing starts."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest

from pipeline.errors import SettingsError
from pipeline.lanes import StageError, lanes, repro

# Stands in for DVC: writes down when each call began and ended, fails where it is told to.
FAKE = """#!{python}
import json, os, sys, time
if sys.argv[1] == "status":
    print(os.environ["STALE"])
    sys.exit()
target = " ".join(word for word in sys.argv[1:] if "--" not in word)
with open("calls", "a") as out:
    print("begin", target, file=out)
print("Stage 'x' didn't change, skipping")
print("Running stage", target, flush=True)
if os.environ.get("SLOW", "none") in target:
    time.sleep(0.5)
with open("calls", "a") as out:
    print("end", target, file=out)
sys.exit(os.environ.get("BREAKS", "none") in target)
"""
PARAMS = {
    "suite": "sample",
    "study": "main",
    "threads": 1,
    "used": ["fever", "zsre"],
    "runs": {
        "fever-rome": {"bench": "fever", "fit": False, "editor": "rome.py"},
        "zsre-ft": {"bench": "zsre", "fit": True, "editor": "zsre/ft"},
        "zsre-ft-k5": {"bench": "zsre", "fit": True, "editor": "zsre/ft"},
        "zsre-mend": {"bench": "zsre", "fit": True, "editor": "zsre/mend"},
    },
    "moments": {},
    "traces": {},
    "fits": {"zsre-ft": {"editor": "zsre/ft"}, "zsre-mend": {"editor": "zsre/mend"}},
}
LANES = {
    "fever": ["evaluate@fever-rome"],
    "zsre": [
        "fit@zsre-ft evaluate@zsre-ft evaluate@zsre-ft-k5",
        "fit@zsre-mend evaluate@zsre-mend",
    ],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake = tmp_path / "bin" / "dvc"
    fake.parent.mkdir()
    fake.write_text(FAKE.format(python=sys.executable))
    fake.chmod(fake.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr("pipeline.lanes._QUICK_DVC", (str(fake),))
    stale(monkeypatch, "prepare@fever", "prepare@zsre")
    return tmp_path


def stale(monkeypatch: pytest.MonkeyPatch, *stages: str) -> None:
    monkeypatch.setenv("STALE", json.dumps({stage: ["changed"] for stage in stages}))


def calls(project: Path) -> list[str]:
    return (project / "calls").read_text().splitlines()


def test_each_target_runs_once_after_its_benchmark_and_the_rest_last(project: Path) -> None:
    repro(project, PARAMS, jobs=2)
    found = calls(project)
    targets = [*(f"label@{bench}" for bench in LANES), *chain(*LANES.values())]
    assert sorted(found[:-2]) == sorted(
        f"{what} repro {target}" for what in ("begin", "end") for target in targets
    )
    for bench, lanes_ in LANES.items():
        for lane in lanes_:
            assert found.index(f"end repro label@{bench}") < found.index(f"begin repro {lane}")
    assert found[-2:] == ["begin repro", "end repro"]


def test_only_what_is_stale_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale(monkeypatch, "evaluate@zsre-mend", "report")
    repro(project, PARAMS, jobs=2)
    assert [c for c in calls(project) if c.startswith("begin")] == [
        "begin repro fit@zsre-mend evaluate@zsre-mend",
        "begin repro",
    ]


def test_moments_come_before_the_editors_that_read_them(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale(monkeypatch, "moments@fever", "evaluate@fever-rome", "trace@zsre")
    repro(project, PARAMS | {"moments": {"fever": {}}, "traces": {"zsre": {}}}, jobs=2)
    found = calls(project)
    assert found.index("end repro label@fever moments@fever") < found.index(
        "begin repro evaluate@fever-rome"
    )
    assert "end repro label@zsre trace@zsre" in found


def test_what_took_longest_by_the_last_report_starts_first(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW", "label@fever")  # so that zsRE's editors have one core between them
    tables = project / "reports" / "sample" / "main" / "tables"
    tables.mkdir(parents=True)
    header = "run,edits,seconds_per_edit,scoring_seconds_per_edit,fit_seconds\n"
    rows = ["zsre-mend,100,0.1,0.2,30.0", "zsre-ft,100,0.5,0.2,", "zsre-ft-k5,1,0,0,"]
    torn = ["<<<<<<< HEAD", "odd,,,,", "odd,nan,1,1,1", "zsre-mend,100"]
    tables_and_longest = (
        ("ft", rows),
        ("mend", [rows[0], "zsre-ft,100,0.1,0.2,", rows[2], *torn]),
        ("mend", [*rows[1:], *torn]),  # nobody knows how long it takes
        ("ft", []),  # the record's order
    )
    for longest, lines in tables_and_longest:
        (tables / "timings.csv").write_text(header + "\n".join(lines))
        (project / "calls").unlink(missing_ok=True)
        repro(project, PARAMS, jobs=2)
        begun = [call for call in calls(project) if call.startswith("begin repro fit@zsre")]
        assert begun[0].startswith(f"begin repro fit@zsre-{longest}")


def test_one_lane_is_plain_dvc(project: Path) -> None:
    repro(project, PARAMS, jobs=1)
    assert calls(project) == ["begin repro", "end repro"]


def test_a_failure_starts_nothing_more(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BREAKS", "label@fever")
    monkeypatch.setenv("SLOW", "label@zsre")
    with pytest.raises(StageError, match=r"label@fever.*exit code 1.*what is finished is kept"):
        repro(project, PARAMS, jobs=2)
    assert "end repro label@zsre" in calls(project)  # what runs is finished and kept
    assert not {call for call in calls(project) if "evaluate" in call or call == "begin repro"}


def test_a_kill_ends_what_runs_as_an_interrupt_does(project: Path) -> None:
    """A scheduler's SIGTERM reaches DVC, which a terminal's Ctrl-C would reach by itself."""
    fake = project / "bin" / "dvc"
    fake.write_text(FAKE.format(python=sys.executable).replace("time.sleep(0.5)", "time.sleep(30)"))
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from pipeline import lanes\n"
        "lanes._QUICK_DVC = (sys.argv[1],)\n"
        "lanes.repro(Path(sys.argv[2]), json.loads(sys.argv[3]), jobs=2)\n"
    )
    words = [sys.executable, "-c", program, str(fake), str(project), json.dumps(PARAMS)]
    environment = {**os.environ, "SLOW": "label"}
    with subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) as process:
        for _ in range(1000):
            if (project / "calls").is_file() and len(calls(project)) == 2:
                break
            time.sleep(0.02)
        process.terminate()
    assert process.returncode in (1, -signal.SIGINT)
    assert len(calls(project)) == 2  # both begun, neither ended


def test_an_empty_lock_of_a_killed_dvc_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREAKS", "label@fever")
    lock = project / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    with pytest.raises(StageError, match=f"Delete {lock}"):
        repro(project, PARAMS, jobs=2)


def test_lines_name_their_lane(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        repro(project, PARAMS, jobs=2)
    assert "zsre-mend | Running stage repro fit@zsre-mend evaluate@zsre-mend" in caplog.messages
    assert not any("skipping" in message for message in caplog.messages)


def test_lanes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert lanes({"threads": 2}, None) == 4
    assert lanes({"threads": 16}, None) == 1
    assert lanes({"threads": 1}, 3) == 3
    with pytest.raises(SettingsError, match=r"at least one stage at a time; found 0"):
        lanes({"threads": 1}, 0)
