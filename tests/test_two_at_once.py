"""Two that edit one model by one journal: each edit is made on what is in force, and on no less."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from models_on_disk import FT, QUIET, corrections_for, logits, model_folder
from test_journal import EDIT

from pipeline import serving
from pipeline.editable import ChangedError, Editable, Guard, GuardError, Journal
from pipeline.editable.making import Maker
from pipeline.errors import DataError, EditorError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("gpt2", tmp_path_factory.mktemp("shared") / "model")


def opened(folder: Path, tmp_path: Path, guard: Guard = QUIET) -> Editable:
    return Editable.load(folder, journal=tmp_path / "journal", guard=guard)


def during(monkeypatch: pytest.MonkeyPatch, acts: list[Callable[[], object]]) -> None:
    """Do these, one after the other, each while an edit is being computed."""
    edits = Maker._edits

    def meanwhile(self: Maker, *words: object) -> object:
        made = edits(self, *words)  # type: ignore[arg-type]
        if acts:
            acts.pop(0)()
        return made

    monkeypatch.setattr(Maker, "_edits", meanwhile)


def test_a_record_made_on_other_edits_is_not_written(tmp_path: Path) -> None:
    journal, other = (Journal(tmp_path / "journal", "hash") for _ in range(2))
    known = [journal.append(EDIT, Path.touch, [])]
    other.append(EDIT, Path.touch, known)
    with pytest.raises(ChangedError, match=r"made on \(1\); found 1, 2: another process.*again"):
        journal.append(EDIT, Path.touch, known)
    assert sorted(p.name for p in journal.folder.iterdir() if p.name[0] != ".") == [
        "000001", "000002", "journal.json",
    ]  # fmt: skip
    other.undo([2])  # what is in force is again what it was
    assert journal.append(EDIT, Path.touch, known)["number"] == 4


def test_an_edit_is_made_again_on_what_another_process_made_meanwhile(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (opened(folder, tmp_path) for _ in range(2))
    first, second, *_ = corrections_for(one.face)
    during(monkeypatch, [lambda: two.edit([first], **FT)])
    (made,) = one.edit([second], **FT)
    assert made.number == 2
    assert one.ask(second[0]).startswith(second[1])  # with both in force
    again = opened(folder, tmp_path)
    assert torch.equal(logits(one.face, one), logits(again.face, again))
    assert one.in_force == [1, 2]
    assert made.overrode == (() if one.ask(first[0]).startswith(first[1]) else (1,))


def test_an_edit_that_is_overtaken_twice_is_refused_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (opened(folder, tmp_path) for _ in range(2))
    first, second, third, _ = corrections_for(one.face)
    two.edit([first, second], **FT)
    during(monkeypatch, [lambda: two.undo(1), lambda: two.undo(2)])
    with pytest.raises(ChangedError, match=r"made on \(2\); found none"):
        one.edit([third], **FT)
    assert [record["kind"] for record in Journal(tmp_path / "journal").records()] == [
        "edit", "edit", "undo", "undo",
    ]  # fmt: skip
    assert not list((tmp_path / "journal").glob(".*.part"))
    assert one.in_force == []
    assert one.edit([third], **FT)[0].number == 5


def test_the_guard_judges_both_edits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each alone is within the limit, and not both."""
    lax = {"perplexity": 1e9, "agreement": 0.0, "entropy": 0.0}
    measured = opened(folder, tmp_path / "measured", Guard(growth=1e9, **lax))
    first, second, *_ = corrections_for(measured.face)
    with measured.temporarily([first, second], **FT) as made:
        both = [edit.health.growth for edit in made if edit.health]
    with measured.temporarily([second], **FT) as (alone,):
        assert alone.health
        most = max(both[0], alone.health.growth)
    assert most < both[1]
    guard = Guard(action="refuse", growth=(most + both[1]) / 2, **lax)
    one, two = (opened(folder, tmp_path, guard) for _ in range(2))
    during(monkeypatch, [lambda: two.edit([first], **FT)])
    with pytest.raises(GuardError, match="norm growth"):
        one.edit([second], **FT)
    assert Journal(tmp_path / "journal").active() == one.in_force == [1]


# ---------------------------------------------------------------------- what others do is followed


def test_each_sees_what_the_other_did(folder: Path, tmp_path: Path) -> None:
    one, two = (opened(folder, tmp_path) for _ in range(2))
    first, second, *_ = corrections_for(one.face)
    two.edit([first], **FT)
    assert one.ask(first[0]) == two.ask(first[0])
    assert one.ask(first[0]).startswith(first[1])
    two.edit([second], **FT)
    assert [answer.after for answer in one.compare(second[0])] == two.ask([second[0]])
    assert one.edits == two.edits
    assert [record["number"] for record in one.journal()] == [1, 2]
    assert (one.made, two.made) == ([], [1, 2])
    one.undo(1)  # which the other made
    assert two.in_force == [2]
    assert torch.equal(logits(one.face, one), logits(two.face, two))
    two.undo(2)
    with pytest.raises(EditorError, match="an edit in force; found none"):
        one.export(tmp_path / "out")


def test_nothing_changes_while_the_model_is_lent(folder: Path, tmp_path: Path) -> None:
    one, two = (opened(folder, tmp_path) for _ in range(2))
    pair = corrections_for(one.face)[0]
    with one.edited():
        two.edit([pair], **FT)
        before = one.ask(pair[0])
        assert one.in_force == []
    assert one.ask(pair[0]) == two.ask(pair[0]) != before


def test_a_foreign_edit_that_is_broken_is_named_and_changes_nothing(
    folder: Path, tmp_path: Path
) -> None:
    one, two = (opened(folder, tmp_path) for _ in range(2))
    first, second, *_ = corrections_for(one.face)
    two.edit([first, second], **FT)
    path = tmp_path / "journal" / "000002" / "patch.safetensors"
    path.write_bytes(b"")
    with pytest.raises(DataError, match="the patch of edit 2"):
        one.ask(first[0])
    assert one._state.numbers == []
    Journal(tmp_path / "journal").undo([2])  # as the error says
    assert one.in_force == [1]


def test_the_page_shows_what_a_shell_did(folder: Path, tmp_path: Path) -> None:
    served, shell = (opened(folder, tmp_path) for _ in range(2))
    pair = corrections_for(served.face)[0]
    with serving.make_app(served, {"settings": FT}).test_client() as client:
        shell.edit([pair], **FT)
        assert [edit["number"] for edit in client.get("/state").json["edits"]] == [1]  # type: ignore[index]
        assert client.post("/ask", json={"prompt": pair[0]}).json["changed"]  # type: ignore[index]
        assert client.post("/undo", json={"number": 1}).json["edits"] == []  # type: ignore[index]
    assert shell.in_force == []
