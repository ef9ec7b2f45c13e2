"""What a report says in words depends on what was run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fake_runs import request

from pipeline import reporting
from pipeline.reporting.blocks import Paragraph
from pipeline.reporting.inputs import read
from pipeline.reporting.sections import compose


def _intro(told: reporting.Request) -> str:
    document, _ = compose(read(told))
    return next(block.text for block in document.blocks if isinstance(block, Paragraph))


def test_a_report_says_which_cases_were_scored(tmp_path: Path) -> None:
    told = request(tmp_path, {"ft": (0.7, 0.15)})
    assert "Only validation cases are scored" in _intro(told)
    corrected = _intro(replace(told, split="correction"))
    assert "Only corrections are scored (split `correction`)" in corrected
    assert "validation" not in corrected
