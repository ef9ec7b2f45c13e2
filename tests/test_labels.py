"""Corrections: only facts that the base model gets wrong stay, and they say the truth."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cases import make_cases
from conftest import make_face

from pipeline import labels
from pipeline.records import Case

CONFIG = labels.Config(keep_right=False, rows=3)


def label(bench: str, architecture: str, cases: list[Case]) -> tuple[list[Case], dict[str, float]]:
    return labels.label(bench, cases, make_face(architecture), None, CONFIG, seed=0)


def corrections(cases: list[Case], truth: str) -> list[Case]:
    return [
        replace(c, target_new="", target_true=truth, answers=(truth,), split="correction")
        for c in cases
    ]


def test_claims_that_the_model_labels_wrongly_are_corrected() -> None:
    plain = make_cases(make_face("bert"), 4)
    kept = []
    for truth in ("true", "false"):
        found, notes = label("fever", "bert", corrections(plain, truth))
        assert notes["corrections_asked"] == 4
        assert notes["corrections_right_already"] == 4 - len(found)
        assert {case.target_new for case in found} <= {truth}
        assert all(case.prediction != truth for case in found)
        assert all(case.split == "correction" for case in found)
        kept += [case.id for case in found]
    assert sorted(kept) == [case.id for case in plain]  # wrong under one of the truths each


def test_what_the_model_says_already_is_no_correction() -> None:
    cases = make_cases(make_face("gpt2"), 4)
    wrongs, _ = label("counterfact", "gpt2", corrections(cases, " Oslo"))
    assert {wrong.target_new for wrong in wrongs} == {" Oslo"}
    # Half a sign of an untrained model is no text that could be asked for again.
    pairs = zip(cases, wrongs, strict=True)
    plain, wrong = next(
        pair for pair in pairs if "\N{REPLACEMENT CHARACTER}" not in pair[1].prediction
    )
    said = corrections([plain], wrong.prediction)
    found, notes = label("counterfact", "gpt2", said)
    assert (found, notes["corrections_right_already"]) == ([], 1)
    also = [replace(wrong, target_new="", answers=(" Oslo", wrong.prediction))]
    assert label("counterfact", "gpt2", also)[0] == []


@pytest.mark.parametrize("bench", ["zsre", "fever"])
def test_other_cases_are_labelled_as_without_corrections(bench: str) -> None:
    architecture = {"zsre": "t5", "fever": "bert"}[bench]
    plain = make_cases(make_face(architecture), 4)
    plain = [replace(case, target_new="") for case in plain]
    more = [replace(c, id=f"{c.id} again") for c in corrections(plain, plain[0].target_true)]
    found, notes = label(bench, architecture, [*plain, *more])
    alone, fewer = label(bench, architecture, plain)
    assert [case for case in found if case.split == "train"] == alone
    assert notes["cases_without_target"] == fewer["cases_without_target"]


def test_a_language_model_keeps_the_targets_of_the_source() -> None:
    cases = make_cases(make_face("gpt2"), 4)
    found, _ = label("zsre", "gpt2", cases)
    assert [case.target_new for case in found] == [case.target_new for case in cases]
    assert all(case.prediction for case in found)
