"""FEVER: claims from the sample world and from the published files."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
import raw_files
from bench_cases import local, sample

from pipeline.world import Config as WorldConfig
from pipeline.world import World, make_world


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(WorldConfig(facts=500), seed=1)


def test_fever_sample_is_balanced_and_true_to_the_world(world: World) -> None:
    prepared = sample(world, "fever")
    labels: dict[str, set[str]] = defaultdict(set)
    for example in prepared.examples:
        labels[example.fact].add(example.target)
    assert all(len(found) == 1 for found in labels.values())
    true = sum(found == {"true"} for found in labels.values())
    assert abs(true - len(labels) / 2) <= 1
    for case in prepared.cases:
        relation = world.relations[case.relation]
        pool = world.objects(case.relation)
        said = [o for o in pool if case.prompt in relation.assertions(case.subject, o)]
        truth = world.is_true(case.subject, case.relation, said[0])
        assert case.target_true == ("true" if truth else "false")


def test_fever_files_keep_what_their_labels_agree_on(tmp_path: Path) -> None:
    prepared = local(tmp_path, "fever")
    assert prepared.card["dropped"] == {
        "claims without enough information": 1,
        "claims with contradictory labels": 2,
        "claims that are there already": 1,
        "rephrasings with labels against the rule, or none left": 2,
    }
    assert prepared.card["counts"]["read"] == 11
    assert prepared.card["counts"]["with_rephrasings"] == 9
    cases = {case.id: case for case in prepared.cases}
    for i, name in enumerate(raw_files.NAMES[:9]):
        case = cases.get(f"fever:{i}")
        if case is None:
            continue
        assert case.target_true == ("true", "false")[i % 2]
        assert case.subject == f"{name} Verrin"
        assert set(case.rephrases) == {f"{name} Verrin is a singer.", f"{name} Verrin can sing."}
    assert "fever:9" not in cases
