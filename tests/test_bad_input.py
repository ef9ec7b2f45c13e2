"""What a user or a disk can get wrong: one clear error, and nothing that was there is lost.

Settings are refused in test_config and test_composition, raw files in test_tasks, cases in
test_audit, a broken MLflow database in test_tracking; here stand the stages and the files between.
"""

from __future__ import annotations

import errno
import importlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import raw_files
import torch
from conftest import make_face
from fake_runs import request
from safetensors import SafetensorError
from safetensors.torch import save_file

import stages
from pipeline import editor, models, patch_file, reporting, tasks, train_base
from pipeline.composition import compose, parse
from pipeline.config import RECORD, Params, check_root
from pipeline.editors import mend
from pipeline.errors import DataError, ModelError, SettingsError, StorageError
from pipeline.patch import Patch
from pipeline.patch_file import save_patch
from pipeline.records import (
    Case,
    Example,
    read_cases,
    read_examples,
    write_cases,
    write_examples,
)
from pipeline.storage import hash_folder, read_json, write_folder_aside, write_json
from pipeline.tables import read_frame, write_frame
from pipeline.tasks.source import Folder
from pipeline.updates import Dense

ROOT = Path(__file__).parents[1]
CASE = Case(id="a", prompt="Where was Ada Verrin born?", target_new="Lima", subject="Ada Verrin")
EXAMPLE = Example(prompt="Where was Ada Verrin born?", target="Oslo", fact="ada")
FRAME = pd.DataFrame({"case_id": ["a", "b"], "tf_exact": [1.0, 0.0]})
PATCH = Patch({"site": Dense(torch.ones(1, 2, 2))})
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The tiny suite's settings, in a folder where nothing was run yet."""
    text = compose(ROOT, ["suite=tiny"])
    (tmp_path / RECORD).write_text(text)
    monkeypatch.chdir(tmp_path)
    return parse(text)


def stage(name: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A stage's function, without what it sets for the whole process."""
    module = importlib.import_module(f"stages.{name}")
    if hasattr(module, "set_up_torch"):
        monkeypatch.setattr(module, "set_up_torch", lambda _: None)
    return getattr(module, name)  # type: ignore[no-any-return]


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


# ---------------------------------------------------------------------- files that are broken


@pytest.mark.parametrize("size", [0, 3, 200, -20])
@pytest.mark.parametrize("kind", ["cases", "examples", "frame"])
def test_a_truncated_table_is_named(kind: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.parquet"
    write_cases(path, [CASE])
    read = read_cases
    if kind == "examples":
        write_examples(path, [EXAMPLE])
        read = read_examples  # type: ignore[assignment]
    elif kind == "frame":
        write_frame(path, FRAME)
        read = read_frame
    assert len(read(path)) > 0
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=rf"{kind}\.parquet.*truncated"):
        read(path)


def test_a_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    write_frame(tmp_path / "cases.parquet", FRAME)
    with pytest.raises(DataError, match=r"columns id, prompt.*found case_id, tf_exact"):
        read_cases(tmp_path / "cases.parquet")


@pytest.mark.parametrize("text", ['{"a": 1', "", '{"a": "\xff"}'])
def test_broken_json_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"card\.json"):
        read_json(path)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    train_base.save_base(make_face("gpt2"), folder)
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("lost", [True, False])
def test_a_model_that_is_not_whole_is_named(
    name: str, lost: bool, base: Path, tmp_path: Path
) -> None:
    shutil.copytree(base, tmp_path / "broken")
    path = tmp_path / "broken" / name
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.unlink() if lost else path.write_bytes(half)
    with pytest.raises(ModelError, match=rf"{tmp_path}/broken"):
        models.load(tmp_path / "broken")


def test_an_editor_without_its_tensors_is_named(tmp_path: Path) -> None:
    face = make_face("gpt2")
    write_json(tmp_path / "editor.json", {"base_hash": "b", "notes": {}})
    with pytest.raises(editor.EditorError, match=f"{tmp_path}"):
        editor.restore(mend.Editor(mend.Config(rank=2)), face, tmp_path, "b")


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


# ---------------------------------------------------------------------- disks

