"""What a user can get wrong: one clear error, and nothing that was there is lost.

Settings are refused in test_config and test_composition, raw files in test_tasks too, cases in
test_audit, a broken MLflow database in test_tracking, files and disks in test_disk; here stand the
stages and raw records.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import raw_files
from models_on_disk import model_folder
from staging import stage

import stages
from pipeline import tasks, train_base
from pipeline.config import Params, check_root
from pipeline.errors import DataError, ModelError, SettingsError
from pipeline.tasks.source import Folder

# ---------------------------------------------------------------------- settings in the record


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seed": "abc"}, r"params\.seed to be a whole number; found 'abc'"),
        ({"threads": 0}, r"params\.threads to be at least 1"),
        ({"thraeds": 2}, r"params\.thraeds.*Did you mean 'threads'"),
        ({"algs": "mend"}, r"params\.algs to be a list"),
        ({"world": 3}, r"params\.world to be a mapping or null"),
    ],
)
def test_the_root_of_a_record_is_checked(
    change: dict[str, Any], expected: str, params: Params
) -> None:
    check_root(params)
    with pytest.raises(SettingsError, match=expected):
        check_root(params | change)


def test_a_missing_root_setting_is_named(params: Params) -> None:
    del params["evaluate"]
    with pytest.raises(SettingsError, match=r"a value for params\.evaluate"):
        check_root(params)


@pytest.mark.parametrize(
    ("name", "word", "hint"),
    [
        ("prepare", "zrse", "Did you mean 'zsre'"),
        ("base", "counterfacts", "Did you mean 'counterfact'"),
        ("label", "wikitxt", "Did you mean 'wikitext'"),
        ("fit", "zsre-mnd", "Did you mean 'zsre-mend'"),
        ("evaluate", "fever-tf", "Did you mean 'fever-ft'"),
    ],
)
def test_stages_name_the_near_misses(
    name: str, word: str, hint: str, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    del params
    monkeypatch.setattr("sys.argv", [name, word])
    with pytest.raises(SystemExit, match=f"SettingsError: .*{hint}"):
        stages.start(stage(name, monkeypatch))


def test_a_hand_edit_of_the_wrong_type_is_named_by_its_path(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    params["benches"]["zsre"]["data"]["facts"] = "many"
    with pytest.raises(SettingsError, match=r"benches\.zsre\.data\.facts to be a whole number"):
        stage("prepare", monkeypatch)(params, "zsre")
    params["settings"]["zsre-mend"]["rnak"] = 4
    with pytest.raises(SettingsError, match=r"settings\.zsre-mend\.rnak.*Did you mean 'rank'"):
        stage("fit", monkeypatch)(params, "zsre-mend")


def test_an_unknown_editor_in_the_record_is_named(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    params["fits"]["zsre-mend"]["alg"] = "mnd"
    with pytest.raises(SettingsError, match=r"'mnd'. Did you mean 'mend'"):
        stage("fit", monkeypatch)(params, "zsre-mend")


# ---------------------------------------------------------------------- files that are not there


@pytest.mark.parametrize(
    ("name", "words", "lost"),
    [
        ("base", ["zsre"], "zsre/prepared/examples.parquet"),
        ("label", ["zsre"], "zsre/prepared/cases.parquet"),
        ("fit", ["zsre-mend"], "zsre/labelled/cases.parquet"),
        ("evaluate", ["zsre-mend"], "zsre/base"),
        ("report", [], "outcomes.parquet"),
    ],
)
def test_stages_name_the_input_that_is_missing(
    name: str, words: list[str], lost: str, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises((DataError, ModelError), match=rf"{lost}.*dvc repro"):
        stage(name, monkeypatch)(params, *words)


# ---------------------------------------------------------------------- raw records


def prepare(root: Path, bench: str) -> None:
    task = tasks.load(bench)
    task.prepare(Folder(root), task.Config(train_cases=2, validation_cases=2), 0)


def broken_list(path: Path, number: int, change: dict[str, Any]) -> None:
    """Change one record of a JSON list; None takes a field out."""
    records = json.loads(path.read_text())
    records[number] = {k: v for k, v in (records[number] | change).items() if v is not None}
    raw_files.write_list(path, records)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"subject": None}, r"the field 'subject' in \S+edit\.json, record 3"),
        ({"subject": "Someone Else"}, r"its subject 'Someone Else' in \S+edit\.json, record 3"),
        ({"target_new": " "}, r"text in the field 'target_new' in \S+edit\.json, record 3"),
        ({"target_new": 3}, r"str in the field 'target_new' in \S+edit\.json, record 3; found int"),
    ],
)
def test_a_defective_counterfact_record_is_named(
    change: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    raw_files.counterfact(tmp_path)
    broken_list(tmp_path / "counterfact/counterfact-edit.json", 2, change)
    with pytest.raises(DataError, match=expected):
        prepare(tmp_path, "counterfact")


def test_a_broken_line_among_patterns_is_named(tmp_path: Path) -> None:
    raw_files.counterfact(tmp_path)
    path = tmp_path / "pararel/pattern_data/graphs_json/P19.jsonl"
    path.write_text(path.read_text() + "{'pattern': 3}\n")
    with pytest.raises(DataError, match=r"P19\.jsonl, line 5"):
        prepare(tmp_path, "counterfact")


@pytest.mark.parametrize("evidence", [[], [[]], [3], [[[1, 2, None, None]]]])
def test_a_claim_without_evidence_is_named(evidence: list[Any], tmp_path: Path) -> None:
    raw_files.fever(tmp_path)
    record = raw_files.claim(1, "SUPPORTS", "Ada Verrin sings.", "Ada") | {"evidence": evidence}
    raw_files.write_lines(tmp_path / "fever/paper_test.jsonl", [record | {"claim": "It rains."}])
    with pytest.raises(DataError, match=r"paper_test\.jsonl, line 1"):
        prepare(tmp_path, "fever")


def test_alternatives_that_do_not_fit_their_questions_are_named(tmp_path: Path) -> None:
    raw_files.zsre(tmp_path)
    path = tmp_path / "zsre/zsre_mend_train_en_10000.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:4]))
    task = tasks.load("zsre")
    config = task.Config(train_cases=2, validation_cases=2, targets="source")
    with pytest.raises(DataError, match=r"question 5 of .*line 5.*no such line"):
        task.prepare(Folder(tmp_path), config, 0)


def test_a_base_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    source = str(model_folder("gpt2", tmp_path / "model"))
    config = train_base.Config(kind="seq2seq", source=source)
    with pytest.raises(ModelError, match=f"a seq2seq model at {source}.*found a causal model"):
        train_base.make_base([], config, config.shape, 0)
