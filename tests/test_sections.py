"""What a report says in words depends on what was run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import Fake, request, study

from pipeline import reporting
from pipeline.reporting.blocks import Paragraph
from pipeline.reporting.inputs import read
from pipeline.reporting.sections import compose
from pipeline.storage import read_json, write_json


def _intro(told: reporting.Request) -> str:
    document, _ = compose(read(told))
    return next(block.text for block in document.blocks if isinstance(block, Paragraph))


def test_a_report_says_which_cases_were_scored(tmp_path: Path) -> None:
    told = request(tmp_path, {"ft": (0.7, 0.15)})
    assert "Only validation cases are scored" in _intro(told)
    corrected = _intro(replace(told, split="correction"))
    assert "Only corrections are scored (split `correction`)" in corrected
    assert "validation" not in corrected


def test_zsre_of_a_language_model_has_the_scores_of_its_papers(tmp_path: Path) -> None:
    told = study(tmp_path, "zsre_lm", [Fake("zsre", "mend", 0.9, 0.1)])
    caption = "As zsRE is scored for language models"
    plain = tmp_path / "plain"
    reporting.write_report(told, plain)
    assert caption not in (plain / "report.md").read_text()
    bench = told.benches[0]
    write_json(bench.base, {**read_json(bench.base), "kind": "causal"})
    reporting.write_report(told, tmp_path / "causal")
    text = (tmp_path / "causal" / "report.md").read_text()
    head = text.partition(caption)[2].splitlines()[2]
    for word in ("Score", "Efficacy, tokens", "Paraphrase, tokens", "Specificity, tokens",
                 "Agreement, unrelated", "Generated, own wording"):  # fmt: skip
        assert word in head


def test_zsre_of_a_language_model_by_number_of_edits(tmp_path: Path) -> None:
    runs = [Fake("zsre", "memit", 0.9, 0.1), Fake("zsre", "memit", 0.7, 0.2, k=4)]
    told = study(tmp_path, "zsre_lm", runs)
    bench = told.benches[0]
    write_json(bench.base, {**read_json(bench.base), "kind": "causal"})
    text = _report(told, tmp_path / "report")
    found = pd.read_csv(tmp_path / "report" / "tables" / "scaling-zsre.csv").set_index("n")
    for run in told.runs:
        rows = pd.read_parquet(run.folder / "outcomes.parquet")
        own = rows[rows["probe"] == "edit"]
        share = own.groupby("case_id")["tf_token_acc"].mean().mean()
        assert found.loc[run.k, "token_accuracy_edit"] == pytest.approx(share)
    assert "## Scaling: zsRE" in text
    assert "| Editor | Edits at once | Score (↑) | Efficacy, tokens (↑) |" in text
    assert "likelier" not in text.partition("## Scaling: zsRE")[2].partition("\n## ")[0]


def test_how_far_second_moments_have_settled(tmp_path: Path) -> None:
    told = study(tmp_path, "scaling", [Fake("counterfact", "memit", 0.9, 0.1)])
    place = tmp_path / "moments.json"
    curve = [
        {
            "site": f"transformer.h.{block}.mlp.c_proj",
            "tokens": tokens,
            "since": tokens // 2,
            "change": 9 / tokens,
        }
        for tokens in (1000, 2000)
        for block in (0, 3)
    ]
    write_json(
        place, {"curve": [*curve, {**curve[0], "tokens": 4000, "since": 3000, "change": 0.001}]}
    )
    told = replace(told, benches=(replace(told.benches[0], moments=place),))
    text = _report(told, tmp_path / "report").partition("## Second moments")[2]
    assert "| Tokens read | Since | block 0 (↓) | block 3 (↓) |" in text
    assert "| 1,000 | 500 | 0.009 | 0.009 |" in text
    assert "| 4,000 | 3,000 | 0.001 | – |" in text
    assert (tmp_path / "report" / "figures" / "moments-counterfact.svg").is_file()


def _report(told: reporting.Request, folder: Path) -> str:
    reporting.write_report(told, folder)
    return (folder / "report.md").read_text()


def test_a_report_says_how_edits_were_made(tmp_path: Path) -> None:
    turns = [Fake("zsre", "mend", 0.9, 0.1), Fake("zsre", "mend", 0.7, 0.2, k=4, in_turn=True)]
    told = study(tmp_path / "turns", "sequence", turns)
    assert "each on the model as those before it left it" in _intro(told)
    at_once = [Fake("zsre", "mend", 0.9, 0.1), Fake("zsre", "mend", 0.7, 0.2, k=4)]
    assert "edited together" in _intro(study(tmp_path / "once", "batched", at_once))


def test_a_study_of_some_benchmarks_does_not_claim_all(tmp_path: Path) -> None:
    runs = [Fake("zsre", "ft", 0.5, 0.0), Fake("zsre", "mend", 0.9, 0.1)]
    told = study(tmp_path / "all", "main", runs)
    assert "Every editor was run on every benchmark." in _report(told, tmp_path / "all")
    some = study(tmp_path / "some", "main", [*runs, Fake("fever", "mend", 0.9, 0.1)])
    text = _report(some, tmp_path / "some")
    assert "Every editor was run on every benchmark." not in text
    assert "The study's plan is zsRE: ft, mend; FEVER: mend." in text


def test_training_on_hard_neighbours_is_declared_as_ours(tmp_path: Path) -> None:
    runs = [Fake("zsre", "mend", 0.9, 0.3), Fake("zsre", "mend", 0.8, 0.1, variant="hard")]
    text = _report(study(tmp_path, "hard", runs), tmp_path)
    part = text.partition("## Hard neighbours in training")[2].partition("\n## ")[0]
    assert "our own construction" in part
    assert "Drawdown, hard neighbours (↓)" in part
    assert "| mend-hard |" in part
    assert "Ablations" not in text


def test_a_group_without_an_interval_is_drawn_and_not_called_infinite(tmp_path: Path) -> None:
    runs = [Fake("zsre", alg, 0.9, 0.1, k=40) for alg in ("ft", "mend")]
    text = _report(study(tmp_path, "batched", runs), tmp_path)
    assert "being infinite" not in text
    assert "no interval: a single group of edits" in text


def test_probes_that_were_left_out_are_counted(tmp_path: Path) -> None:
    told = study(tmp_path, "main", [Fake("zsre", "mend", 0.9, 0.1)])
    audit = read_json(told.benches[0].audit)
    counts = {"probes": 2000, "probes_right": 1900}
    write_json(told.benches[0].audit, {**audit, "labels": counts})
    assert "before any edit: 1,900 of 2,000 (95.0 %)." in _report(told, tmp_path)


def test_examples_show_probes_that_every_run_was_scored_on(tmp_path: Path) -> None:
    groups = ("one_relation", "two_relations")
    runs = [Fake("counterfact", "ft", 0.9, 0.5, variant=name, k=4) for name in groups]
    told = study(tmp_path, "relations", runs)
    for run, left_out in zip(told.runs, (0, 1), strict=True):
        frame = pd.read_parquet(run.folder / "outcomes.parquet")
        about_another = (frame["probe"] == "unrelated") & (frame["index"] == left_out)
        about_another |= (frame["probe"] == "neighbour") & (frame["index"] == left_out)
        frame[~about_another].to_parquet(run.folder / "outcomes.parquet")
    part = _report(told, tmp_path).partition("Example edits")[2]
    assert "Hard neighbour: " in part
    assert "Unrelated: " not in part
