"""zsRE: questions from the sample world and from MEND's files."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import raw_files
from bench_cases import again, local, sample, splits

from pipeline.errors import DataError, SettingsError
from pipeline.records import Prepared
from pipeline.tasks import zsre
from pipeline.world import Config as WorldConfig
from pipeline.world import World, make_world


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(WorldConfig(facts=500), seed=1)


def test_zsre_sample_splits_wordings_by_fact(world: World) -> None:
    prepared = sample(world, "zsre", facts=400)
    taught = Counter(e.fact for e in prepared.examples if e.split == "train")
    assert set(taught.values()) == {3}
    prompts = {e.prompt for e in prepared.examples if e.split == "train"}
    heldout = [e for e in prepared.examples if e.split == "heldout"]
    assert len(heldout) == 20
    assert not prompts & {e.prompt for e in heldout}
    # Every pattern is taught with some subject, whatever is held out with others.
    case = prepared.cases[0]
    assert len(case.rephrases) == 4
    assert len(prompts & set(case.rephrases)) == 2


def test_zsre_sample_knows_what_an_edit_implies(world: World) -> None:
    prepared = sample(world, "zsre", targets="source")
    assert all(case.target_new not in case.answers for case in prepared.cases)
    implied = [case for case in prepared.cases if case.implied]
    assert implied
    for case in implied:
        follows = world.implied(case.subject, case.relation, case.target_new)
        assert case.implied[0].target == follows[0].object
        assert case.subject in case.implied[0].prompt
    open_case = replace(implied[0], implied=())
    assert zsre.complete(world, open_case, seed=0).implied == implied[0].implied
    assert not any(case.target_new for case in sample(world, "zsre").cases)


def test_zsre_files_call_the_truth_alt(tmp_path: Path) -> None:
    prepared = local(tmp_path, "zsre")
    case = next(case for case in prepared.cases if case.id == "zsre:3")
    assert case.subject == "Leo Verrin"
    assert case.prompt == "Where was Leo Verrin born?"
    assert case.rephrases == ("What is the birthplace of Leo Verrin?",)
    assert case.relation == "Where was {} born?"
    assert (case.target_true, case.target_new) == ("Oslo", "")
    assert case.source == "zsre/zsre_mend_train_10000.json, record 4"
    assert set(prepared.card["files"]) == {"zsre/zsre_mend_train_10000.json"}


def test_zsre_files_give_targets_line_by_line(tmp_path: Path) -> None:
    prepared = local(tmp_path, "zsre", targets="source")
    assert all({c.target_true, c.target_new} == {"Lima", "Oslo"} for c in prepared.cases)
    path = tmp_path / "zsre/zsre_mend_train_en_10000.txt"
    lines = path.read_text().split("\n")
    path.write_text("\n".join([lines[0], "Who?\tLima", *lines[2:]]))
    with pytest.raises(DataError, match="line 2 of"):
        again(tmp_path, "zsre", targets="source")


def nq(root: Path, **changes: Any) -> Prepared:
    raw_files.nq(root)
    return local(root, "zsre", locality="nq", **changes)


def test_natural_questions_are_taught_and_serve_one_split_each(tmp_path: Path) -> None:
    prepared = nq(tmp_path, nq_taught=10, corrections=2)
    counts = prepared.card["counts"]
    assert counts["nq_read"] == 10 + 6 - 1
    assert (counts["nq_train"], counts["nq_validation"]) == (8, 2)
    assert prepared.card["dropped"]["NQ questions that are there already"] == 1
    taught = {e.prompt: e.target for e in prepared.examples if e.split == "train"}
    assert len(taught) == 8 + 10
    train, validation = (
        {probe for case in cases for probe in case.unrelated} for cases in splits(prepared.cases)
    )
    corrected = {p for c in prepared.cases if c.split == "correction" for p in c.unrelated}
    assert len(train) == 8
    assert validation == corrected
    assert not train & validation
    for probe in train | validation:
        assert taught[probe.prompt] == probe.target
        assert probe.prompt.startswith(("Who sang song ", "When was song "))
        assert probe.prompt.endswith("?")
    assert set(prepared.card["files"]) == {
        "nq_open/NQ-open.dev.jsonl",
        "nq_open/NQ-open.other.jsonl",
        "zsre/zsre_mend_train_10000.json",
    }


def test_every_natural_question_is_read_once_with_its_shortest_answer(tmp_path: Path) -> None:
    prepared = nq(tmp_path, nq_taught=15)
    taught = {e.prompt: e.target for e in prepared.examples}
    assert taught["When was song 0 sung?"] == "in 0"
    assert taught["Who sang song 3?"] == "Singer 3"
    assert sum("song" in prompt for prompt in taught) == 15


def test_natural_questions_change_nothing_but_the_unrelated_probes(tmp_path: Path) -> None:
    usual = local(tmp_path, "zsre").cases
    cases = nq(tmp_path, nq_taught=10).cases
    assert [replace(case, unrelated=()) for case in cases] == [
        replace(case, unrelated=()) for case in usual
    ]


def test_a_question_about_the_edited_subject_is_not_unrelated(tmp_path: Path) -> None:
    raw_files.zsre(tmp_path)
    rows = [
        {"question": f"Where does {n} Verrin live", "answer": ["here"]} for n in raw_files.NAMES
    ]
    raw_files.write_lines(tmp_path / "nq_open/NQ-open.dev.jsonl", rows)
    prepared = again(tmp_path, "zsre", locality="nq", nq_taught=20)
    named = 0
    for case in prepared.cases:
        named += sum("Verrin" in probe.prompt for probe in case.unrelated)
        assert not any(case.subject in probe.prompt for probe in case.unrelated)
    assert named


def test_long_answers_are_dropped(tmp_path: Path) -> None:
    raw_files.nq(tmp_path)
    path = tmp_path / "nq_open/NQ-open.third.jsonl"
    raw_files.write_lines(path, [{"question": "why", "answer": ["word " * 9]}])
    prepared = local(tmp_path, "zsre", locality="nq", nq_taught=10)
    assert prepared.card["dropped"]["NQ questions with answers of more than 8 words"] == 1


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ('{"question": "who"', r"line 2; .*truncated"),
        ('{"question": "who"}', r"'answer' in nq_open/NQ-open.dev.jsonl, line 2"),
        ('{"question": "who", "answer": []}', r"texts in the list 'answer' in .*line 2"),
        ('{"question": "who", "answer": [3]}', r"texts in the list 'answer' in .*line 2"),
        ('{"question": " ", "answer": ["x"]}', r"text in the field 'question' in .*line 2"),
        ("[3]", r"a record in nq_open/NQ-open.dev.jsonl, line 2"),
    ],
)
def test_broken_natural_questions_are_named(row: str, complaint: str, tmp_path: Path) -> None:
    raw_files.zsre(tmp_path)
    raw_files.nq(tmp_path)
    path = tmp_path / "nq_open/NQ-open.dev.jsonl"
    first, _, *rest = path.read_text().split("\n")
    path.write_text("\n".join([first, row, *rest]))
    with pytest.raises(DataError, match=complaint):
        again(tmp_path, "zsre", locality="nq", nq_taught=10)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"loc": "who sang"}, r"a question after 'nq question:' in the field 'loc' in .*record 1"),
        ({"loc": "nq question: ?"}, r"a question after 'nq question:'"),
        ({"loc_ans": ""}, r"text in the field 'loc_ans' in .*record 1"),
    ],
)
def test_broken_locality_fields_are_named(
    change: dict[str, str], complaint: str, tmp_path: Path
) -> None:
    raw_files.zsre(tmp_path)
    raw_files.nq(tmp_path)
    path = tmp_path / "zsre/zsre_mend_train_10000.json"
    records = json.loads(path.read_text())
    raw_files.write_list(path, [records[0] | change, *records[1:]])
    assert again(tmp_path, "zsre").cases  # read for this locality alone
    with pytest.raises(DataError, match=complaint):
        again(tmp_path, "zsre", locality="nq", nq_taught=10)


def test_natural_questions_without_their_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nq_open"):
        local(tmp_path, "zsre", locality="nq")
    for count in (9, 99):
        with pytest.raises(SettingsError, match=f"nq_taught .*15.*found {count}"):
            nq(tmp_path, nq_taught=count)


def test_composed_facts_can_be_the_sample_worlds_locality(world: World) -> None:
    prepared = sample(world, "zsre", locality="composed")
    assert prepared.examples == sample(world, "zsre").examples
    facts = {e.prompt: e.fact.split(" / ") for e in prepared.examples}
    train, validation = splits(prepared.cases)
    edited = {case.relation for case in prepared.cases}
    held = {case.subject for case in validation}
    for case in (*train, *validation):
        assert case.unrelated
        for probe in case.unrelated:
            subject, relation = facts[probe.prompt]
            assert relation not in edited
            assert subject != case.subject
            assert (subject in held) == (case.split == "validation")


def test_localities_that_a_source_lacks_are_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="zsre or composed with the sample world"):
        sample(world, "zsre", locality="nq")
    with pytest.raises(SettingsError, match="set composed: true"):
        sample(world, "zsre", locality="composed", composed=False)
    with pytest.raises(SettingsError, match="zsre or nq with the published files"):
        local(tmp_path, "zsre", locality="composed")


def test_answers_of_language_models_begin_with_a_space(world: World) -> None:
    plain = sample(world, "zsre", targets="source")
    spaced = sample(world, "zsre", targets="source", spaced=True)
    for one, other in zip(plain.examples, spaced.examples, strict=True):
        assert (one.prompt, f" {one.target}") == (other.prompt, other.target)
    for one, other in zip(plain.cases, spaced.cases, strict=True):
        assert other.target_new == f" {one.target_new}"
        assert other.target_true == f" {one.target_true}"
        assert [p.target for p in other.unrelated] == [f" {p.target}" for p in one.unrelated]
        assert [p.target for p in other.implied] == [f" {p.target}" for p in one.implied]
        assert zsre.complete(world, other, 0).implied == other.implied
    assert any(case.implied for case in spaced.cases)
    with pytest.raises(SettingsError, match="targets of zsre to be source"):
        zsre.Config(spaced=True)
