"""Lanes: every target runs once, after what it needs, and after a failure nothing starts."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from pipeline.lanes import StageError, lanes, repro

# Stands in for DVC: writes down when each call began and ended, fails where it is told to.
FAKE = """#!{python}
import json, os, sys, time
if sys.argv[1] == "status":
    print(os.environ["STALE"])
    sys.exit()
target = sys.argv[-1]
with open("calls", "a") as out:
    print("begin", target, file=out)
print("Stage 'x' didn't change, skipping")
print("Running stage", target, flush=True)
if target == os.environ.get("SLOW"):
    time.sleep(0.5)
with open("calls", "a") as out:
    print("end", target, file=out)
sys.exit(target == os.environ.get("BREAKS"))
"""
PARAMS = {
    "threads": 1,
    "benches": {"fever": {}, "zsre": {}},
    "runs": {
        "fever-ft": {"bench": "fever"},
        "zsre-ft": {"bench": "zsre"},
        "zsre-mend": {"bench": "zsre"},
    },
}
EVERYTHING = {"label@fever", "label@zsre", *(f"evaluate@{run}" for run in PARAMS["runs"])}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake = tmp_path / "bin" / "dvc"
    fake.parent.mkdir()
    fake.write_text(FAKE.format(python=sys.executable))
    fake.chmod(fake.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    stale(monkeypatch, "prepare@fever", "prepare@zsre")
    return tmp_path


def stale(monkeypatch: pytest.MonkeyPatch, *stages: str) -> None:
    monkeypatch.setenv("STALE", json.dumps({stage: ["changed"] for stage in stages}))


def calls(project: Path) -> list[str]:
    return (project / "calls").read_text().splitlines()


def test_each_target_runs_once_after_its_benchmark_and_the_rest_last(project: Path) -> None:
    repro(project, PARAMS, jobs=2)
    found = calls(project)
    assert sorted(found) == sorted(
        f"{what} {target}" for what in ("begin", "end") for target in {*EVERYTHING, "repro"}
    )
    for run in PARAMS["runs"]:
        bench = run.split("-")[0]
        assert found.index(f"end label@{bench}") < found.index(f"begin evaluate@{run}")
    assert found[-2:] == ["begin repro", "end repro"]


def test_only_what_is_stale_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale(monkeypatch, "fit@zsre-mend", "report")
    repro(project, PARAMS, jobs=2)
    assert [c for c in calls(project) if c.startswith("begin")] == [
        "begin evaluate@zsre-mend",
        "begin repro",
    ]


def test_one_lane_is_plain_dvc(project: Path) -> None:
    repro(project, PARAMS, jobs=1)
    assert calls(project) == ["begin repro", "end repro"]


def test_a_failure_starts_nothing_more(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BREAKS", "label@fever")
    monkeypatch.setenv("SLOW", "label@zsre")
    with pytest.raises(StageError, match=r"label@fever.*exit code 1.*what is finished is kept"):
        repro(project, PARAMS, jobs=2)
    assert "end label@zsre" in calls(project)  # what runs is finished and kept
    assert not {call for call in calls(project) if "evaluate" in call or call == "begin repro"}


def test_lines_name_their_lane(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        repro(project, PARAMS, jobs=2)
    assert "zsre-mend | Running stage evaluate@zsre-mend" in caplog.messages
    assert not any("skipping" in message for message in caplog.messages)


def test_lanes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert lanes({"threads": 2}, None) == 4
    assert lanes({"threads": 16}, None) == 1
    assert lanes({"threads": 1}, 3) == 3
