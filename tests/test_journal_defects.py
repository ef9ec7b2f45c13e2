"""Journals that something is missing from: named in words that help, and never made worse."""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from models_on_disk import FT, corrections_for
from safetensors.torch import save_file
from test_journal import EDIT, edited

from pipeline.cli import main
from pipeline.editable import Editable, Journal, JournalError, beside
from pipeline.editable.faults import faults
from pipeline.editable.stored import load_edit
from pipeline.errors import DataError, SettingsError, StorageError

GONE = "gone"
UNDO = {"kind": "undo", "of": [1]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journal of two edits and an undo."""
    journal = Journal(tmp_path / "journal", "hash", "model")
    for record in (EDIT | {"base_hash": "hash"}, EDIT):
        journal.append(record, Path.touch)
    journal.append(UNDO)
    return journal.folder


def change(path: Path, values: dict[str, Any]) -> None:
    """Fields of a JSON file written anew; GONE takes one out."""
    found = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in found.items() if value != GONE}))


@pytest.mark.parametrize(
    ("number", "values", "expected"),
    [
        *((2, {name: GONE}, f"an edit without '{name}'") for name in EDIT if name != "kind"),
        (2, {"patch_hash": GONE}, "an edit without 'patch_hash'"),
        (2, {"kind": GONE}, "the kind None"),
        (2, {"kind": "undone"}, "the kind 'undone'"),
        (2, {"corrections": []}, "an edit of no corrections"),
        (2, {"corrections": [{"prompt": "Tom"}]}, "among its 'corrections'"),
        (2, {"answers": "none"}, "'none' as its 'answers'"),
        (2, {"health": {}}, "a 'health' without 'past'"),
        (3, {"of": GONE}, "an undo without 'of'"),
        (3, {"of": ["1"]}, r"\['1'\] as its 'of'"),
    ],
)
def test_a_record_that_lacks_something_is_named(
    number: int, values: dict[str, Any], expected: str, folder: Path
) -> None:
    change(folder / f"{number:06d}" / "record.json", values)
    with pytest.raises(DataError, match=rf"record {number} in .*record\.json; found .*{expected}"):
        Journal(folder).active()


@pytest.mark.parametrize("words", [["log"], ["undo", "--all"], ["ask", "Tom"], ["check", "--json"]])
def test_every_command_names_it(
    words: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, _ = edited(tmp_path)
    change(beside(model) / "000002" / "record.json", {"on": GONE})
    assert main([words[0], str(model), *words[1:]]) == 1
    assert caplog.messages[-1].startswith("DataError: expected record 2 in")
    assert f"or remove {beside(model) / '000002'}: without its record" in caplog.messages[-1]


def test_check_tells_once_of_what_the_model_cannot_be_opened_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model, _ = edited(tmp_path)
    patch = beside(model) / "000002" / "patch.safetensors"
    patch.unlink()
    assert main(["check", str(model)]) == 1
    assert f"not whole: no such file instead of the patch of edit 2 in {patch}" in (
        capsys.readouterr().out
    )
    assert "patch of edit" not in caplog.messages[-1]
    assert "a whole journal; found what is shown above. Restore" in caplog.messages[-1]


@pytest.mark.parametrize(("name", "number"), [("journal.json", 0), ("000002/record.json", 2)])
def test_a_broken_file_is_told_with_a_way_out_that_works(
    name: str, number: int, folder: Path
) -> None:
    """No stage makes a user's journal."""
    (folder / name).write_text("{")
    with pytest.raises(DataError, match=r"or remove ") as told:
        Journal(folder).records()
    assert "dvc" not in str(told.value)
    if number:
        shutil.rmtree(folder / f"{number:06d}")
        assert Journal(folder).active() == []
        return
    (folder / name).unlink()
    with pytest.raises(DataError, match="write what its records say") as told:
        Journal(folder)
    (folder / name).write_text(str(told.value).partition("say: ")[2])
    assert len(Journal(folder).records()) == 3


@pytest.mark.parametrize("field", ["answers", "corrections", "health"])
def test_a_field_too_many_is_named(field: str, tmp_path: Path) -> None:
    model, _ = edited(tmp_path)
    path = beside(model) / "000001" / "record.json"
    record = json.loads(path.read_text())
    more = [entry | {"new": 1} for entry in record[field] or ()]
    change(path, {field: more or {"past": [], "new": 1}})
    with pytest.raises(DataError, match="an edit in record 1 of the journal"):
        _ = Editable.load(model, journal=beside(model)).edits


def test_a_folder_without_its_record_is_named_and_can_be_removed(folder: Path) -> None:
    (folder / "000004").mkdir()
    with pytest.raises(DataError, match=r"record 4 in .*; found no such file.*remove .*000004"):
        Journal(folder).records()
    (folder / "000004").rmdir()
    assert Journal(folder).active() == [2]
    (folder / "notes").mkdir()
    (folder / "12").mkdir()  # not the journal's: its names have six digits
    assert Journal(folder).append(EDIT, Path.touch)["number"] == 4


@pytest.mark.parametrize("header", [{}, {"start": "1", "epsilon": "near"}])
def test_a_memory_whose_header_makes_no_sense_is_named(
    header: dict[str, str], tmp_path: Path
) -> None:
    tensors = {name: torch.zeros(1, 1, 1) for name in ("key", "token")}
    save_file(tensors, tmp_path / "patch.safetensors", {"format": "errata-memory-1"} | header)
    with pytest.raises(DataError, match=r"an edit at .*patch\.safetensors"):
        load_edit(tmp_path / "patch.safetensors")


@pytest.mark.parametrize("name", ["base_hash", "source"])
def test_a_header_that_lacks_something_is_named(name: str, folder: Path) -> None:
    change(folder / "journal.json", {name: GONE})
    for base_hash in (None, "hash"):
        with pytest.raises(DataError, match=f"text as the '{name}' of the journal"):
            Journal(folder, base_hash)


def test_a_lost_header_is_not_written_anew_without_a_word(folder: Path) -> None:
    journal, header = Journal(folder, "hash"), folder / "journal.json"
    header.unlink()
    for act in (
        lambda: Journal(folder),
        lambda: Journal(folder, "hash"),
        lambda: journal.append(EDIT, Path.touch),
        lambda: journal.undo([2]),
    ):
        with pytest.raises(DataError, match=r"journal\.json, which says which model") as caught:
            act()
        assert not header.exists()
    said = re.search(r"\{.*\}", caught.value.remedy)
    assert said
    header.write_text(said.group())  # as the remedy says
    assert Journal(folder, "hash").active() == [2]
    with pytest.raises(JournalError, match="to be about the model other"):
        Journal(folder, "other")


def test_a_journal_of_no_model_is_never_begun(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no model that a new one would be about"):
        Journal(tmp_path / "journal").append(EDIT, Path.touch)
    assert not (tmp_path / "journal").exists()
    assert Journal(tmp_path / "journal").undo() is None


def undo(folder: Path, start: Any, told: Any) -> None:
    """What one of two processes does at the same moment."""
    journal = Journal(folder)
    start.wait()
    try:
        journal.undo([2])
        told.put("undone")
    except JournalError as error:
        told.put(error.found)


def test_two_processes_undo_an_edit_once(folder: Path) -> None:
    forks = multiprocessing.get_context("fork")
    start, told = forks.Barrier(2), forks.Queue()
    some = [forks.Process(target=undo, args=(folder, start, told)) for _ in range(2)]
    for process in some:
        process.start()
    said = sorted(told.get(timeout=60) for _ in some)
    for process in some:
        process.join()
    assert said == ["an edit that was undone already", "undone"]
    assert [record["kind"] for record in Journal(folder).records()] == ["edit"] * 2 + ["undo"] * 2


def test_what_another_process_undid_is_not_undone_again(tmp_path: Path) -> None:
    """It is found under the lock: the model was opened before."""
    model, one = edited(tmp_path)
    Journal(beside(model)).undo([1])
    with pytest.raises(JournalError, match=r"1 to be an edit in force \(2\).*undone already"):
        one.undo(1)
    assert len(Journal(beside(model)).records()) == 3


def test_check_reads_the_whole_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """An undo that is gone; edits are asked all the same. An edit undone needs no patch."""
    model, one = edited(tmp_path)
    journal = Journal(beside(model))
    one.undo(1)
    one.undo(2)
    one.edit(corrections_for(one.face)[:1], **FT)
    (journal.folder / "000001" / "patch.safetensors").write_bytes(b"")
    shutil.rmtree(journal.folder / "000004")
    assert faults(journal) == [f"record 4 is gone from {journal.folder}"]
    assert main(["check", str(model), "--guard", "off"]) == 1
    said = capsys.readouterr().out
    assert "record 4 is gone" in said
    assert "the patch of edit 1" not in said
    assert "No edits." not in said
    assert caplog.messages[-1].startswith("JournalError: expected a whole journal")
    capsys.readouterr()
    assert main(["check", str(model), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["faults"]) == 1


def test_a_check_in_json_has_the_fault_that_keeps_the_model_from_opening(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = edited(tmp_path)
    (beside(model) / "000001" / "patch.safetensors").unlink()
    capsys.readouterr()
    assert main(["check", str(model), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["edits"] == []
    assert "the patch of edit 1" in told["faults"][0]


@pytest.mark.parametrize("number", [True, 1.0, "1", torch.tensor(1.0)])
def test_what_is_no_number_of_an_edit_is_not_written(number: Any, tmp_path: Path) -> None:
    """A record that holds it could not be read."""
    model, one = edited(tmp_path)
    with pytest.raises(SettingsError, match="as whole numbers"):
        one.undo(number)
    assert Editable.load(model, journal=beside(model)).in_force == [1, 2]
    one.undo(torch.tensor(1))  # an integer all the same
    assert Editable.load(model, journal=beside(model)).in_force == [2]


def test_a_folder_of_something_else_is_no_journal(tmp_path: Path) -> None:
    """A model whose folder gets a journal in it is no longer the one that its own is about."""
    model, one = edited(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(model, other)
    with pytest.raises(JournalError, match=r"a journal at .*other; found a folder with 'config"):
        Editable.load(model, journal=other)
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "journal"):
        with pytest.raises(JournalError, match=r"found a file at .*file"):
            Editable.load(model, journal=place)
    with pytest.raises(StorageError, match="an export to lie outside of"):
        one.export(beside(model) / "000009")
    (beside(model) / "journal.json").unlink()  # still a journal, and told so
    with pytest.raises(DataError, match="which model its records are about"):
        Editable.load(model, journal=beside(model))
    with pytest.raises(SystemExit):
        main(["log", str(model), "--journal", ""])
