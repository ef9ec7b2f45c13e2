"""What a disk can get wrong: broken files are named, and a full one keeps what was there."""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from conftest import make_face
from fake_runs import request
from safetensors import SafetensorError
from safetensors.torch import save_file
from staging import stage

import stages
from pipeline import models, reporting, train_base
from pipeline.config import Params
from pipeline.editing import editor, patch_file
from pipeline.editing.patch import Patch
from pipeline.editing.patch_file import save_patch
from pipeline.editing.updates import Dense
from pipeline.editors import mend
from pipeline.errors import DataError, ModelError, StorageError
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

CASE = Case(id="a", prompt="Where was Ada Verrin born?", target_new="Lima", subject="Ada Verrin")
EXAMPLE = Example(prompt="Where was Ada Verrin born?", target="Oslo", fact="ada")
FRAME = pd.DataFrame({"case_id": ["a", "b"], "tf_exact": [1.0, 0.0]})
PATCH = Patch({"site": Dense(torch.ones(1, 2, 2))})
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")

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
