"""Mass editing in the report: scores against n, counted again from the rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import Fake, study

from pipeline import metrics, reporting
from pipeline.reporting import inputs, scaling
from pipeline.storage import write_json
from pipeline.tables import write_frame

CASES = 48


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[reporting.Request, Path]:
    fakes = [
        Fake("counterfact", alg, good / n**fade, 0.02 * n**0.3, k=n)
        for alg, good, fade in (("memit", 0.95, 0.02), ("rome", 0.97, 0.3))
        for n in (1, 12, 48)
    ]
    request = study(tmp_path_factory.mktemp("runs"), "scaling", fakes, CASES)
    folder = tmp_path_factory.mktemp("report")
    reporting.write_report(request, folder)
    return request, folder


def rows_of(request: reporting.Request, alg: str, n: int) -> pd.DataFrame:
    run = next(run for run in request.runs if (run.alg, run.k) == (alg, n))
    return pd.read_parquet(run.folder / "outcomes.parquet")


def share(rows: pd.DataFrame, probe: str, *, kept: bool = False) -> float:
    """Share of wins, cases weighing alike; a tie loses."""
    own = rows[rows["probe"] == probe]
    new_wins = own["nll_new"] < own["nll_true"]
    wins = own["nll_new"] > own["nll_true"] if kept else new_wins
    return float(wins.groupby(own["case_id"]).mean().mean())


def test_scores_by_n_are_those_of_the_rows(runs: tuple[reporting.Request, Path]) -> None:
    request, folder = runs
    found = pd.read_csv(folder / "tables" / "scaling-counterfact.csv").set_index(["editor", "n"])
    for alg in ("memit", "rome"):
        for n in (1, 12, 48):
            rows, row = rows_of(request, alg, n), found.loc[(alg, n)]
            parts = [share(rows, "edit"), share(rows, "rephrase"),
                     share(rows, "neighbour", kept=True)]  # fmt: skip
            assert row[["ES", "PS", "NS"]].tolist() == pytest.approx(parts, rel=1e-4)
            assert row["S"] == pytest.approx(3 / sum(1 / part for part in parts), rel=1e-4)
            texts = rows[rows["probe"] == "generation"]
            assert row["GE"] == pytest.approx(texts["gen_entropy"].mean(), rel=1e-4)
            assert row["RS"] == pytest.approx(texts["gen_reference"].mean(), rel=1e-4)
            assert row["groups"] == CASES // n
            said = rows[rows["probe"] == "edit"]["tf_exact"]
            assert row["edit_success_edit"] == pytest.approx(said.mean(), rel=1e-4)
    one = found.loc[("memit", 48)]
    assert one["ES_low"] < one["ES"] < one["ES_high"]  # over cases: there is one group
    assert "of fewer cases" not in (folder / "report.md").read_text()


def test_the_main_table_has_every_editor_at_its_largest_n(
    runs: tuple[reporting.Request, Path],
) -> None:
    request, folder = runs
    text = (folder / "report.md").read_text()
    table = text.partition("## Scaling: CounterFact")[2].partition("![")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    assert lines[0].startswith("| Editor | Edits at once | S (↑) | ES (↑) | PS (↑) | NS (↑) | GE")
    assert [line.split(" | ")[:2] for line in lines[2:5]] == [
        ["| unedited model", "–"], ["| rome", "48"], ["| memit", "48"],
    ]  # fmt: skip
    rows = rows_of(request, "memit", 48)
    assert f"| {100 * share(rows, 'edit'):.1f} [" in lines[4]
    assert "| 600.0 [" in lines[2]  # the unedited model's texts
    assert "rome, memit: one group of edits" in table
    assert "published" not in table


def test_curves_and_relations(runs: tuple[reporting.Request, Path]) -> None:
    request, folder = runs
    svg = (folder / "figures" / "scaling-counterfact.svg").read_text()
    for word in ("Edits at once (n)", "S (share)", "NS (share)", "memit", "rome"):
        assert word in svg
    split = pd.read_csv(folder / "tables" / "relations-counterfact.csv")
    split = split.set_index(["editor", "relation"])
    rows = rows_of(request, "memit", 48)
    own = rows[rows["relation"] == "P1"]
    parts = [share(own, "edit"), share(own, "rephrase"), share(own, "neighbour", kept=True)]
    assert split.loc[("memit", "P1"), "S"] == pytest.approx(3 / sum(1 / p for p in parts), rel=1e-4)
    assert split.loc[("memit", "P1"), "cases"] == CASES // 2
    assert "| P0 | 24 |" in (folder / "report.md").read_text()


def test_scores_that_few_cases_have_say_so(tmp_path: Path) -> None:
    """All neighbours but three cases' are what another edit of their group is about."""
    request = study(
        tmp_path / "runs", "scaling", [Fake("counterfact", "memit", 0.9, 0.1, k=48)], CASES
    )
    (run,) = request.runs
    rows = rows_of(request, "memit", 48)
    few = rows["case_id"].isin(sorted(rows["case_id"].unique())[:3])
    rows = rows[(rows["probe"] != "neighbour") | few]
    write_frame(run.folder / "outcomes.parquet", rows)
    times = pd.read_parquet(run.folder / "timings.parquet")
    write_json(run.metrics, metrics.plain(metrics.summarise(rows, times)))
    reporting.write_report(request, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "NS (and the harmonic mean with it) is of fewer cases: 3 (memit)." in text
    assert not (tmp_path / "report" / "tables" / "relations-counterfact.csv").exists()


def test_published_rows_stand_beside_only_in_their_setting(
    runs: tuple[reporting.Request, Path], tmp_path: Path
) -> None:
    request, _ = runs
    bench = replace(request.benches[0], paper="memit-counterfact-gpt-j")
    reporting.write_report(replace(request, benches=(bench,)), tmp_path)
    table = (tmp_path / "report.md").read_text().partition("## Scaling")[2].partition("![")[0]
    paper = "published: Meng et al. 2023 (MEMIT), GPT-J 6B | – 10,000 CounterFact edits at once"
    assert (
        f"| memit {paper} | 85.8 | 98.9±0.2 | 88.6±0.5 | 73.7±0.5 | 619.9±0.3 | 40.1±0.2 |" in table
    )
    assert f"| base {paper} | 22.4 |" in table


def test_cases_without_references_or_texts(tmp_path: Path) -> None:
    fakes = [Fake("counterfact", "memit", 0.9, 0.1, k=n) for n in (1, 4)]
    request = study(tmp_path, "scaling", fakes, 8)
    material = inputs.read(request)
    lacking = {
        name: rows.drop(columns=["gen_reference", "pre_gen_reference", "relation"])
        for name, rows in material.outcomes.items()
    }
    scored = {
        run.name: metrics.summarise(lacking[run.name], material.timings[run.name])
        for run in request.runs
    }
    without = replace(material, outcomes=lacking, metrics=scored)
    found = scaling.frame(without, "counterfact")
    table = scaling.table(without, request.benches[0], found)
    assert {row[table.header.index("RS (↑)")].text for row in table.rows} == {"–"}
    assert any("without reference texts" in note for note in table.notes)
    assert scaling.by_relation(without, "counterfact", found).empty


def test_single_edits_and_other_benchmarks_have_no_such_section(tmp_path: Path) -> None:
    fakes = [Fake("counterfact", "mend", 0.9, 0.1), Fake("zsre", "mend", 0.9, 0.1, k=4)]
    material = inputs.read(study(tmp_path, "main", fakes))
    assert scaling.frame(material, "counterfact").empty
    assert scaling.frame(material, "zsre").empty
