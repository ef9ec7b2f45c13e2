"""What callers of the library give: any iterable, tables by their paths, and mistakes by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import make_cases
from conftest import make_face
from models_on_disk import FT, QUIET, corrections_for, model_folder
from test_editors import SMALL

from pipeline.cli import main
from pipeline.editable import Editable, JournalError
from pipeline.errors import DataError, ErrataError, ModelError, SettingsError
from pipeline.records import write_cases


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("gpt2", tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def one() -> Editable:
    return Editable(make_face("gpt2"), "a hash", guard=QUIET)


def test_prompts_may_be_read_once_only(one: Editable) -> None:
    prompts = [prompt for prompt, _ in corrections_for(one.face)]
    said = one.ask(prompts)
    assert one.ask(prompt for prompt in prompts) == said
    assert one.ask(tuple(prompts)) == said
    assert [a.after for a in one.compare(prompt for prompt in prompts)] == said
    assert one.ask([]) == []


@pytest.mark.parametrize(
    ("call", "kind", "expected"),
    [
        (lambda m: m.ask(None), DataError, "a prompt, or several; found None"),
        (lambda m: m.ask(5), DataError, "found 5"),
        (lambda m: m.compare(None), DataError, "found None"),
        (lambda m: m.ask("Tom", tokens="4"), SettingsError, "whole number; found '4'"),
        (lambda m: m.ask("Tom", tokens=2.5), SettingsError, "found 2.5"),
        (lambda m: m.ask("Tom", tokens=True), SettingsError, "found True"),
        (lambda m: m.ask("Tom", tokens=0), SettingsError, "found 0"),
        (lambda m: m.edit(("Tom", "a"), 5), SettingsError, "name of an editor; found 5"),
        (lambda m: m.edit(("Tom", "a"), settings=[3]), SettingsError, r"names; found \[3\]"),
        (lambda m: m.edit(("Tom", "a"), settings={3: 1}), SettingsError, "a setting; found 3"),
        (lambda m: m.edit(("Tom", "a"), cases=[3]), DataError, "training cases; found 3"),
        (lambda m: m.edit(("Tom", "a"), cases=3), DataError, "training cases; found 3"),
        (lambda m: m.export("out", dtype=torch.int8), SettingsError, "dtype of export; found 'i"),
        (lambda m: m.export("out", 5), SettingsError, "a form of export; found 5"),
        (lambda _: Editable.load(None), ModelError, "or hub name; found None"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_taken_is_named(
    call: Callable[[Any], object], kind: type[ErrataError], expected: str, one: Editable
) -> None:
    one.edit(corrections_for(one.face)[:1], **FT)
    with pytest.raises(kind, match=expected):
        call(one)


def test_a_dtype_is_said_as_torch_has_it(one: Editable, tmp_path: Path) -> None:
    one.edit(corrections_for(one.face)[:1], **FT)
    one.export(tmp_path / "out", dtype=torch.bfloat16)
    assert Editable.load(tmp_path / "out", dtype=None).face.model.dtype == torch.bfloat16  # type: ignore[arg-type]


def test_training_cases_may_be_a_table(one: Editable, tmp_path: Path) -> None:
    """Of which those of the split 'train' are taken."""
    path, pair = tmp_path / "cases.parquet", corrections_for(one.face)[:1]
    cases = make_cases(one.face)
    write_cases(path, [*cases, replace(cases[0], id="other", split="validation")])
    train = [case for case in cases if case.split == "train"]
    settings = {**SMALL["mend"], "outer": vars(SMALL["mend"]["outer"])}
    editors = [
        one.edit(pair, "mend", cases=given, settings=settings)[0].editor
        for given in (path, str(path), train)
    ]
    assert len(set(editors)) == 1
    with pytest.raises(DataError, match=r"a table at nowhere.*Give a parquet table of cases"):
        one.edit(pair, "mend", cases="nowhere.parquet")


def test_a_journal_is_no_file(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "journal").write_text("")
    with pytest.raises(JournalError, match=r"found a file at .*journal\. Name a journal"):
        Editable.load(folder, journal=tmp_path / "journal")
    assert main(["log", str(folder), "--journal", str(tmp_path / "journal")]) == 1
    assert "JournalError: expected the folder of a journal" in caplog.messages[-1]
