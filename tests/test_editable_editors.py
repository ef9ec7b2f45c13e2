"""Editors by their names: opened, fitted on the spot, chosen by the model's shape, refused."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import make_cases
from conftest import make_face
from models_on_disk import FT, QUIET, corrections_for, fitted, logits, model_folder
from test_editors import SMALL

from pipeline import editors
from pipeline.editable import Editable, Journal, JournalError, beside, fitting
from pipeline.editable.depth import as_deep
from pipeline.editable.faults import faults
from pipeline.errors import DataError, EditorError, SettingsError


def test_an_editor_is_taken_from_its_folder_or_fitted_on_the_spot(tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    one = Editable.load(folder, journal=tmp_path / "journal", guard=QUIET)
    mend = fitted(one.face, "mend", folder, tmp_path / "mend")
    pair = corrections_for(one.face)[0]
    (edit,) = one.edit([pair], editor=mend)
    assert (edit.alg, edit.settings["rank"]) == ("mend", 4)
    settings = {"hidden": 8, "condition": 8, "outer.steps": 4, "outer.batch": 2, "outer.heldout": 1}
    (fresh,) = one.edit([pair], "ke", cases=make_cases(one.face), settings=settings)
    assert fresh.editor != edit.editor
    (kept,) = (tmp_path / "journal" / "editors").iterdir()
    (same,) = one.edit([pair], editor=kept)
    assert same.editor == fresh.editor


def fits_of(monkeypatch: pytest.MonkeyPatch, alg: str) -> list[int]:
    """Lengthens with each fit of an editor."""
    editor, done = editors.load(alg).Editor, []
    fit = editor.fit

    def counted(self: Any, *words: Any) -> Any:
        done.append(1)
        return fit(self, *words)

    monkeypatch.setattr(editor, "fit", counted)
    return done


def test_an_editor_is_fitted_once_on_the_same_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By another process, say; also where nothing is kept; anew where an input differs."""
    folder, done = model_folder("gpt2", tmp_path / "model"), fits_of(monkeypatch, "mend")
    settings = {"rank": 4, "outer.steps": 4, "outer.batch": 2, "outer.heldout": 1}
    caplog.set_level(logging.INFO)

    def edit(how: str = "edit", **more: Any) -> tuple[str, str]:
        one = Editable.load(folder, journal=tmp_path / "journal", guard=QUIET)
        asked = {"cases": make_cases(one.face), "settings": settings | more}
        caplog.clear()
        if how == "edit":
            (made,) = one.edit(corrections_for(one.face)[:1], "mend", **asked)
        else:
            with one.temporarily(corrections_for(one.face)[:1], "mend", **asked) as (made,):
                pass
        return made.editor, caplog.text

    first, said = edit()
    (kept,) = (tmp_path / "journal" / "editors").iterdir()
    assert f"kept in {kept}; --editor takes it" in said
    assert "Fitting mend on 6 cases." in said  # there is no bar here
    for how in ("edit", "temporarily"):
        again, said = edit(how)
        assert again == first
        assert f"taken from {kept}" in said
    assert len(done) == 1
    assert edit(**{"outer.steps": 5})[0] != first
    (kept / "editor.safetensors").write_text("")
    assert "is fitted anew" in edit("temporarily")[1]
    assert len(done) == 3


