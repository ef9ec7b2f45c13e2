"""The papers' tables: counted by hand, the same in every form, absent where there is no data."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_runs import Fake, outcomes, study

from pipeline import metrics, reporting
from pipeline.metrics import Summary
from pipeline.reporting import caching, headline, inputs, ordering, published, variants
from pipeline.storage import read_json

ALL = ("ft", "ft_kl", "enn", "ke", "mend", "cache", "malmen")
NOTED = {"parameters": 12345, "peak_rss_mb": 1500.0, "seconds": 12.5}


def success(run: reporting.Run) -> float:
    """Share of cases whose first rephrasing is right, counted from the rows."""
    rows = pd.read_parquet(run.folder / "outcomes.parquet")
    return float(rows[(rows["probe"] == "rephrase") & (rows["index"] == 0)]["tf_exact"].mean())


def lost(run: reporting.Run, before: str = "pre_") -> float:
    """Right answers lost on unrelated probes, cases weighing alike."""
    rows = pd.read_parquet(run.folder / "outcomes.parquet")
    own = rows[rows["probe"] == "unrelated"].groupby("case_id")
    return float((own[f"{before}tf_exact"].mean() - own["tf_exact"].mean()).mean())


def tell(request: reporting.Request, folder: Path) -> str:
    """Write a report; its Markdown."""
    reporting.write_report(request, folder)
    return (folder / "report.md").read_text()


def find(request: reporting.Request, name: str) -> reporting.Run:
    return next(run for run in request.runs if run.name == name)


@pytest.fixture(scope="module")
def main(tmp_path_factory: pytest.TempPathFactory) -> tuple[reporting.Request, Path]:
    """Seven editors, given in the wrong order, on the three benchmarks of the MEND paper."""
    qualities = dict(zip(ALL, (0.4, 0.3, 0.95, 0.6, 0.9, 0.01, 0.9), strict=True))
    runs = [
        Fake(bench, alg, qualities[alg], 0.1, adapts=alg == "enn", notes=NOTED)
        for bench in ("fever", "zsre", "wikitext")
        for alg in reversed(ALL)
    ]
    request = study(tmp_path_factory.mktemp("main"), "main", runs)
    folder = tmp_path_factory.mktemp("report")
    reporting.write_report(request, folder)
    return request, folder


def test_one_table_holds_every_editor_in_the_papers_order(
    main: tuple[reporting.Request, Path],
) -> None:
    request, folder = main
    text, page = ((folder / f"report.{end}").read_text() for end in ("md", "html"))
    table = text.partition("**Edit success on a rephrasing")[2].partition("\n- ")[0]
    names = re.findall(r"^\| (\S+) \|", table.replace("\\", ""), re.M)
    assert names == ["Editor", "---", *ALL]
    frame = pd.read_csv(folder / "tables" / "overview.csv").set_index(["editor", "bench"])
    for alg in ALL:
        run = find(request, f"zsre-{alg}")
        assert frame.loc[(alg, "zsre"), "success"] == pytest.approx(success(run))
        assert frame.loc[(alg, "zsre"), "drawdown"] == pytest.approx(lost(run), abs=1e-6)
    mend = frame.loc[("mend", "zsre")]
    shown = f"{mend['success']:.3f} / {mend['drawdown']:.3f}"
    assert shown in table
    assert f"{shown}<small>[{mend['success_low']:.3f}, {mend['success_high']:.3f}] / [" in page


def test_an_editor_that_trains_the_model_is_measured_against_the_original_too(
    main: tuple[reporting.Request, Path],
) -> None:
    request, folder = main
    run = find(request, "zsre-enn")
    frame = pd.read_csv(folder / "tables" / "overview.csv").set_index(["editor", "bench"])
    against = frame.loc[("enn", "zsre"), "drawdown_original"]
    assert against == pytest.approx(lost(run, "orig_"), abs=1e-6)
    assert math.isnan(frame.loc[("mend", "zsre"), "drawdown_original"])
    text = (folder / "report.md").read_text()
    assert f"enn on zsRE {against:.3f}" in text
    assert "| enn | no | yes |" in text
    assert "| mend | yes | yes |" in text
    assert "| ft\\_kl | yes | no: unrelated examples" in text


def test_the_unedited_model_is_the_base_and_never_an_editors_own() -> None:
    frame = outcomes("zsre", "enn", 20, 0.9, 0.1)
    assert metrics.unedited(frame)["accuracy_unrelated"]["value"] > 0.5
    frame["orig_tf_exact"] = 0.25
    assert metrics.unedited(frame)["accuracy_unrelated"]["value"] == 0.25
    assert "generation_success_edit" not in metrics.unedited(frame)  # the original wrote nothing


def test_every_statement_has_its_numbers_and_its_verdict(
    main: tuple[reporting.Request, Path],
) -> None:
    request, folder = main
    table = pd.read_csv(folder / "tables" / "ordering.csv")
    verdicts = {(row.bench, row.statement): row for row in table.itertuples()}
    assert len(table) == 8
    low = verdicts["fever", "cache reaches at least 0.9 success"]
    assert low.verdict == "does not hold here"
    assert low.here == f"cache {success(find(request, 'fever-cache')):.3f}"
    assert low.intervals == "confirm it"
    assert verdicts["wikitext", "cache stays under 0.05 success"].verdict == "holds"
    above = verdicts["wikitext", "mend and enn succeed more often than ke and ft"]
    values = {alg: success(find(request, f"wikitext-{alg}")) for alg in ("mend", "enn", "ke", "ft")}
    holds = min(values["mend"], values["enn"]) > max(values["ke"], values["ft"])
    assert above.verdict == ("holds" if holds else "does not hold here")
    assert all(f"{alg} {value:.3f}" in above.here for alg, value in values.items())
    held = (table["verdict"] == "holds").sum()
    assert f"in part at this scale: {held} of 8 statements" in (folder / "report.md").read_text()


def test_a_bound_is_open_where_the_interval_reaches_past_it() -> None:
    sure = ordering.Check(shown=("a",), slack=0.1, low=0.05, high=0.2)
    open_ = replace(sure, low=-0.01)
    fails = ordering.Check(shown=("a",), slack=-0.1, low=-0.2, high=-0.05)
    assert not ordering.Claim(bench="zsre", text="", checks=(sure, sure)).open
    assert ordering.Claim(bench="zsre", text="", checks=(sure, open_)).open
    both = ordering.Claim(bench="zsre", text="", checks=(open_, fails))
    assert not both.holds
    assert not both.open


def test_properties_time_and_memory_are_those_measured(
    main: tuple[reporting.Request, Path],
) -> None:
    request, folder = main
    row = pd.read_csv(folder / "tables" / "properties.csv").set_index("editor").loc["mend"]
    assert row["parameters_low"] == row["parameters_high"] == 12345
    assert row["fit_seconds_high"] == 12.5
    assert row["fit_memory_mb_high"] == 1500
    spent = pd.read_csv(folder / "tables" / "time.csv")
    own = spent[(spent["what"] == "mend") & (spent["bench"] == "zsre")].set_index("stage")
    times = pd.read_parquet(find(request, "zsre-mend").folder / "timings.parquet")
    assert own.loc["fit", "seconds"] == 12.5
    total = (times["edit_seconds"] + times["score_seconds"]).sum()
    assert own.loc["evaluate", "seconds"] == pytest.approx(total)
    base = spent[spent["what"] == "base model"]
    assert list(base["seconds"]) == [31.5] * 3
    text = (folder / "report.md").read_text()
    assert f"| total | {spent[spent['bench'] == 'fever']['seconds'].sum():.1f} |" in text
    assert "**Peak memory while fitting, MB**" in text


def test_tables_without_data_are_absent(tmp_path: Path) -> None:
    request = study(tmp_path / "runs", "main", [Fake("zsre", "ft", 0.5, 0.1)])
    text = tell(request, tmp_path / "report")
    titles = ("Edits at once", "Ablations", "MLP or attention", "The cache's radius")
    assert not [title for title in titles if f"## {title}" in text]
    assert "Peak memory while fitting" not in text
    assert "The paper's ordering" not in text


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> tuple[reporting.Request, Path]:
    runs = [
        Fake("zsre", alg, good / k**0.2, 0.02 * k**0.5, k=k, adapts=alg == "enn")
        for alg, good in (("mend", 0.95), ("enn", 0.9))
        for k in (25, 1, 5)
    ]
    request = study(tmp_path_factory.mktemp("runs"), "batched", runs, 50)
    bench = replace(request.benches[0], paper="mend-table-4-zsre")
    folder = tmp_path_factory.mktemp("report")
    reporting.write_report(replace(request, benches=(bench,)), folder)
    return request, folder


def test_edits_at_once_by_k(batches: tuple[reporting.Request, Path]) -> None:
    request, folder = batches
    frame = pd.read_csv(folder / "tables" / "batched.csv").set_index(["editor", "k"])
    for run in request.runs:
        found = frame.loc[(run.alg, run.k)]
        assert found["success"] == pytest.approx(success(run))
        assert found["drawdown"] == pytest.approx(lost(run), abs=1e-6)
        assert found["groups"] == 50 // run.k
        assert found["success_n"] == found["drawdown_n"] == 50
    text = (folder / "report.md").read_text()
    assert "which drawdown is of" not in text
    table = text.partition("## Edits at once")[2].partition("\n- ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| k = ")]
    assert [row[:9].strip("| ") for row in rows[:3]] == ["k = 1", "k = 5", "k = 25"]
    mend = frame.loc[("mend", 25), "success"]
    assert f"{mend:.3f} [" in rows[2]
    paper = "published: Mitchell et al. 2022, Table 5, BART-base 139M"
    assert rows[-1] == f"| k = 25 {paper} | 0.35 | 0.005 | 0.89 | 0.011 |"
    page = (folder / "report.html").read_text()
    assert f"{mend:.3f}<small>[" in page
    svg = (folder / "figures" / "batched-zsre.svg").read_text()
    assert all(word in svg for word in ("Edits at once (k)", "mend", "enn", "Drawdown"))
    assert "FillBetween" in svg or "PolyCollection" in svg  # bands
    assert "| mend | yes | yes | yes: up to 25 here |" in text


def test_many_editors_at_few_k_stand_below_each_other(tmp_path: Path) -> None:
    names = [f"v{number}" for number in range(6)]
    runs = [
        Fake("counterfact", "ft", 0.9, 0.1, variant=name, k=k) for name in names for k in (1, 4)
    ]
    text = tell(study(tmp_path, "relations", [*runs[:10], runs[11]]), tmp_path / "report")
    table = text.partition("## Edits at once")[2].partition("\n- ")[0]
    head, _, *rows = [line for line in table.splitlines() if line.startswith("|")]
    assert head.startswith("| Editor | k = 1: success (↑) | k = 1: drawdown (↓) | k = 4: success")
    assert [row.split(" | ")[0] for row in rows] == [f"| ft-{name}" for name in names]
    assert rows[-1].split(" | ")[1:3] == ["–", "–"]


def test_edits_in_turn_by_number(tmp_path: Path) -> None:
    runs = [
        Fake("zsre", alg, 0.9 / k**0.3, 0.02 * k**0.5, k=k, in_turn=True)
        for alg in ("mend", "ft")
        for k in (1, 2, 10)
    ]
    request = study(tmp_path / "runs", "sequence", runs, 50)
    reporting.write_report(request, tmp_path / "report")
    frame = pd.read_csv(tmp_path / "report" / "tables" / "sequence-zsre.csv")
    frame = frame.set_index(["editor", "edits"])
    for run in request.runs:
        rows = pd.read_parquet(run.folder / "outcomes.parquet")
        own = rows[(rows["probe"] == "rephrase") & (rows["step"] == (1 if run.k > 1 else 0))]
        first = own.groupby("case_id")["tf_exact"].first().mean()
        assert frame.loc[(run.alg, run.k), "first"] == pytest.approx(first)
        assert frame.loc[(run.alg, run.k), "success"] == pytest.approx(success(run))
    text = (tmp_path / "report" / "report.md").read_text()
    table = text.partition("## In turn: zsRE")[2].partition("\n- ")[0]
    counts = [line.split("|")[1].strip() for line in table.splitlines() if line[2:3].isdigit()]
    assert counts == ["1", "2", "10"]
    assert "the second of two edits in turn" in text
    assert "## Edits at once" not in text
    assert (tmp_path / "report" / "figures" / "sequence-zsre.svg").is_file()


def test_cases_edited_together_are_drawn_together() -> None:
    """Two halves, one all right and one all wrong: as a pair of groups, the mean is 0, ½ or 1."""
    frame = outcomes("zsre", "mend", 20, 0.5, 0.0).assign(k=10)
    first = set(frame["case_id"].unique()[:10])
    frame["tf_exact"] = frame["case_id"].isin(first).astype(float)
    numbers = metrics._summary(frame, 0)["edit_success_rephrase"]
    assert (numbers["low"], numbers["value"], numbers["high"]) == (0.0, 0.5, 1.0)
    alone = metrics._summary(frame.assign(k=1), 0)["edit_success_rephrase"]
    assert alone["low"] > 0.2  # ignoring the groups would be far too sure
    one = metrics._summary(frame.assign(k=20), 0)["edit_success_rephrase"]
    assert np.isnan([one["low"], one["high"]]).all()


def test_ablations_with_parameters_and_budget(tmp_path: Path) -> None:
    names = ("no_norm", "only_u", "no_sharing")
    runs = [Fake("zsre", "mend", 0.9, 0.1, notes={"parameters": 678408})]
    runs += [
        Fake("zsre", "mend", 0.8 - i / 5, 0.1, variant=name, notes={"parameters": 1000 + i})
        for i, name in enumerate(names)
    ]
    request = study(tmp_path / "runs", "ablations", runs)
    bench = replace(request.benches[0], paper="mend-table-6-zsre")
    text = tell(replace(request, benches=(bench,)), tmp_path / "report")
    table = text.partition("## Ablations")[2].partition("\n## ")[0]
    order = re.findall(r"^\| (mend\S*) \|", table, re.M)
    assert [name.replace("\\", "") for name in order] == [
        "mend-no_sharing", "mend-no_norm", "mend-only_u", "mend",
    ]  # fmt: skip
    frame = pd.read_csv(tmp_path / "report" / "tables" / "ablations.csv").set_index("variant")
    for run in request.runs[1:]:
        assert frame.loc[run.variant, "success"] == pytest.approx(success(run))
    assert frame.loc["no_norm", "parameters"] == 1000
    assert f"{frame.loc['no_norm', 'success']:.3f} [" in table
    assert "| 1,000 | 370 | 74 |" in table  # parameters, steps and seconds of the curve
    assert "| no\\_norm published: Mitchell et al. 2022, Table 6, BART-base 139M | 0.97 |" in table
    assert "The paper's ordering" not in text
    assert "mend-no\\_norm less mend" in text


def test_mlp_against_attention(tmp_path: Path) -> None:
    runs = [
        Fake("zsre", alg, good, 0.1, variant=variant)
        for alg in ("mend", "ke")
        for variant, good in (("", 0.9), ("attention", 0.6))
    ]
    request = study(tmp_path / "runs", "attention", runs)
    text = tell(request, tmp_path / "report")
    table = text.partition("## MLP or attention")[2].partition("\n- ")[0]
    for alg in ("ke", "mend"):
        line = next(row for row in table.splitlines() if row.startswith(f"| zsRE, {alg}"))
        shown = re.findall(r"(\S+) \[", line)
        mlp, attention = (find(request, f"zsre-{alg}{end}") for end in ("", "-attention"))
        assert shown[0] == f"{success(mlp):.3f}"
        assert shown[2] == f"{success(attention):.3f}"
    assert "## Ablations" not in text


def test_the_caches_radius(tmp_path: Path) -> None:
    tried = {"epsilon": [0.5, 1.0, 2.0, 4.0], "success": [0.1, 0.5, 0.9, 1.0],
             "drawdown": [0.0, 0.0, 0.01, 0.3]}  # fmt: skip
    noted = {"epsilon": 2.0, "epsilon_star": 2.0, "curve": tried}
    runs = [
        Fake("zsre", "mend", 0.9, 0.1),
        Fake("zsre", "cache", 0.8, 0.1, notes=noted),
        Fake("zsre", "cache", 0.5, 0.0, variant="half", notes=noted),
    ]
    request = study(tmp_path / "runs", "caching", runs)
    text = tell(request, tmp_path / "report")
    table = text.partition("## The cache's radius")[2].partition("\n## ")[0]
    half = success(find(request, "zsre-cache-half"))
    assert re.search(rf"^\| cache, ½ε\\\* \| 1.000 \| {half:.3f} \[", table, re.M)
    assert re.search(r"^\| cache, ε\\\* \| 2.000 \|", table, re.M)
    assert "on training cases" in table
    curve = pd.read_csv(tmp_path / "report" / "tables" / "radius-zsre.csv")
    assert list(curve["success"]) == tried["success"]
    assert (tmp_path / "report" / "figures" / "cache-zsre.svg").is_file()
    assert "| zsre-cache | alpha: 0.01; epsilon: 2; epsilon star: 2 |" in text
    assert "## Ablations" not in text


def test_notes_without_a_curve_give_no_figure() -> None:
    assert caching.curve({"epsilon": 2.0}).empty
    assert (
        caching.picture("zsre", {"epsilons": [1.0], "other": 3}, ["cache"], "drawdown_accuracy")
        is None
    )


def test_published_tables_stand_beside_only_over_the_same_model_and_data() -> None:
    found = published.beside("mend-table-4-zsre", "zsre", "Table 6")
    assert found
    assert found.value("no_norm", "edit_success_rephrase") == "0.97"
    five = published.beside("mend-table-4-zsre", "zsre", "Table 5", 25)
    assert five
    assert five.both("mend") == "0.89 / 0.011"
    hard = published.beside("mend-table-4-zsre", "zsre", "Table 11")
    assert hard
    assert hard.data != "zsRE-hard"
    assert published.beside("mend-table-3-zsre-t5-xl", "zsre", "Table 6") is None
    assert published.beside(None, "zsre", "Table 6") is None


def test_what_tells_runs_apart() -> None:
    run = reporting.Run(name="", bench="zsre", alg="mend", folder=Path(), metrics=Path())
    assert run.label == "mend"
    assert replace(run, variant="no_norm", k=25).label == "mend-no_norm-k25"
    assert not replace(run, k=5).plain
    assert variants.place(run) == "mlp"


def test_headline_numbers_survive_infinity() -> None:
    summary: Summary = {"perplexity_drawdown": {"value": None, "low": None, "high": None, "n": 9}}
    assert headline.value(summary, headline.drawdown(summary)).value == math.inf
    assert math.isnan(headline.value(summary, "accuracy_drawdown").value)


def test_runs_of_today_need_none_of_the_new_keys(tmp_path: Path) -> None:
    request = study(tmp_path, "main", [Fake("zsre", "ft", 0.5, 0.1)])
    material = inputs.read(request)
    assert [run.label for run in material.of("zsre")] == ["ft"]
    assert read_json(request.runs[0].metrics)["edit_success_rephrase"]["n"] == 40
