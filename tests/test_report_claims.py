"""A report says no more than its rows do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
from fake_runs import Fake, study
from test_studies import lost, tell

from pipeline import metrics
from pipeline.storage import write_json
from pipeline.tables import write_frame


def test_what_was_not_measured_refutes_nothing(tmp_path: Path) -> None:
    """Edits without another wording: no success on one, and no word about it."""
    request = study(tmp_path / "runs", "main", [Fake("fever", "mend", 0.95, 0.01)])
    (run,) = request.runs
    rows = pd.read_parquet(run.folder / "outcomes.parquet")
    rows = rows[rows["probe"] != "rephrase"]
    write_frame(run.folder / "outcomes.parquet", rows)
    times = pd.read_parquet(run.folder / "timings.parquet")
    write_json(run.metrics, metrics.plain(metrics.summarise(rows, times)))
    text = tell(request, tmp_path / "report")
    assert "ordering" not in text
    drawdown = lost(run)
    row = next(line for line in text.splitlines() if line.startswith("| mend | –"))
    assert row.startswith(f"| mend | – / {drawdown:.3f}")  # what is known is told


def test_a_fit_that_runs_share_takes_its_time_once(tmp_path: Path) -> None:
    fakes = [
        Fake("zsre", "mend", 0.9, 0.1, k=k, in_turn=k > 1, notes={"seconds": 12.5})
        for k in (1, 2, 5)
    ]
    request = study(tmp_path / "runs", "sequence", fakes)
    shared = request.runs[0].fit
    request = replace(request, runs=tuple(replace(run, fit=shared) for run in request.runs))
    tell(request, tmp_path / "report")
    spent = pd.read_csv(tmp_path / "report" / "tables" / "time.csv")
    assert spent[spent["stage"] == "fit"]["seconds"].tolist() == [12.5]


def test_an_editor_alone_that_trains_the_model_is_not_the_unedited_one(tmp_path: Path) -> None:
    fakes = [Fake("zsre", "enn", 0.9, 0.1, adapts=True)]
    text = tell(study(tmp_path / "runs", "main", fakes), tmp_path / "report")
    assert "enn trains the model that it edits" in text
    assert "unedited model trains" not in text
