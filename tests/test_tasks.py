"""Benchmarks from the sample world and from files: what is taught, edited, probed and refused."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import raw_files

from pipeline import tasks
from pipeline.audit import audit
from pipeline.errors import DataError, SettingsError
from pipeline.records import Case, Prepared
from pipeline.tasks import counterfact, fever, wikitext, zsre
from pipeline.tasks.drawing import pick, split, stream
from pipeline.tasks.source import Folder
from pipeline.world import Config as WorldConfig
from pipeline.world import World, make_world

SMALL: dict[str, dict[str, Any]] = {
    "zsre": {"facts": 300, "heldout": 20, "train_cases": 60, "validation_cases": 20},
    "fever": {"claims": 300, "heldout": 20, "train_cases": 60, "validation_cases": 20},
    "counterfact": {"facts": 300, "heldout": 20, "train_cases": 60, "validation_cases": 20},
    "wikitext": {"passages": 80, "heldout": 40, "train_cases": 60, "validation_cases": 20},
}
# Ten records: six to train with and two to validate on, so that two are left over.
TINY: dict[str, dict[str, Any]] = {
    "zsre": {"facts": 10, "taught_wordings": 1, "heldout": 3},
    "fever": {"claims": 11, "taught_wordings": 2, "heldout": 3},
    "counterfact": {"facts": 10, "taught_wordings": 1, "heldout": 3, "prefixed": 0.0},
    "wikitext": {"passages": 90, "heldout": 3, "words": (30, 40), "prompt_words": (10, 15)},
}


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(WorldConfig(facts=500), seed=1)


def _sample(world: World, bench: str, seed: int = 0, **changes: Any) -> Prepared:
    task = tasks.load(bench)
    return task.prepare(world, task.Config(**{**SMALL[bench], **changes}), seed)


def _local(root: Path, bench: str, **changes: Any) -> Prepared:
    getattr(raw_files, bench)(root)
    return _again(root, bench, **changes)


def _again(root: Path, bench: str, **changes: Any) -> Prepared:
    task = tasks.load(bench)
    sizes = {"train_cases": 6, "validation_cases": 2}
    return task.prepare(Folder(root), task.Config(**{**sizes, **TINY[bench], **changes}), 0)


def _labelled(bench: str, cases: tuple[Case, ...]) -> list[Case]:
    new = {"fever": "true"}.get(bench, " something else")
    return [replace(case, target_new=case.target_new or new) for case in cases]


def _splits(cases: tuple[Case, ...]) -> tuple[list[Case], list[Case]]:
    train = [case for case in cases if case.split == "train"]
    return train, [case for case in cases if case.split == "validation"]


# ---------------------------------------------------------------------- both sources


@pytest.mark.parametrize("bench", tasks.NAMES)
@pytest.mark.parametrize("suite", ["sample", "local"])
def test_cases_pass_the_audit(bench: str, suite: str, world: World, tmp_path: Path) -> None:
    prepared = _sample(world, bench) if suite == "sample" else _local(tmp_path, bench)
    found = audit(bench, _labelled(bench, prepared.cases))
    sizes = (60, 20) if suite == "sample" else (6, 2)
    assert (found["train"], found["validation"]) == sizes
    assert prepared.card["counts"]["cases"] == sum(sizes)


@pytest.mark.parametrize("bench", tasks.NAMES)
def test_the_seed_decides_everything(bench: str, world: World) -> None:
    assert _sample(world, bench) == _sample(world, bench)
    assert _sample(world, bench).cases != _sample(world, bench, seed=1).cases


@pytest.mark.parametrize("bench", ["zsre", "fever", "counterfact"])
@pytest.mark.parametrize("suite", ["sample", "local"])
def test_prompts_and_probes_are_taught(
    bench: str, suite: str, world: World, tmp_path: Path
) -> None:
    prepared = _sample(world, bench) if suite == "sample" else _local(tmp_path, bench)
    taught = {(e.prompt, e.target) for e in prepared.examples if e.split == "train"}
    for case in prepared.cases:
        assert (case.prompt, case.target_true) in taught
        for probe in (*case.neighbours, *case.hard_neighbours, *case.unrelated):
            assert (probe.prompt, probe.target) in taught
            assert probe.prompt not in (case.prompt, *case.rephrases)


@pytest.mark.parametrize("bench", tasks.NAMES)
def test_too_many_cases_are_refused_by_number(bench: str, world: World, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="9999"):
        _sample(world, bench, train_cases=9999)
    with pytest.raises(SettingsError, match="9999"):
        _local(tmp_path, bench, train_cases=9999)


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


# ---------------------------------------------------------------------- the sample world


def test_zsre_sample_splits_wordings_by_fact(world: World) -> None:
    prepared = _sample(world, "zsre", facts=400)
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
    prepared = _sample(world, "zsre", targets="source")
    assert all(case.target_new not in case.answers for case in prepared.cases)
    implied = [case for case in prepared.cases if case.implied]
    assert implied
    for case in implied:
        follows = world.implied(case.subject, case.relation, case.target_new)
        assert case.implied[0].target == follows[0].object
        assert case.subject in case.implied[0].prompt
    open_case = replace(implied[0], implied=())
    assert zsre.complete(world, open_case, seed=0).implied == implied[0].implied
    assert not any(case.target_new for case in _sample(world, "zsre").cases)


def test_training_cases_never_meet_validation_subjects(world: World) -> None:
    for bench in ("zsre", "counterfact", "fever"):
        train, validation = _splits(_sample(world, bench).cases)
        held = {case.subject for case in validation}
        prompts = {e.prompt: e.fact.split(" / ")[0] for e in _sample(world, bench).examples}
        for case in train:
            for probe in (*case.neighbours, *case.hard_neighbours, *case.unrelated):
                assert prompts[probe.prompt] not in held


def test_fever_sample_is_balanced_and_true_to_the_world(world: World) -> None:
    prepared = _sample(world, "fever")
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


def test_counterfact_sample_has_the_published_shape(world: World) -> None:
    for case in _sample(world, "counterfact").cases:
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
    cases = [c for c in _sample(world, "counterfact").cases if c.references]
    assert cases
    for case in cases:
        shares = [f for f in world.facts if f.relation == case.relation]
        models = [f.subject for f in shares if f.object == case.target_new[1:]]
        for text in case.references:
            assert any(model in text.partition(". ")[0] for model in models)


def test_counterfact_sample_teaches_some_facts_after_another_sentence(world: World) -> None:
    none = _sample(world, "counterfact", prefixed=0.0)
    every = _sample(world, "counterfact", prefixed=1.0)
    assert not any(". " in example.prompt for example in none.examples)
    facts = {e.fact for e in every.examples if ". " in e.prompt}
    assert len(facts) > 150  # in one of six wordings each, of which three are taught


def test_wikitext_sample_cuts_openings_by_the_rule(world: World) -> None:
    prepared = _sample(world, "wikitext")
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
        assert all(texts[probe.target].split == wanted for probe in case.unrelated)


# ---------------------------------------------------------------------- files


def test_zsre_files_call_the_truth_alt(tmp_path: Path) -> None:
    prepared = _local(tmp_path, "zsre")
    case = next(case for case in prepared.cases if case.id == "zsre:3")
    assert case.subject == "Leo Verrin"
    assert case.prompt == "Where was Leo Verrin born?"
    assert case.rephrases == ("What is the birthplace of Leo Verrin?",)
    assert case.relation == "Where was {} born?"
    assert (case.target_true, case.target_new) == ("Oslo", "")
    assert case.source == "zsre/zsre_mend_train_10000.json, record 4"
    assert set(prepared.card["files"]) == {"zsre/zsre_mend_train_10000.json"}


def test_zsre_files_give_targets_line_by_line(tmp_path: Path) -> None:
    prepared = _local(tmp_path, "zsre", targets="source")
    assert all({c.target_true, c.target_new} == {"Lima", "Oslo"} for c in prepared.cases)
    path = tmp_path / "zsre/zsre_mend_train_en_10000.txt"
    lines = path.read_text().split("\n")
    path.write_text("\n".join([lines[0], "Who?\tLima", *lines[2:]]))
    with pytest.raises(DataError, match="line 2 of"):
        _again(tmp_path, "zsre", targets="source")


def test_fever_files_keep_what_their_labels_agree_on(tmp_path: Path) -> None:
    prepared = _local(tmp_path, "fever")
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


def test_wikitext_files_are_joined_and_split_by_article(tmp_path: Path) -> None:
    prepared = _local(tmp_path, "wikitext")
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


def test_counterfact_files_never_use_the_reduced_rephrasing(tmp_path: Path) -> None:
    prepared = _local(tmp_path, "counterfact")
    everything = str(prepared)
    assert "NEVER" not in everything
    train, validation = _splits(prepared.cases)
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


def test_counterfact_files_drop_what_conflicts(tmp_path: Path) -> None:
    dropped = _local(tmp_path, "counterfact").card["dropped"]
    assert dropped["cases that share their prompt with another"] == 2
    assert dropped["cases whose wording fits no relation of ParaRel, or several"] == 1


# ---------------------------------------------------------------------- broken files


@pytest.mark.parametrize("bench", tasks.NAMES)
def test_a_missing_file_is_named(bench: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=bench.removesuffix("-2")):
        _again(tmp_path, bench)


def test_a_broken_line_is_named_with_its_number(tmp_path: Path) -> None:
    raw_files.fever(tmp_path)
    path = tmp_path / "fever/paper_dev.jsonl"
    lines = path.read_text().split("\n")
    path.write_text("\n".join([*lines[:3], '{"id": 3, "label"', *lines[4:]]))
    with pytest.raises(DataError, match=r"paper_dev\.jsonl, line 4"):
        _again(tmp_path, "fever")


def test_a_truncated_list_is_named_with_its_last_line(tmp_path: Path) -> None:
    raw_files.zsre(tmp_path)
    path = tmp_path / "zsre/zsre_mend_train_10000.json"
    text = path.read_text()[:400]
    path.write_text(text)
    last = text.count("\n") + 1
    with pytest.raises(DataError, match=rf"line {last}; .*truncated"):
        _again(tmp_path, "zsre")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"alt": None}, r"record 2; found NoneType"),
        ({"alt": " "}, r"text in the field 'alt' in .*record 2"),
        ({"subject": "Someone Else"}, r"names its subject 'Someone Else' in .*record 2"),
    ],
)
def test_a_defective_record_is_named(
    change: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    record = {"case_id": 0, "subject": "A", "src": "Where is A?", "rephrase": "A is where?"}
    records = [{**record, "alt": "B"}, {**record, "alt": "B", **change}]
    raw_files.write_list(tmp_path / "zsre/zsre_mend_train_10000.json", records)
    with pytest.raises(DataError, match=complaint):
        _again(tmp_path, "zsre")


def test_a_missing_field_is_named_with_its_line(tmp_path: Path) -> None:
    raw_files.fever(tmp_path)
    raw_files.write_lines(tmp_path / "fever/paper_test.jsonl", [{"id": 1, "label": "SUPPORTS"}])
    with pytest.raises(DataError, match=r"'claim' in fever/paper_test\.jsonl, line 1"):
        _again(tmp_path, "fever")


@pytest.mark.parametrize("text", ["", " \n\n", "[]", "{}", "[3]"])
def test_a_file_without_records_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "zsre/zsre_mend_train_10000.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises((DataError, SettingsError)):
        _again(tmp_path, "zsre")


def test_text_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wikitext-2/test.txt"
    path.parent.mkdir()
    path.write_bytes(b" = T = \n\xff\xfe\n")
    with pytest.raises(DataError, match="UTF-8"):
        _again(tmp_path, "wikitext")


# ---------------------------------------------------------------------- draws


def test_pick_takes_allowed_members_once() -> None:
    pool = list(range(1000))
    found = pick(pool, 5, stream(0, "a"), lambda n: n % 100 == 0)
    assert len(set(found)) == 5
    assert all(n % 100 == 0 for n in found)
    assert len(pick(pool, 50, stream(0, "a"), lambda n: n % 100 == 0)) == 10


def test_split_keeps_groups_whole() -> None:
    items = [f"{group}{n}" for group in "abcdefgh" for n in range(3)]
    train, validation = split(items, lambda item: item[0], (12, 4), stream(0, "s"), "b")
    assert (len(train), len(validation)) == (12, 4)
    assert not {item[0] for item in train} & {item[0] for item in validation}


def test_every_benchmark_names_itself() -> None:
    assert [tasks.load(name) for name in tasks.NAMES] == [counterfact, fever, wikitext, zsre]
