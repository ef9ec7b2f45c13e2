"""What a report says in words depends on what was run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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
