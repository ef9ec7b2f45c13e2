"""Stages of one DVC call: the first runs by itself, the others as forks of what it left warm."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """import sys
print("warm" if "colorsys" in sys.modules else "cold", sys.argv[1:], __name__, flush=True)
sys.exit(sys.argv[1] == "fails")
"""
STAGE = """import sys
from pipeline import standby, warm
warm.STAGES, warm.LATER = ("colorsys",), ()
sys.exit(standby.run("program", sys.argv[1:]))
"""
# What stands for DVC: it waits for each of its stages, and a shell may stand between them.
CALLER = """import os, subprocess, sys
stage = [sys.executable, "stage.py"]
for words in (["first"], ["second", "two words"], ["fails"]):
    print(subprocess.run(stage + words).returncode, flush=True)
said = subprocess.run(["/bin/sh", "-c", f"{sys.executable} stage.py shell; exit 3"]).returncode
print(said, os.getpid(), flush=True)
"""


def place_of(master: str) -> Path:
    return Path(tempfile.gettempdir()) / f"errata-{os.getuid()}-{master}"


def called(folder: Path, **extra: str) -> list[str]:
    for name, text in (("program", PROGRAM), ("stage", STAGE), ("caller", CALLER)):
        (folder / f"{name}.py").write_text(text)
    environment = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"}
    environment |= {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", **extra}
    process = subprocess.run(
        [sys.executable, "caller.py"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert process.stderr == ""
    return process.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each stage starts by itself")
def test_the_first_stage_leaves_a_warm_process_for_those_after_it(tmp_path: Path) -> None:
    *said, last = called(tmp_path, DVC_STAGE="fit@x")
    assert said == [
        "cold ['first'] __main__",
        "0",
        "warm ['second', 'two words'] __main__",
        "0",
        "warm ['fails'] __main__",
        "1",
        "warm ['shell'] __main__",
    ]
    code, master = last.split()
    assert code == "3"
    place = place_of(master)
    end = time.monotonic() + 20
    while place.exists() and time.monotonic() < end:  # the server ends with its DVC
        time.sleep(0.1)
    assert not place.exists()


def test_a_stage_that_dvc_does_not_run_leaves_nothing(tmp_path: Path) -> None:
    said = called(tmp_path)
    assert [line.split()[0] for line in said if line.startswith(("cold", "warm"))] == ["cold"] * 4
    assert not place_of(said[-1].split()[1]).exists()


def test_an_unknown_stage_is_named_with_those_there_are() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "stages", "fitt"], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode == 1
    assert "usage: python -m stages STAGE" in process.stderr
    assert "evaluate, fit, label" in process.stderr
