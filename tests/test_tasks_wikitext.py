"""Wikitext: passages, their openings, and text that no case edits."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_cases import local, sample, splits

from pipeline.errors import SettingsError
from pipeline.tasks import wikitext
from pipeline.world import Config as WorldConfig
from pipeline.world import World, make_world


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(WorldConfig(facts=500), seed=1)


def test_wikitext_sample_cuts_openings_by_the_rule(world: World) -> None:
    prepared = sample(world, "wikitext")
    texts = {e.target: e for e in prepared.examples}
    for case in prepared.cases:
        passage = next(text for text in texts if text.startswith(case.prompt))
        wanted = "train" if case.split == "train" else "heldout"
        assert texts[passage].split == wanted
        words = case.prompt.split()
        assert 40 <= len(words) <= 60
        assert len(passage.split()) >= len(words) + 10
        for text in case.rephrases:
            assert case.prompt.endswith(text)
        assert len(case.rephrases[0].split()) >= len(words) / 2
        assert {probe.prompt for probe in case.unrelated} == {""}


@pytest.mark.parametrize("suite", ["sample", "local"])
def test_wikitext_locality_is_text_that_no_edit_comes_from(
    suite: str, world: World, tmp_path: Path
) -> None:
    prepared = sample(world, "wikitext") if suite == "sample" else local(tmp_path, "wikitext")
    openings = [case.prompt for case in prepared.cases]
    train, validation = (
        {probe.target for case in cases for probe in case.unrelated}
        for cases in splits(prepared.cases)
    )
    assert train
    assert validation
    assert not train & validation
    for text in train | validation:
        assert not any(text.startswith(opening) for opening in openings)
    taught = {e.target for e in prepared.examples if e.split == "train"}
    assert not taught & (train | validation)
    for case in prepared.cases:
        assert case.unrelated
        about = case.id.split(":")[1]
        assert not any(p.target.startswith(about) for p in case.unrelated)


def test_wikitext_without_text_of_its_own_for_locality_is_refused(world: World) -> None:
    with pytest.raises(SettingsError, match="no train case edits"):
        sample(world, "wikitext", locality=0)
    with pytest.raises(SettingsError, match="no validation case edits"):
        sample(world, "wikitext", heldout=20)


def test_wikitext_files_are_joined_and_split_by_article(tmp_path: Path) -> None:
    prepared = local(tmp_path, "wikitext", locality=0, unrelated=0)
    assert prepared.card["counts"]["topics_taught"] + prepared.card["counts"]["topics_heldout"] == 8
    assert prepared.card["dropped"]["headings inside articles"] == 8
    text = " ".join(e.target for e in prepared.examples)
    assert "had 3,500 boats in a well-kept port, it seems. " in text
    assert len(text.split()) == 8 * 6 * 11  # every word of every article
    taught = {e.fact for e in prepared.examples if e.split == "train"}
    assert not taught & {e.fact for e in prepared.examples if e.split == "heldout"}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (" a 0 @.@ 7 to 2 @,@ 000 kg ( 4 in ) <unk> ", "a 0.7 to 2,000 kg (4 in) <unk>"),
        (" It 's \" very old \" , isn 't it ? ", "It's \"very old\", isn't it?"),
        (" at 01 : 00 , well @-@ known : yes ", "at 01:00, well-known: yes"),
    ],
)
def test_words_are_joined_as_they_were_written(line: str, text: str) -> None:
    assert wikitext.join_words(line) == text
