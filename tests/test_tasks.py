"""Benchmarks from the sample world and from files: what they have in common."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_cases import labelled, local, sample, splits

from pipeline import tasks
from pipeline.audit import audit
from pipeline.composition import compose
from pipeline.config import build, read_params
from pipeline.config import pick as config_pick
from pipeline.errors import DataError, SettingsError
from pipeline.tasks import counterfact, fever, wikitext, zsre
from pipeline.tasks.drawing import pick, split, stream
from pipeline.world import Config as WorldConfig
from pipeline.world import World, make_world

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(WorldConfig(facts=500), seed=1)


@pytest.mark.parametrize("bench", tasks.NAMES)
@pytest.mark.parametrize("suite", ["sample", "local"])
def test_cases_pass_the_audit(bench: str, suite: str, world: World, tmp_path: Path) -> None:
    prepared = sample(world, bench) if suite == "sample" else local(tmp_path, bench)
    found = audit(bench, labelled(bench, prepared.cases))
    sizes = (60, 20) if suite == "sample" else (6, 2)
    assert (found["train"], found["validation"]) == sizes
    assert prepared.card["counts"]["cases"] == sum(sizes)


@pytest.mark.parametrize("bench", tasks.NAMES)
def test_the_seed_decides_everything(bench: str, world: World) -> None:
    assert sample(world, bench) == sample(world, bench)
    assert sample(world, bench).cases != sample(world, bench, seed=1).cases


@pytest.mark.parametrize("seed", [1, 8])
@pytest.mark.parametrize("bench", tasks.NAMES)
def test_the_sample_can_be_drawn_from_another_seed(bench: str, seed: int, tmp_path: Path) -> None:
    """Whole subjects go to validation, so a little more goes there from one seed than another."""
    (tmp_path / "params.yaml").write_text(compose(ROOT, [f"seed={seed}"]))
    params = read_params(tmp_path / "params.yaml")
    source = make_world(build(WorldConfig, params["world"], "world"), seed)
    task, where = tasks.load(bench), f"benches.{bench}.data"
    config = build(task.Config, config_pick(params, where), where)
    counts = task.prepare(source, config, seed).card["counts"]
    assert counts["cases"] == config.train_cases + config.validation_cases


@pytest.mark.parametrize("bench", ["zsre", "fever", "counterfact"])
@pytest.mark.parametrize("suite", ["sample", "local"])
def test_prompts_and_probes_are_taught(
    bench: str, suite: str, world: World, tmp_path: Path
) -> None:
    prepared = sample(world, bench) if suite == "sample" else local(tmp_path, bench)
    taught = {(e.prompt, e.target) for e in prepared.examples if e.split == "train"}
    for case in prepared.cases:
        assert (case.prompt, case.target_true) in taught
        for probe in (*case.neighbours, *case.hard_neighbours, *case.unrelated):
            assert (probe.prompt, probe.target) in taught
            assert probe.prompt not in (case.prompt, *case.rephrases)


EDITABLE = ["zsre", "fever", "counterfact"]  # benchmarks of facts, which can be corrected


@pytest.mark.parametrize("bench", EDITABLE)
@pytest.mark.parametrize("suite", ["sample", "local"])
def test_corrections_are_of_facts_that_the_model_was_never_taught(
    bench: str, suite: str, world: World, tmp_path: Path
) -> None:
    wanted = 30 if suite == "sample" else 1
    if suite == "sample":
        prepared = sample(world, bench, corrections=wanted)
        assert prepared.examples == sample(world, bench).examples
    else:
        prepared = local(tmp_path, bench, corrections=wanted)
    cases = [case for case in prepared.cases if case.split == "correction"]
    train, validation = splits(prepared.cases)
    counts = prepared.card["counts"]
    assert len(cases) == counts["corrections"] == wanted
    assert len(train) + len(validation) == counts["cases"]
    taught = {(e.prompt, e.target) for e in prepared.examples if e.split == "train"}
    prompts = {example.prompt for example in prepared.examples}
    subjects = {case.subject for case in (*train, *validation)}
    fitted = {probe for case in train for probe in case.unrelated}
    for case in cases:
        assert case.target_new == ""  # the label stage gives it the truth, if the model is wrong
        assert case.target_true in case.answers
        assert case.subject not in subjects
        assert prompts.isdisjoint((case.prompt, *case.rephrases))
        assert case.rephrases
        assert case.unrelated or suite == "local"  # whose facts are all of one relation
        for probe in (*case.neighbours, *case.hard_neighbours, *case.unrelated):
            assert (probe.prompt, probe.target) in taught
        assert fitted.isdisjoint(case.unrelated)
        if bench != "fever":  # a neighbour with the same answer could not show that it spread
            assert case.target_true not in {probe.target for probe in case.neighbours}
    found = audit(bench, labelled(bench, tuple(prepared.cases)))
    assert found["correction"] == wanted


@pytest.mark.parametrize("bench", EDITABLE)
def test_too_many_corrections_are_refused(bench: str, world: World, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="99"):
        sample(world, bench, corrections=999)
    with pytest.raises(SettingsError, match="99"):
        local(tmp_path, bench, corrections=99)


@pytest.mark.parametrize("bench", tasks.NAMES)
def test_too_many_cases_are_refused_by_number(bench: str, world: World, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="9999"):
        sample(world, bench, train_cases=9999)
    with pytest.raises(SettingsError, match="9999"):
        local(tmp_path, bench, train_cases=9999)


@pytest.mark.parametrize(
    "change", [{"facts": -1}, {"taught_wordings": 0}, {"train_cases": 0}, {"unrelated": -2}]
)
def test_sizes_out_of_range_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match=next(iter(change))):
        zsre.Config(**change)  # type: ignore[arg-type]


def test_disordered_lengths_are_refused() -> None:
    with pytest.raises(SettingsError, match="words"):
        wikitext.Config(words=(120, 60))


def test_unknown_names_get_their_near_misses() -> None:
    with pytest.raises(SettingsError, match="'counterfact'"):
        tasks.load("counterfacts")
    with pytest.raises(SettingsError, match="'sample'"):
        tasks.open_source("smaple", "", WorldConfig(), 0)


def test_a_raw_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    for raw in ("", str(tmp_path / "nowhere")):
        with pytest.raises(DataError, match="raw"):
            tasks.open_source("local", raw, WorldConfig(), 0)


def test_training_cases_never_meet_validation_subjects(world: World) -> None:
    for bench in ("zsre", "counterfact", "fever"):
        train, validation = splits(sample(world, bench).cases)
        held = {case.subject for case in validation}
        prompts = {e.prompt: e.fact.split(" / ")[0] for e in sample(world, bench).examples}
        for case in train:
            for probe in (*case.neighbours, *case.hard_neighbours, *case.unrelated):
                assert prompts[probe.prompt] not in held


def test_pick_takes_allowed_members_once() -> None:
    pool = list(range(1000))
    found = pick(pool, 5, stream(0, "a"), lambda n: n % 100 == 0)
    assert len(set(found)) == 5
    assert all(n % 100 == 0 for n in found)
    assert len(pick(pool, 50, stream(0, "a"), lambda n: n % 100 == 0)) == 10


def test_split_takes_so_many_of_a_group_where_asked() -> None:
    items = [f"{group}{i}" for group in "abcdef" for i in range(4)]
    train, validation = split(items, lambda item: item[0], (8, 3), stream(0, "s"), "b", most=1)
    assert len({item[0] for item in validation}) == len(validation) == 3
    assert {item[0] for item in train}.isdisjoint(item[0] for item in validation)
    with pytest.raises(SettingsError, match="8 train and 7 validation"):
        split(items, lambda item: item[0], (8, 7), stream(0, "s"), "b", most=1)


def test_split_keeps_groups_whole() -> None:
    items = [f"{group}{n}" for group in "abcdefgh" for n in range(3)]
    train, validation = split(items, lambda item: item[0], (12, 4), stream(0, "s"), "b")
    assert (len(train), len(validation)) == (12, 4)
    assert not {item[0] for item in train} & {item[0] for item in validation}


def test_every_benchmark_names_itself() -> None:
    assert [tasks.load(name) for name in tasks.NAMES] == [counterfact, fever, wikitext, zsre]