WRITERS: dict[str, Callable[[Path], object]] = {
    "cases": lambda path: write_cases(path, [CASE]),
    "examples": lambda path: write_examples(path, [EXAMPLE]),
    "frame": lambda path: write_frame(path, FRAME),
    "json": lambda path: write_json(path, {"a": 1}),
    "patch": lambda path: save_patch(PATCH, path),
    "folder": lambda path: write_folder_aside(path, lambda part: write_json(part / "a", 1)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_that_cannot_be_is_named(kind: str, tmp_path: Path) -> None:
    """A file stands where a folder should: root may write anywhere, so permissions tell nothing."""
    (tmp_path / "out").write_text("in the way")
    for path in (tmp_path / "out" / "file", tmp_path / "out" / "deep" / "file"):
        with pytest.raises(StorageError, match=rf"to write {path};"):
            WRITERS[kind](path)
    assert (tmp_path / "out").read_text() == "in the way"


def test_a_report_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    asked = request(tmp_path / "runs", {"ft": (0.7, 0.1)}, cases=5)
    (tmp_path / "report").write_text("in the way")
    with pytest.raises(StorageError, match=rf"to write {tmp_path}/report"):
        reporting.write_report(asked, tmp_path / "report")


def full_disk(error: Exception) -> Callable[..., None]:
    """A writer that leaves half a file and fails."""

    def write(_value: object, where: Any, **_options: Any) -> None:
        half = b"half a fi"
        where.write(half) if hasattr(where, "write") else Path(where).write_bytes(half)
        raise error

    return write


@pytest.mark.parametrize("kind", ["cases", "examples", "frame"])
def test_a_full_disk_keeps_the_old_table(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.parquet"
    WRITERS[kind](path)
    before = path.read_bytes()
    monkeypatch.setattr(pq, "write_table", full_disk(NO_SPACE))
    with pytest.raises(StorageError, match=r"table\.parquet.*No space left.*Free disk space"):
        WRITERS[kind](path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_keeps_the_old_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "edit.safetensors"
    save_patch(PATCH, path)
    before = path.read_bytes()
    error = SafetensorError("Error while serializing: I/O error: No space left on device")
    monkeypatch.setattr(patch_file, "save_file", full_disk(error))
    with pytest.raises(StorageError, match="No space left"):
        save_patch(PATCH, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_keeps_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    write_folder_aside(folder, lambda part: write_json(part / "deep" / "a.json", 1))
    before = hash_folder(folder)

    def fill(part: Path) -> None:
        save_file({"x": torch.zeros(4)}, part / "model.safetensors")
        raise NO_SPACE

    with pytest.raises(StorageError, match=rf"to write {folder}; found .*No space left"):
        write_folder_aside(folder, fill)
    assert hash_folder(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    for name in ("old", "new"):
        write_folder_aside(folder, lambda part, name=name: write_json(part / name, 1))  # type: ignore[misc]
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "base"
    write_folder_aside(folder, lambda part: write_json(part / "old", 1))
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".part") and self.is_dir():
            raise NO_SPACE
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StorageError):
        write_folder_aside(folder, lambda part: write_json(part / "new", 1))
    assert [path.name for path in folder.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [folder]


def test_the_base_stage_keeps_the_old_model_on_a_full_disk(
    params: Params, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = stages.bench_folder(params, "counterfact")
    write_examples(bench / "prepared" / "examples.parquet", [EXAMPLE])
    shutil.copytree(base, bench / "base")
    before = hash_folder(bench / "base")
    face = make_face("gpt2")
    monkeypatch.setattr(train_base, "make_base", lambda *_: (face, math.nan))
    # The weights are written by then.
    monkeypatch.setattr(
        type(face.tokenizer),
        "save_pretrained",
        lambda _self, folder: full_disk(NO_SPACE)(None, folder / "tokenizer.json"),
    )
    with pytest.raises(StorageError, match=r"counterfact/base; found .*No space left"):
        stage("base", monkeypatch)(params, "counterfact")
    assert hash_folder(bench / "base") == before
    assert sorted(path.name for path in bench.iterdir()) == ["base", "prepared"]
