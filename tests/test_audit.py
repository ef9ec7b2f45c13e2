"""Each check of the audit finds the case that breaks it, and names it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.audit import audit
from pipeline.errors import AuditError
from pipeline.records import Case

ADA = Case(
    id="ada",
    prompt="Where was Ada Verrin born?",
    target_new="Lima",
    target_true="Oslo",
    answers=("Oslo", "Christiania"),
    subject="Ada Verrin",
    rephrases=("What is the birthplace of Ada Verrin?",),
    split="train",
)
TOM = replace(
    ADA,
    id="tom",
    prompt="Where was Tom Asker born?",
    subject="Tom Asker",
    rephrases=("What is the birthplace of Tom Asker?",),
    split="validation",
)


def test_clean_cases_pass_with_counts() -> None:
    found = audit("zsre", [ADA, TOM])
    assert (found["cases"], found["train"], found["validation"]) == (2, 1, 1)
    checks = found["checks"]
    assert isinstance(checks, dict)
    assert len(checks) == 11
    assert set(checks.values()) == {2}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"id": "ada"}, "repeated ids"),
        ({"prompt": " "}, "empty prompts"),
        ({"target_new": " "}, "empty targets"),
        ({"subject": "Ida Holt"}, "subjects missing"),
        ({"subject": ""}, "subjects missing"),
        ({"target_new": " oslo"}, "equal to the truth"),
        ({"target_new": "Christiania"}, "equal to the truth"),
        ({"rephrases": ("where was Tom  Asker born?",)}, "rephrasings equal"),
        ({"prompt": "Who is Ada Verrin?", "subject": "Ada Verrin"}, "subjects shared"),
        ({"rephrases": ADA.rephrases}, "prompts shared"),
    ],
)
def test_each_defect_is_found_and_named(change: dict[str, object], complaint: str) -> None:
    broken = replace(TOM, **change)  # type: ignore[arg-type]
    with pytest.raises(AuditError, match=complaint) as caught:
        audit("zsre", [ADA, broken])
    assert broken.id in str(caught.value)


UNA = replace(
    ADA,
    id="una",
    prompt="Where was Una Holt born?",
    target_new="Oslo",
    prediction="Lima",
    subject="Una Holt",
    rephrases=("What is the birthplace of Una Holt?",),
    split="correction",
)


def test_corrections_say_the_truth_and_are_counted() -> None:
    found = audit("zsre", [ADA, TOM, UNA])
    assert (found["train"], found["validation"], found["correction"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"target_new": "Lima"}, "corrections to what is not the truth"),
        ({"prediction": " oslo"}, "corrections of what is right already"),
        ({"prediction": "Christiania"}, "corrections of what is right already"),
        ({"prompt": TOM.prompt, "subject": TOM.subject, "rephrases": ()}, "subjects shared"),
        ({"rephrases": ADA.rephrases}, "prompts shared"),
    ],
)
def test_each_defect_of_a_correction_is_found(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(AuditError, match=complaint):
        audit("zsre", [ADA, TOM, replace(UNA, **change)])  # type: ignore[arg-type]


def test_conflicting_edits_are_named_together() -> None:
    other = replace(ADA, id="ada again", target_new="Quito")
    with pytest.raises(AuditError, match="ada against ada again"):
        audit("zsre", [ADA, other, TOM])


def test_the_same_edit_twice_is_no_conflict() -> None:
    audit("zsre", [ADA, replace(ADA, id="ada again"), TOM])


def test_claims_need_a_label_and_may_confirm_the_truth() -> None:
    claim = replace(ADA, target_new="true", target_true="true", answers=("true",))
    audit("fever", [claim])
    with pytest.raises(AuditError, match="no label"):
        audit("fever", [replace(claim, target_new="maybe")])


def test_claims_and_passages_may_leave_their_subject_open() -> None:
    audit("fever", [replace(ADA, subject="", target_new="false", answers=())])
    audit("wikitext", [replace(ADA, subject="")])


def test_many_offenders_are_counted_and_the_first_named() -> None:
    broken = [replace(ADA, id=f"case {i}", target_new="") for i in range(8)]
    with pytest.raises(AuditError, match=r"8 of them: case 0;.*case 4 and 3 more"):
        audit("zsre", broken)


def test_no_cases_at_all_is_an_error() -> None:
    with pytest.raises(AuditError, match="found none"):
        audit("zsre", [])
