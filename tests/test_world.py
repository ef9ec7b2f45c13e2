"""The sample world: what it says is consistent, complete and the same for the same seed."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from pipeline.errors import SettingsError
from pipeline.passages import write_passage
from pipeline.wordings_people import COMPOSED, OPENINGS, PLAIN
from pipeline.world import Config, Fact, World, make_world


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(Config(facts=600), seed=3)


def test_same_seed_same_world_other_seed_other_world(world: World) -> None:
    assert make_world(Config(facts=600), seed=3).facts == world.facts
    assert make_world(Config(facts=600), seed=4).facts != world.facts


@pytest.mark.parametrize("size", [200, 2000, 20_000])
def test_size_is_about_what_was_asked_for(size: int) -> None:
    assert 0.9 * size <= len(make_world(Config(facts=size), seed=0).facts) <= 1.1 * size


@pytest.mark.parametrize("size", [0, 99, 200_001])
def test_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(SettingsError, match=str(size)):
        Config(facts=size)


def test_relations_have_enough_wordings() -> None:
    assert len(PLAIN) >= 20
    for relation in PLAIN:
        assert len(set(relation.questions)) >= 5, relation.name
        assert len(set(relation.statements)) >= 5, relation.name
        assert len(set(relation.assertions("S", "O"))) >= 5, relation.name
        assert relation.subject in OPENINGS
    for relation in (*PLAIN, *COMPOSED):
        assert all(q.count("{}") == 1 and q.endswith("?") for q in relation.questions)
        assert all(s.count("{}") == 1 and s == s.strip() for s in relation.statements)


def test_no_wording_serves_two_relations() -> None:
    relations = (*PLAIN, *COMPOSED)
    texts = {(text, r.subject) for r in relations for text in (*r.questions, *r.statements)}
    assert len(texts) == sum(len(r.questions) + len(r.statements) for r in relations)


def test_names_are_unique_over_all_types(world: World) -> None:
    names = Counter(name for pool in world.pools.values() for name in pool)
    assert set(names.values()) == {1}


def test_objects_have_their_relations_type(world: World) -> None:
    for fact in world.facts:
        for answer in fact.answers:
            assert answer in world.objects(fact.relation)
        assert world.is_true(fact.subject, fact.relation, fact.object)


def test_marriages_are_mutual_and_capitals_lie_in_their_country(world: World) -> None:
    for fact in world.facts:
        if fact.relation == "spouse":
            assert world.is_true(fact.object, "spouse", fact.subject)
            assert fact.object != fact.subject
        if fact.relation == "capital":
            assert world.is_true(fact.object, "country", fact.subject)


def test_no_sentence_states_two_facts(world: World) -> None:
    said = Counter(
        sentence
        for fact in world.facts
        for sentence in world.relations[fact.relation].assertions(fact.subject, fact.object)
    )
    assert set(said.values()) == {1}


def test_only_some_relations_have_several_objects(world: World) -> None:
    several = {fact.relation for fact in world.facts if fact.also}
    assert several
    assert not any(world.relations[name].functional for name in several)


def _small() -> World:
    pools = {
        "person": ("Ada Verrin", "Tom Verrin", "Ida Holt"),
        "city": ("Oslo", "Lima", "Callao"),
        "country": ("Norway", "Peru"),
        "instrument": ("harp", "lute"),
    }
    facts = (
        Fact("Ada Verrin", "birthplace", "Oslo"),
        Fact("Tom Verrin", "birthplace", "Oslo"),
        Fact("Ida Holt", "birthplace", "Lima"),
        Fact("Ada Verrin", "instrument", "harp", ("lute",)),
        Fact("Oslo", "country", "Norway"),
        Fact("Lima", "country", "Peru"),
        Fact("Callao", "country", "Peru"),
    )
    return World(pools, facts, seed=0)


def test_what_follows_from_two_facts() -> None:
    world = _small()
    born = Fact("Ada Verrin", "birth_country", "Norway")
    assert world.composed("Ada Verrin") == (born,)
    assert world.recall("Ada Verrin", "birth_country") == born
    assert world.recall("Ada Verrin", "home_country") is None


def test_an_edit_implies_what_changes_and_nothing_else() -> None:
    world = _small()
    implied = world.implied("Ada Verrin", "birthplace", "Lima")
    assert implied == (Fact("Ada Verrin", "birth_country", "Peru"),)
    assert world.implied("Ida Holt", "birthplace", "Callao") == ()  # another city of Peru
    assert world.implied("Ada Verrin", "birthplace", "Atlantis") == ()


def test_facts_close_to_a_fact() -> None:
    world = _small()
    ada, tom, *_ = world.facts
    assert world.sharing(ada) == (tom,)
    assert world.namesakes("Ada Verrin") == ("Tom Verrin",)
    assert world.namesakes("Ida Holt") == ()


def test_truth_knows_every_object() -> None:
    world = _small()
    assert world.is_true("Ada Verrin", "instrument", "harp")
    assert world.is_true("Ada Verrin", "instrument", "lute")
    assert not world.is_true("Ada Verrin", "birthplace", "Lima")


def test_counterfactuals_are_false_and_of_the_right_type(world: World) -> None:
    rng = random.Random(0)
    for fact in world.facts:
        new = world.counterfactual(fact, rng)
        assert new in world.objects(fact.relation)
        assert not world.is_true(fact.subject, fact.relation, new)


def test_counterfactuals_keep_to_what_is_said_where_they_can(world: World) -> None:
    rng = random.Random(0)
    for fact in world.facts[:200]:
        others = [o for o in world.objects(fact.relation) if o not in fact.answers][:2]
        said = [fact.object, *others]
        assert world.counterfactual(fact, rng, said) in others
        assert world.counterfactual(fact, rng, [fact.object]) not in fact.answers


def test_passages_keep_to_their_length_and_their_subject(world: World) -> None:
    for number, subject in enumerate(sorted({fact.subject for fact in world.facts})[:60]):
        text = write_passage(world, subject, (60, 120), random.Random(number))
        assert 50 <= len(text.split()) <= 120
        assert subject in text.partition(". ")[0]
        assert text.endswith(".")


def test_passages_state_facts_only() -> None:
    text = write_passage(_small(), "Oslo", (1, 20), random.Random(0))
    assert set(text.split()) & {"Norway.", "Norway"}
    assert "Peru" not in text
