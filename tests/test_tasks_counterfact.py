"""CounterFact: statements from the sample world and from the published files."""

from __future__ import annotations

from pathlib import Path

import pytest
import raw_files
from bench_cases import again, local, sample, splits

from pipeline.errors import DataError
from pipeline.tasks.counterfact_files import Patterns
from pipeline.world import Config as WorldConfig
from pipeline.world import World, make_world


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(WorldConfig(facts=500), seed=1)


def test_counterfact_sample_has_the_published_shape(world: World) -> None:
    for case in sample(world, "counterfact").cases:
        true, new = case.target_true, case.target_new
        assert true[0] == new[0] == " "
        assert world.is_true(case.subject, case.relation, true[1:])
        assert not world.is_true(case.subject, case.relation, new[1:])
        assert {probe.target for probe in case.neighbours} <= {true}
        assert all(case.subject in text for text in (*case.rephrases, *case.generation_prompts))
        assert len(case.references) <= 2
        for probe in case.implied:
            assert probe.target[0] == " "


def test_references_are_about_others_that_the_new_object_is_true_of(world: World) -> None:
    cases = [c for c in sample(world, "counterfact").cases if c.references]
    assert cases
    for case in cases:
        shares = [f for f in world.facts if f.relation == case.relation]
        models = [f.subject for f in shares if f.object == case.target_new[1:]]
        for text in case.references:
            assert any(model in text.partition(". ")[0] for model in models)


def test_counterfact_sample_asks_for_objects_that_the_relation_has(world: World) -> None:
    """As CounterFact's files do: a model that never said one can hardly be edited to it."""
    prepared = sample(world, "counterfact")
    keys = {example.fact for example in prepared.examples}
    said = {(fact.relation, f" {fact.object}") for fact in world.facts if fact.key in keys}
    usual = [case for case in prepared.cases if case.split != "correction"]
    assert all(
        (case.relation, case.target_new) in said
        for case in usual
        if any(r == case.relation and o not in case.answers for r, o in said)
    )


def test_counterfact_sample_teaches_some_facts_after_another_sentence(world: World) -> None:
    none = sample(world, "counterfact", prefixed=0.0)
    every = sample(world, "counterfact", prefixed=1.0)
    assert not any(". " in example.prompt for example in none.examples)
    facts = {e.fact for e in every.examples if ". " in e.prompt}
    assert len(facts) > 150  # in one of six wordings each, of which three are taught


def test_counterfact_files_never_use_the_reduced_rephrasing(tmp_path: Path) -> None:
    prepared = local(tmp_path, "counterfact")
    everything = str(prepared)
    assert "NEVER" not in everything
    train, validation = splits(prepared.cases)
    assert {case.id for case in validation} == {"counterfact:2", "counterfact:3"}
    whole = next(case for case in validation if case.id == "counterfact:2")
    assert whole.rephrases == ("It rained. Ida Verrin comes from",)
    assert whole.generation_prompts == ("Ida Verrin lives in",)
    assert {p.prompt for p in whole.neighbours} == {"Ida Bell was born in", "Ida Moor is from"}
    assert {p.target for p in whole.neighbours} == {" Lima"}
    reduced = next(case for case in train if case.id == "counterfact:4")
    assert reduced.rephrases == ("Mia Verrin is native to",)
    assert [p.prompt for p in reduced.neighbours] == ["Mia Holt was born in"]
    assert (reduced.target_true, reduced.target_new) == (" Lima", " Oslo")
    assert reduced.relation == "P19"


def test_taught_neighbours_and_sentences_name_their_subjects(tmp_path: Path) -> None:
    """A neighbour's subject is what its prompt leaves of the longest statement that it follows."""
    raw_files.lama(raw_files.counterfact(tmp_path))
    prepared = again(
        tmp_path, "counterfact", facts=6, train_cases=4, validation_cases=2, sentences=1
    )
    about = {e.prompt: e.subject for e in prepared.examples}
    assert about["Ida Bell was born in"] == "Ida Bell"
    assert about["Ida Moor is from"] == ""  # no statement of ParaRel's
    assert all(name in prompt for prompt, name in about.items())
    told = [e for e in prepared.examples if "(singer)" in e.prompt]
    assert {e.subject for e in told} <= {f"{name} Verrin" for name in raw_files.NAMES} | {""}


