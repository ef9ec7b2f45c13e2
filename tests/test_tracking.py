"""MLflow: what a run holds, that it is logged once, and that a broken database costs nothing."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from pipeline import tracking
from pipeline.results import Result, locked_hashes
from pipeline.storage import hash_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

ROOT = Path(__file__).parents[1]


def result(folder: Path, run: str = "zsre-mend", text: str = "right") -> Result:
    """A result with its files, written where they are not: other processes may be reading them."""
    bench, alg = run.split("-")
    outcomes, curve = folder / run / "outcomes.parquet", folder / run / "curve.parquet"
    if not curve.exists():
        outcomes.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"alg": [alg], "gen_text": [text]}).to_parquet(outcomes)
        pd.DataFrame(
            {
                "step": [10, 20],
                "seconds": [1.0, 2.5],
                "loss": [3.0, 2.0],
                "val_success": [math.nan, 0.5],
            }
        ).to_parquet(curve)
    return Result(
        run=run,
        bench=bench,
        alg=alg,
        variant="",
        protocol="single",
        k=1,
        suite="tiny",
        study="main",
        settings={"seed": 0, "editor.rank": 4, "long": "x" * 9000, "empty": None},
        metrics={
            "edit_success_edit": {"value": 0.9, "low": 0.8, "high": 1.0, "n": 10},
            "kl_unrelated": {"value": math.inf, "low": None, "high": None, "n": 10},
            "seconds_per_edit": {"value": None, "low": None, "high": None, "n": 0},
        },
        outcomes=outcomes,
        outcomes_hash=hash_file(outcomes),
        digests={"cases": f"{'a' * 32}.dir", "base": f"{'b' * 32}.dir"},
        curve=curve,
        commit="c" * 40,
        experiment="bushy-oaks",
    )


_LOG_TWO = """
import sys
from pathlib import Path
sys.path[:0] = ["tests"]
from test_tracking import result
from pipeline import tracking
folder = Path(sys.argv[1])
print(tracking.log([result(folder / "data"), result(folder / "data", "zsre-ft")]))
"""


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """Two results that two processes logged at once, in a database that was not there."""
    folder = tmp_path_factory.mktemp("project")
    for run in ("zsre-mend", "zsre-ft"):
        result(folder / "data", run)
    words = [sys.executable, "-c", _LOG_TWO, str(folder)]
    both = [
        subprocess.Popen(
            words, cwd=ROOT, env={"DVC_ROOT": str(folder)}, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate()[0].strip() for process in both]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder, said


@pytest.fixture
def client(logged: tuple[Path, list[str]]) -> MlflowClient:
    from mlflow import MlflowClient

    del logged
    return MlflowClient(tracking_uri=tracking.database())


def test_two_processes_on_a_fresh_database_log_each_result_once(
    logged: tuple[Path, list[str]], client: MlflowClient
) -> None:
    folder, said = logged
    assert sorted(said) == ["0", "2"]
    assert tracking.log([result(folder / "data")]) == 0
    experiment = client.get_experiment_by_name("tiny-main")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 2


def test_a_run_holds_all_that_it_came_from(
    logged: tuple[Path, list[str]], client: MlflowClient
) -> None:
    expected = result(logged[0] / "data")
    (run,) = client.search_runs(["1"], "tags.alg = 'mend'")
    tags = run.data.tags
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "zsre-mend"
    assert {key: tags[key] for key in ("bench", "alg", "suite", "study")} == {
        "bench": "zsre",
        "alg": "mend",
        "suite": "tiny",
        "study": "main",
    }
    assert tags["dvc.cases"] == expected.digests["cases"]
    assert tags["mlflow.source.git.commit"] == expected.commit
    assert tags["DVC_EXP_NAME"] == "bushy-oaks"
    assert tags["outcomes_hash"] == expected.outcomes_hash
    assert run.data.params["editor.rank"] == "4"
    assert run.data.params["long"] == "x" * 6000
    assert run.data.metrics["edit_success_edit"] == 0.9
    assert "seconds_per_edit" not in run.data.metrics
    assert run.inputs.dataset_inputs[0].dataset.digest == expected.digests["cases"]
    curve = client.get_metric_history(run.info.run_id, "curve/loss")
    assert [(point.step, point.value) for point in curve] == [(10, 3.0), (20, 2.0)]
    assert curve[1].timestamp - curve[0].timestamp == 1500
    successes = client.get_metric_history(run.info.run_id, "curve/val_success")
    assert [point.step for point in successes] == [20]
    files = {item.path: item.file_size for item in client.list_artifacts(run.info.run_id)}
    assert files["outcomes.parquet"] == expected.outcomes.stat().st_size
    assert "metrics.json" in files
    assert (logged[0] / "mlflow" / "files").is_dir()


def test_other_outcomes_are_another_run(logged: tuple[Path, list[str]]) -> None:
    changed = replace(result(logged[0] / "more", "zsre-ft", "wrong"), study="other")
    assert tracking.log([changed]) == 1
    assert tracking.log([changed]) == 0


def test_the_same_outcomes_of_other_settings_are_another_run(
    logged: tuple[Path, list[str]],
) -> None:
    changed = replace(result(logged[0] / "data", "zsre-ft"), study="other", settings={"steps": 3})
    assert tracking.log([changed]) == 1
    assert tracking.log([changed]) == 0


@pytest.mark.parametrize("broken", ["no database", "a folder", "no folder"])
def test_a_database_that_cannot_be_opened_is_a_warning(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = result(tmp_path / "data")
    database = tmp_path / "mlflow" / "mlflow.db"
    if broken == "no folder":
        database.parent.write_text("in the way")
    else:
        database.parent.mkdir()
        database.mkdir() if broken == "a folder" else database.write_text("no database" * 100)
    assert tracking.log([found]) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "The results are on disk" in record.getMessage()
    assert "errata mlflow" in record.getMessage()


def test_locked_hashes_are_dvcs_own(tmp_path: Path) -> None:
    assert locked_hashes(tmp_path) == {}
    (tmp_path / "dvc.lock").write_text(
        "schema: '2.0'\n"
        "stages:\n"
        "  label@zsre:\n"
        "    cmd: python -m stages label zsre\n"
        "    outs:\n"
        "    - path: data/tiny/zsre/labelled\n"
        "      hash: md5\n"
        "      md5: 0123456789abcdef0123456789abcdef.dir\n"
    )
    assert locked_hashes(tmp_path) == {
        "data/tiny/zsre/labelled": "0123456789abcdef0123456789abcdef.dir"
    }


def test_a_database_whose_driver_is_not_installed_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql://user:word@nowhere.invalid/x")
    assert tracking.log([result(tmp_path / "data")]) is None
    assert "The results are on disk" in caplog.records[-1].getMessage()
