"""zsRE: questions from the sample world and from MEND's files."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import again, local, sample
from pipeline.errors import DataError
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