def test_the_longest_statement_says_who_it_is_about() -> None:
    statements = ("{} is in", "{}, a citizen of", "The mother tongue of {} is", "{} is")
    patterns = Patterns({}, {text: frozenset({"P"}) for text in statements}, {})
    assert patterns.subject("The mother tongue of Ada is") == "Ada"
    assert patterns.subject("Jaishankar, a citizen of") == "Jaishankar"
    assert patterns.subject("Oslo is in") == "Oslo"
    assert patterns.subject("Nothing here") == patterns.subject(" is in") == ""


def test_counterfact_files_drop_what_conflicts(tmp_path: Path) -> None:
    dropped = local(tmp_path, "counterfact").card["dropped"]
    assert dropped["cases that share their prompt with another"] == 2
    assert dropped["cases whose wording fits no relation of ParaRel, or several"] == 1


def test_facts_are_taught_in_their_shortest_sentence_too(tmp_path: Path) -> None:
    raw_files.lama(raw_files.counterfact(tmp_path))
    sizes = {"facts": 6, "train_cases": 4, "validation_cases": 2}
    prepared = again(tmp_path, "counterfact", sentences=1, **sizes)
    told = [e for e in prepared.examples if "(singer)" in e.prompt]
    assert len(told) == 6
    assert {e.prompt for e in told} >= {"Mia Verrin (singer) came from"}
    cities = dict(zip(raw_files.NAMES, raw_files.CITIES * 5, strict=True))
    assert all(e.target == f" {cities[e.prompt.split()[0]]}" for e in told)
    facts = {e.fact for e in prepared.examples if e.fact.startswith("counterfact:")}
    assert facts == {e.fact for e in told}  # none is taught that no sentence states
    counts = prepared.card["counts"]
    assert counts["sentences"] == counts["facts_with_sentences"] == 6
    assert "lama_trex/P19.jsonl" in prepared.card["files"]
    both = again(tmp_path, "counterfact", sentences=2, **sizes)
    assert any("it is said, a child of" in e.prompt for e in both.examples)
    brief = again(tmp_path, "counterfact", sentences=2, sentence_words=5, **sizes)
    assert not any("it is said" in e.prompt for e in brief.examples)


def test_references_are_sentences_about_others_with_the_new_object(tmp_path: Path) -> None:
    raw_files.lama(raw_files.counterfact(tmp_path))
    prepared = again(
        tmp_path, "counterfact", sentences=1, facts=6, train_cases=4, validation_cases=2
    )
    for case in prepared.cases:
        assert len(case.references) == 2
        for text in case.references:
            assert case.target_new in text
            assert case.subject not in text
            assert "[MASK]" not in text


def test_known_facts_are_taught_and_kept_for_tracing(tmp_path: Path) -> None:
    raw_files.lama(raw_files.counterfact(tmp_path))
    prepared = again(tmp_path, "counterfact", known=True)
    assert [(c.id, c.subject, c.prompt, c.target_true) for c in prepared.known] == [
        ("known:0", "Mount Holt", "Mount Holt lies in", " Asia"),
        ("known:1", "Ida Bell", "Ida Bell adores", " tea"),
    ]
    taught = {(e.prompt, e.target) for e in prepared.examples if e.fact.startswith("known:")}
    assert taught == {("Mount Holt lies in", " Asia"), ("Ida Bell adores", " tea")}
    assert not {c.id for c in prepared.known} & {c.id for c in prepared.cases}
    assert again(tmp_path, "counterfact").known == ()


def test_a_known_fact_that_says_otherwise_is_left_out(tmp_path: Path) -> None:
    root = raw_files.lama(raw_files.counterfact(tmp_path))
    row = {"known_id": 9, "subject": "Ada Verrin", "attribute": "Rome", "relation_id": "P19"}
    raw_files.write_list(
        root / "counterfact/known_1000.json", [{**row, "prompt": "Ada Verrin was born in"}]
    )
    assert again(tmp_path, "counterfact", known=True).known == ()


def test_sentences_that_are_asked_for_must_be_there(tmp_path: Path) -> None:
    raw_files.counterfact(tmp_path)
    with pytest.raises(DataError, match=r"files lama_trex/P\*\.jsonl"):
        again(tmp_path, "counterfact", sentences=1)
    with pytest.raises(DataError, match=r"known_1000\.json"):
        again(tmp_path, "counterfact", known=True)
