"""The whole graph at its tiniest size, in a copy of the project: what runs, and what runs again."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.composition import compose, write_record
from pipeline.warm import MODULES, warm

ROOT = Path(__file__).parents[1]
BENCHES = ("counterfact", "fever", "wikitext", "zsre")
# One that learns by steps, one that chooses a value, one without weights; all share their stages.
ALGS = ("cache", "ft", "mend")
SOME = f"algs=[{','.join(ALGS)}]"


@dataclass(frozen=True)
class Project:
    """A copy of the project, with the commands that a user types."""

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str, succeeds: bool = True) -> str:
        """Run a command in the copy; return what it printed."""
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert (done.returncode == 0) == succeeds, done.stdout[-5000:]
        return done.stdout

    def repro(self, *words: str) -> set[str]:
        """`dvc repro`; return the stages that ran (or, with --dry, would)."""
        return ran(self.run("dvc", "repro", *words))

    def params(self, *overrides: str) -> None:
        """Compose the tiny suite's record."""
        write_record(self.folder, compose(self.folder, ["suite=tiny", SOME, *overrides]))

    def logged(self) -> list[tuple[str, str]]:
        """Name and status of the runs in MLflow's database."""
        with sqlite3.connect(self.folder / "mlflow" / "mlflow.db") as database:
            return sorted(database.execute("select name, status from runs").fetchall())


def ran(said: str) -> set[str]:
    """The stages that DVC ran, from what it said."""
    return set(re.findall(r"Running stage '([^']+)'", said))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The copy, its graph run once from nothing."""
    folder = tmp_path_factory.mktemp("graph")
    copy = folder / "errata"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.split("\0"):
        if name and (ROOT / name).is_file() and name not in ("dvc.lock", "params.yaml"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    with warm([*MODULES, "mlflow"]) as commands:
        places = [str(commands), str(Path(sys.executable).parent), os.environ["PATH"]]
        environment = {
            "PATH": os.pathsep.join(places),
            "HOME": str(folder),
            "PYTHONPATH": str(copy),  # for DVC's own process, which composes
            "DVC_NO_ANALYTICS": "true",
            **{
                f"GIT_{who}_{what}": value
                for who in ("AUTHOR", "COMMITTER")
                for what, value in (("NAME", "tests"), ("EMAIL", "tests@localhost"))
            },
        }
        made = Project(copy, environment)
        made.params()
        made.run("git", "init", "--quiet")
        made.run("git", "add", "--all")
        made.run("git", "commit", "--quiet", "--message", "copy")
        made.repro()
        made.run("git", "add", "--all")
        made.run("git", "commit", "--quiet", "--message", "run")
        yield made


def test_every_run_leaves_results_and_a_report(project: Project) -> None:
    runs = [f"{bench}-{alg}" for bench in BENCHES for alg in ALGS]
    results, report = project.folder / "data/tiny/main", project.folder / "reports/tiny/main"
    assert sorted(path.name for path in results.iterdir()) == runs
    for run in runs:
        assert (results / run / "outcomes.parquet").stat().st_size
        metrics = json.loads((report / "metrics" / f"{run}.json").read_text())
        assert {"value", "low", "high", "n"} == set(metrics["edit_success_edit"])
    assert "suite" in (report / "report.md").read_text()  # the record is not the default's
    assert project.logged() == [(run, "FINISHED") for run in runs]
    assert "zsre-mend" in project.run("dvc", "metrics", "show")


def test_again_nothing_runs_and_nothing_is_logged_twice(project: Project) -> None:
    assert project.repro() == set()
    assert "up to date" in project.run("dvc", "status")
    assert project.run("git", "status", "--porcelain") == ""
    project.run(sys.executable, "-m", "pipeline", "mlflow")
    assert len(project.logged()) == 12


def test_a_setting_of_one_editor_reruns_that_editor_and_the_report(project: Project) -> None:
    project.params("editors.mend.rank=3")
    changed = project.repro("--dry")
    project.params()
    expected = {f"{stage}@{bench}-mend" for stage in ("fit", "evaluate") for bench in BENCHES}
    assert changed == expected | {"report"}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (
            "pipeline/editors/mend.py",
            {f"{stage}@{bench}-mend" for stage in ("fit", "evaluate") for bench in BENCHES},
        ),
        ("pipeline/tasks/zsre.py", {"prepare@zsre", "label@zsre"}),
        ("pipeline/metrics.py", {"report"}),
        ("pipeline/cli.py", set()),
    ],
)
def test_a_change_of_code_reruns_what_imports_it(
    project: Project, module: str, expected: set[str]
) -> None:
    path = project.folder / module
    text = path.read_text()
    path.write_text(text + "# changed\n")
    changed = project.repro("--dry")
    path.write_text(text)
    assert changed == expected


def test_experiments_share_the_cache_and_one_database(project: Project) -> None:
    """One editor in the workspace, then its sibling in a temporary folder, as the queue does it."""
    fever = ["-S", "suite=tiny", *(f"-S~benches.{bench}" for bench in BENCHES if bench != "fever")]
    run = ("dvc", "exp", "run", *fever)
    said = project.run(*run, "-S", "alg=mend", "-S", "editors.mend.rank=3")
    assert ran(said) == {"fit@fever-mend", "evaluate@fever-mend", "report"}
    assert len(project.logged()) == 13
    project.run(*run, "--temp", "-S", "alg=ft", "-S", "editors.ft.steps=3")
    assert len(project.logged()) == 14
    assert {status for _, status in project.logged()} == {"FINISHED"}
    assert "fever-ft" in project.run("dvc", "exp", "show", "--csv")
    said = project.run("dvc", "exp", "run", "-S", "suite=tiny", "-S", SOME)
    assert ran(said) == {"report"}
    assert len(project.logged()) == 14


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("alg=mnd", "Could not find 'alg/mnd'"),
        ("editors.mend.rnak=1", "Could not override 'editors.mend.rnak'"),
        ("algs=[mnd]", "Did you mean 'mend'"),
    ],
)
def test_dvc_shows_what_is_wrong_with_an_override(
    project: Project, override: str, expected: str
) -> None:
    said = project.run("dvc", "exp", "run", "-S", "suite=tiny", "-S", override, succeeds=False)
    assert expected in said


def test_stages_refuse_by_name_what_a_hand_edit_broke(project: Project) -> None:
    said = project.run("python", "-m", "stages", "fit", "zsre-mnd", succeeds=False)
    assert "Did you mean 'zsre-mend'" in said
    record = project.folder / "params.yaml"
    text = record.read_text()
    record.write_text(text.replace("rank: 4", "rank: four"))
    said = project.run("python", "-m", "stages", "fit", "zsre-mend", succeeds=False)
    record.write_text(text)
    assert said.strip().startswith(
        "SettingsError: expected settings.zsre-mend.rank to be a whole number; found 'four'"
    )
