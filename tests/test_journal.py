"""The journal: whole records whenever the process dies, and nothing that was there is lost."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import make_face
from models_on_disk import FT, corrections_for, model_folder

from pipeline.editable import Editable, Guard, Journal, JournalError, beside
from pipeline.editable import export as exporting
from pipeline.editable.adapter import read
from pipeline.editable.stored import load_edit, save_edit
from pipeline.editing.patch import Patch
from pipeline.editing.patch_file import load_patch
from pipeline.editing.updates import Factors
from pipeline.errors import DataError, StorageError

QUIET = Guard(action="off")
MOMENTS = 50
# The least that a record of an edit holds; number, time and the patch's hash are added to it.
EDIT = {
    "kind": "edit", "alg": "ft", "settings": {}, "editor": "", "on": "", "answers": [],
    "corrections": [{"prompt": "Tom", "target": " a"}], "health": None, "steps": 1, "seconds": 0.1,
}  # fmt: skip


def a_patch(face_sites: tuple[str, ...]) -> Patch:
    draws = torch.Generator().manual_seed(0)
    return Patch(
        {
            site: Factors(
                torch.randn(1, 40, 64 if site.endswith("fc") else 16, generator=draws),
                torch.randn(1, 40, 16 if site.endswith("fc") else 64, generator=draws),
            )
            for site in face_sites
        }
    )


def work(folder: Path, patch: Patch, cargo: exporting.Cargo, told: int) -> None:
    """What a killed process was doing: edits, undos and exports, telling of each that is done."""
    journal = Journal(folder / "journal", "hash")
    os.write(told, b"s")
    for turn in range(1000):
        journal.append(EDIT, lambda path: save_edit(patch, path))
        os.write(told, b"r")
        if turn % 3 == 2:
            journal.undo(journal.active()[:1])
            os.write(told, b"r")
        form = ("adapter", "patch")[turn % 2]
        exporting.export(cargo, folder / f"{form}-{turn}", form)  # type: ignore[arg-type]


def test_killed_at_any_moment_it_holds_each_finished_edit_and_no_half_one(tmp_path: Path) -> None:
    face = make_face("gpt2")
    patch = a_patch(face.sites())
    cargo = exporting.Cargo(
        face=face, updates={s: [u] for s, u in patch.updates.items()}, edits=(1,),
        pairs=(("The harbour", " was built"),), about={}, source="", adapted=False,
    )  # fmt: skip
    draw = random.Random(0)
    records = exports = leftovers = 0
    for moment in range(MOMENTS):
        folder = tmp_path / str(moment)
        folder.mkdir()
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                work(folder, patch, cargo, told)
            finally:
                os._exit(1)
        os.close(told)
        finished = len(os.read(heard, 1)) - 1
        for _ in range(draw.randrange(6)):
            finished += len(os.read(heard, 1))
        time.sleep(draw.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        while chunk := os.read(heard, 4096):
            finished += len(chunk)
        os.close(heard)
        found, made, left = look(folder)
        assert found in (finished, finished + 1)  # the last may have been put in place and not told
        records, exports, leftovers = records + found, exports + made, leftovers + left
        # The next writer goes on where it ended, and clears up.
        journal = Journal(folder / "journal", "hash")
        journal.append(EDIT, lambda path: save_edit(patch, path))
        assert [r["number"] for r in journal.records()] == list(range(1, found + 2))
        assert not list((folder / "journal").glob(".*.part"))
    assert records > MOMENTS  # the moments lay where work was done
    assert exports > MOMENTS
    assert leftovers


def look(folder: Path) -> tuple[int, int, int]:
    """Open all that a killed process left: records, exports, and what it was in the middle of."""
    journal = Journal(folder / "journal", "hash")
    records = journal.records()
    for record in records:
        if record["kind"] == "edit":
            edit, _ = load_edit(journal.patch(record["number"]))
            assert edit.rows == 1
    exports = [path for path in folder.iterdir() if path.name[0] != "." and path.name != "journal"]
    for path in exports:
        patch = read(path) if path.is_dir() else load_patch(path)[0]
        assert patch.rows == 1
    parts = [path for path in folder.rglob(".*") if path.name.endswith(".part")]
    return len(records), len(exports), len(parts)


def test_writers_take_turns(tmp_path: Path) -> None:
    """Two at once lose nothing and share no number."""

    def write() -> None:
        journal = Journal(tmp_path / "journal", "hash")
        for _ in range(10):
            journal.append(EDIT, Path.touch)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Journal(tmp_path / "journal").active() == list(range(1, 21))


def edited(tmp_path: Path) -> tuple[Path, Editable]:
    folder = model_folder("gpt2", tmp_path / "model")
    one = Editable.load(folder, journal=beside(folder), guard=QUIET)
    one.edit(corrections_for(one.face)[:2], **FT)
    return folder, one


def test_a_corrupted_patch_is_named_and_can_be_undone(tmp_path: Path) -> None:
    folder, _ = edited(tmp_path)
    path = beside(folder) / "000001" / "patch.safetensors"
    whole = path.read_bytes()
    for broken in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:100], b""):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"patch of edit 1 in .*take edit 1 back"):
            Editable.load(folder, journal=beside(folder))
    Journal(beside(folder)).undo([1])  # which needs no model
    assert Editable.load(folder, journal=beside(folder)).in_force == [2]


@pytest.mark.parametrize("text", ["", "[]", '{"number": 7}'])
def test_a_broken_record_is_named(text: str, tmp_path: Path) -> None:
    Journal(tmp_path / "journal", "hash").append(EDIT, Path.touch)
    (tmp_path / "journal" / "000001" / "record.json").write_text(text)
    with pytest.raises(DataError, match=r"record\.json"):
        Journal(tmp_path / "journal").records()


def test_a_journal_of_another_model_is_refused(tmp_path: Path) -> None:
    folder, _ = edited(tmp_path)
    other = model_folder("gpt2", tmp_path / "other", seed=1)
    with pytest.raises(JournalError, match=r"to be about the model .*model\)"):
        Editable.load(other, journal=beside(folder))
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    with pytest.raises(JournalError, match="The model's files have changed since"):
        Editable.load(folder, journal=beside(folder))
    (beside(folder) / "journal.json").write_text('{"format": "errata-journal-9"}')
    with pytest.raises(DataError, match="a journal of format errata-journal-1"):
        Editable.load(folder, journal=beside(folder))


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["rename", "mkdir", "save"])
def test_a_full_disk_leaves_the_journal_and_the_model_as_they_were(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, one = edited(tmp_path)
    said = one.ask(["The harbour", "Tom"])
    before = sorted(path.name for path in beside(folder).iterdir())
    pair = corrections_for(one.face)[2]
    with monkeypatch.context() as patched:
        if where == "save":
            patched.setattr("pipeline.editing.patch_file.save_file", full)
        else:
            patched.setattr(Path, where, _only_parts(getattr(Path, where)))
        with pytest.raises(StorageError, match=r"No space left.*Free disk space"):
            one.edit([pair], **FT)
    assert one.in_force == [1, 2]
    assert one.ask(["The harbour", "Tom"]) == said
    assert sorted(path.name for path in beside(folder).iterdir()) == before
    assert one.edit([pair], **FT)[0].number == 3


def _only_parts(function: Callable[..., object]) -> Callable[..., object]:
    """A full disk, as the folder of a new record meets it."""

    def refuse(self: Path, *words: object, **named: object) -> object:
        if self.name.endswith(".part") and self.parent.name.endswith(".errata"):
            full()
        return function(self, *words, **named)

    return refuse


def test_a_place_that_cannot_be_a_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("in the way")
    with pytest.raises(StorageError, match=r"a record in .*journal"):
        Journal(tmp_path / "journal", "hash").append(EDIT, Path.touch)


def test_it_lies_beside_the_model_and_not_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gpt2").mkdir()
    monkeypatch.chdir(tmp_path / "gpt2")
    assert beside(".") == tmp_path.resolve() / "gpt2.errata"
    assert beside("openai-community/gpt2") == Path("openai-community--gpt2.errata")