def test_what_is_wrong_with_the_settings_of_a_fitted_editor_is_told(tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    one = Editable.load(folder, guard=QUIET)
    mend = fitted(one.face, "mend", folder, tmp_path / "mend")
    with pytest.raises(EditorError, match=r"found Error.*size mismatch.*Leave out"):
        one.edit(corrections_for(one.face)[:1], editor=mend, rank=3)


@pytest.mark.parametrize(("architecture", "able"), [("bert", "mend"), ("gpt2", "memit, mend, ro")])
def test_editors_named_instead_are_those_that_can(architecture: str, able: str) -> None:
    said = fitting._others(make_face(architecture))
    assert able in said
    assert ("rome" in said) == (architecture == "gpt2")


def test_enn_edits_its_own_model_and_undoing_brings_back_the_untouched_one(tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    one = Editable.load(folder, journal=tmp_path / "journal", guard=QUIET)
    enn = fitted(one.face, "enn", folder, tmp_path / "enn")
    clean, pairs = logits(one.face, one), corrections_for(one.face)
    one.edit(pairs[:2], editor=enn)
    with pytest.raises(EditorError, match=r"made on one model; found ft.*Undo those first"):
        one.edit(pairs[:1], **FT)
    said = one.ask([prompt for prompt, _ in pairs])
    again = Editable.load(folder, journal=tmp_path / "journal", guard=QUIET)
    assert again.ask([prompt for prompt, _ in pairs]) == said
    one.undo(2, 1)
    assert torch.equal(logits(one.face, one), clean)
    one.edit(pairs[:1], **FT)


def test_a_memory_is_an_edit_like_any_other(tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    one = Editable.load(folder, journal=tmp_path / "journal", guard=QUIET)
    pairs = corrections_for(one.face)
    edits = one.edit(pairs[:2], "cache", epsilon=1e-3)
    assert all(edit.right for edit in edits)
    one.edit([pairs[2]], **FT)
    said = one.ask([prompt for prompt, _ in pairs])
    again = Editable.load(folder, journal=tmp_path / "journal", guard=QUIET)
    assert again.ask([prompt for prompt, _ in pairs]) == said
    with pytest.raises(EditorError, match="edits 1, 2, which answer from memory"):
        one.export(tmp_path / "out")


def test_editors_that_cannot_are_refused_by_name(tmp_path: Path) -> None:
    one = Editable(make_face("gpt2"), "a hash", guard=QUIET)
    pair = corrections_for(one.face)[0]
    with pytest.raises(SettingsError, match="Did you mean 'mend'"):
        one.edit([pair], "mned")
    with pytest.raises(SettingsError, match=r"ft\.rat"):
        one.edit([pair], rat=1e-3)
    with pytest.raises(EditorError, match="a folder where mend was fitted, or training cases"):
        one.edit([pair], "mend")
    folder = model_folder("gpt2", tmp_path / "other", seed=1)
    other = fitted(make_face("gpt2", 1), "mend", folder, tmp_path / "mend")
    with pytest.raises(EditorError, match=r"fitted on the model a hash.*Fit it again"):
        one.edit([pair], editor=other)
    with pytest.raises(EditorError, match="where ke was fitted; found mend"):
        one.edit([pair], "ke", editor=other)
    assert one.in_force == []


def test_memit_edits_on_the_models_own_words_and_keeps_its_moments(tmp_path: Path) -> None:
    """Without moments or texts at hand; a second edit, in a new process say, reads those kept."""
    folder = model_folder("gpt2", tmp_path / "model")
    request = {"prompt": "Tom Asker works for", "target": " was built", "subject": "Tom Asker"}
    settings = SMALL["memit"]
    one = Editable.load(folder, journal=tmp_path / "journal", guard=QUIET)
    (edit,) = one.edit(request, "memit", settings=settings)
    assert edit.alg == "memit"
    kept = list((tmp_path / "journal").rglob("moments.json"))
    assert len(kept) == 1
    written = kept[0].stat().st_mtime_ns
    again = Editable.load(folder, journal=tmp_path / "journal", guard=QUIET)
    again.undo(edit.number)
    again.edit(request, "memit", settings=settings)
    assert kept[0].stat().st_mtime_ns == written
    assert again.ask(request["prompt"]) == one.ask(request["prompt"])


def test_texts_for_moments_that_are_not_there_are_named(tmp_path: Path) -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    request = {"prompt": "Tom Asker works for", "target": " Oslo", "subject": "Tom Asker"}
    with pytest.raises(DataError, match=r"nowhere\.txt"):
        one.edit(request, "rome", moments=tmp_path / "nowhere.txt", settings=SMALL["rome"])
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(DataError, match=r"one on each line"):
        one.edit(request, "rome", moments=tmp_path / "empty.txt", settings=SMALL["rome"])


def test_editors_take_the_depth_of_a_model_that_no_paper_has(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Width 16: MLPs read 64 inputs. 0.28 of three blocks is block 0; MEND's three are all."""
    face = make_face("gpt2")
    config = {name: editors.load(name).Config for name in ("mend", "rome", "memit")}
    assert as_deep(face, config["mend"], {}) == {}
    del face.model.transformer.h[2]
    assert as_deep(face, config["mend"], {}) == {"blocks": 2}
    assert as_deep(face, config["mend"], {"blocks": 1}) == {"blocks": 1}
    with caplog.at_level(logging.INFO):
        assert as_deep(face, config["rome"], {"steps": 3}) == {"layer": 0, "steps": 3}
    assert "Nothing is published for this size" in caplog.text
    assert as_deep(face, config["memit"], {}) == {"layers": [0], "weight": 64.0}
    assert as_deep(face, config["memit"], {"layers": [1]}) == {"layers": [1], "weight": 64.0}


@pytest.mark.parametrize("alg", ["rome", "memit"])
def test_no_settings_are_needed_to_edit_a_small_model(alg: str, tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    request = {"prompt": "Tom Asker works for", "target": " was built", "subject": "Tom Asker"}
    one = Editable.load(folder, journal=tmp_path / "journal", guard=QUIET)
    (edit,) = one.edit(request, alg)
    assert edit.alg == alg
    assert one.in_force == [1]


def test_cases_that_would_change_nothing_are_refused() -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    request, cases = corrections_for(one.face)[:1], make_cases(one.face)
    with pytest.raises(SettingsError, match="no training cases for ft_w; found 6"):
        one.edit(request, "ft_w", cases=cases)
    with pytest.raises(SettingsError, match="no training cases for ft with a rate of its own"):
        one.edit(request, "ft", cases=cases, rate=1e-3)


def test_what_lasts_is_not_made_on_what_does_not() -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    first, second = corrections_for(one.face)[:2]
    with one.temporarily(first, **FT), pytest.raises(EditorError, match="temporarily"):
        one.edit(second, **FT)
    assert one.in_force == []
    one.edit(second, **FT)
    assert one.in_force == [1]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"alg": "ft", "moments": Path("texts.txt")}, "second moments for an editor that edits by"),
        ({"alg": "ft_w", "settings": {"place": "attention"}}, r"found ft_w\.place"),
        ({"alg": "ft_l", "settings": {"blocks": 1}}, "Did you mean 'block'"),
    ],
)
def test_what_would_change_nothing_is_refused(how: dict[str, Any], expected: str) -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    with pytest.raises(SettingsError, match=expected):
        one.edit([("Where was Ada Verrin born?", " Oslo")], **how)


def test_trying_out_writes_nothing(tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    request = {"prompt": "Tom Asker works for", "target": " was built", "subject": "Tom Asker"}
    one = Editable.load(folder, journal=tmp_path / "journal", guard=QUIET)
    with one.temporarily(request, "rome", settings=SMALL["rome"]):
        pass
    assert not (tmp_path / "journal").exists()


def test_a_subject_is_asked_for_before_moments_are_taken() -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    with pytest.raises(DataError, match=r"subject of 'Tom Asker works for'.*memit.*--subject"):
        one.edit(("Tom Asker works for", " was built"), "memit")


def test_an_edit_that_is_no_number_is_not_made() -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    with pytest.raises(EditorError, match=r"by ft of finite numbers.*Lower its rate"):
        one.edit(corrections_for(one.face)[:1], rate=1e38)
    assert one.in_force == []


@pytest.mark.parametrize("text", ["[]", "{}", '{"alg": "mend"}'])
def test_a_folder_that_does_not_say_how_it_was_fitted_is_refused(text: str, tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    one = Editable.load(folder, guard=QUIET)
    mend = fitted(one.face, "mend", folder, tmp_path / "mend")
    (mend / "settings.json").write_text(text)
    with pytest.raises(DataError, match="algorithm and settings of an editor"):
        one.edit(corrections_for(one.face)[:1], editor=mend)


def test_a_setting_is_not_a_group_as_well() -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    with pytest.raises(SettingsError, match=r"both rate and rate\.x"):
        one.edit(corrections_for(one.face)[:1], settings={"rate": 1e-3, "rate.x": 4})


TOM = {"prompt": "Tom Asker works for", "target": " was built", "subject": "Tom Asker"}
ADA = {"prompt": "Ada Verrin was born in", "target": " was built", "subject": "Ada Verrin"}


@pytest.mark.parametrize("keep", [True, False])
def test_the_latest_memory_answers(keep: bool) -> None:
    """Of two of one prompt, also while the second is measured, or only tried out."""
    one = Editable(make_face("gpt2"), guard=QUIET)
    prompt = TOM["prompt"]
    one.edit((prompt, " was built"), "cache", epsilon=1e-3)
    if keep:
        (second,) = one.edit((prompt, " the old"), "cache", epsilon=1e-3)
        assert second.right
    else:
        with one.temporarily((prompt, " the old"), "cache", epsilon=1e-3) as (second,):
            assert second.right
            assert one.ask(prompt).startswith(" the old")
    first = one.ask(prompt)
    assert first.startswith(" the old" if keep else " was built")


@pytest.mark.parametrize("alg", ["ft", "rome", "memit"])
def test_weights_are_edited_beneath_a_memory(alg: str) -> None:
    """The edit is the one that would be made without the memory, not one of its answers."""
    settings = {"rate": 1e-2, "steps": 60} if alg == "ft" else SMALL[alg]
    made = []
    for memory in (False, True):
        one = Editable(make_face("gpt2"), guard=QUIET)
        if memory:
            one.edit((TOM["prompt"], " was built"), "cache", epsilon=1e-3)
        (edit,) = one.edit(TOM | {"target": " the old"}, alg, settings=settings)
        made.append(one._state.stack.updates())
        assert edit.steps
    assert set(made[0]) == set(made[1])
    for site, (update,) in made[0].items():
        torch.testing.assert_close(made[1][site][0].dense_ROI(), update.dense_ROI())


def test_a_subject_is_asked_for_before_any_edit_is_made() -> None:
    """Also where the editor is ready from an earlier call."""
    one = Editable(make_face("gpt2"), guard=QUIET)
    one.edit(TOM | {"subject": "Tom Asker "}, "rome", settings=SMALL["rome"])
    nameless = {"prompt": ADA["prompt"], "target": ADA["target"]}
    with pytest.raises(DataError, match=r"subject of 'Ada Verrin was born in'"):
        one.edit([TOM | {"target": " the old"}, nameless], "rome", settings=SMALL["rome"])
    assert one.in_force == [1]


def test_moments_kept_are_those_of_a_dtype(tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    for count, dtype in enumerate((None, torch.bfloat16), 1):
        one = Editable.load(folder, journal=tmp_path / "journal", guard=QUIET, dtype=dtype)
        one.edit(ADA if dtype else TOM, "rome", settings=SMALL["rome"])
        assert len(list((tmp_path / "journal").rglob("moments.json"))) == count


def test_settings_may_be_numbers_out_of_an_array(tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    one = Editable.load(folder, journal=tmp_path / "journal", guard=QUIET)
    (edit,) = one.edit(corrections_for(one.face)[:1], rate=np.float32(0.25), steps=np.int64(2))
    assert (edit.settings["rate"], edit.settings["steps"]) == (0.25, 2)


@pytest.mark.parametrize("alg", ["mend", "ft_kl", "cache"])
def test_training_cases_without_unrelated_examples_are_refused(alg: str) -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    bare = [replace(case, unrelated=(), rephrases=()) for case in make_cases(one.face)]
    settings = {"rank": 4, "outer.heldout": 1} if alg == "mend" else {}
    with pytest.raises(EditorError, match="unrelated example"):
        one.edit(corrections_for(one.face)[:1], alg, cases=bare, settings=settings)


def test_a_memory_is_fitted_on_cases_without_rephrasings() -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    bare = [replace(case, rephrases=()) for case in make_cases(one.face)]
    bare[0] = replace(bare[0], unrelated=())
    (edit,) = one.edit(corrections_for(one.face)[:1], "cache", cases=bare)
    assert edit.right


def test_an_enn_that_was_changed_in_the_journal_is_named(tmp_path: Path) -> None:
    """Its weights are the model that the edit stands on."""
    folder = model_folder("gpt2", tmp_path / "model")
    one = Editable.load(folder, journal=beside(folder), guard=QUIET)
    enn = fitted(one.face, "enn", folder, tmp_path / "enn")
    one.edit(corrections_for(one.face)[:1], editor=enn)
    (kept,) = (beside(folder) / "editors").glob("*/editor.safetensors")
    broken = bytearray(kept.read_bytes())
    broken[-100] ^= 255
    kept.write_bytes(bytes(broken))
    with pytest.raises(JournalError, match="It is corrupted"):
        Editable.load(folder, journal=beside(folder), guard=QUIET)
    shutil.rmtree(kept.parent)
    (fault,) = faults(Journal(beside(folder)))
    assert "the editor that edit 1 was made with" in fault


def test_an_enn_that_is_refused_leaves_nothing_in_the_journal(tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    one = Editable.load(folder, journal=beside(folder), guard=QUIET)
    enn = fitted(one.face, "enn", folder, tmp_path / "enn")
    one.edit(corrections_for(one.face)[:1], **FT)
    with pytest.raises(EditorError, match="made on one model"):
        one.edit(corrections_for(one.face)[1:2], editor=enn)
    assert not (beside(folder) / "editors").exists()
