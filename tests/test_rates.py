"""The rate that is sought for the edits at hand."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from conftest import make_face
from models_on_disk import FT, QUIET, corrections_for, model_folder

from pipeline.editable import Editable, rates
from pipeline.errors import EditorError


def test_the_rate_is_sought_on_the_model_as_it_is_by_then(tmp_path: Path) -> None:
    """What reaches a target from the untouched model need not from an edited one."""
    one = Editable.load(model_folder("gpt2", tmp_path / "model"), guard=QUIET)
    (prompt, target), (_, other), *_ = corrections_for(one.face)
    one.edit([(prompt, other)], **FT)
    one.edit([(prompt, target)], **FT)
    (back,) = one.edit([(prompt, other)], steps=60)
    assert back.right
    assert back.settings["rate"] > 0


def test_an_edit_that_no_rate_makes_does_not_set_the_rate_of_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    easy, hard = corrections_for(one.face)[:2]
    one.edit([easy], **FT)  # so it is said already
    slow = {"rates": (1e-12, 1e-11), "steps": 3}
    made = one.edit([easy, hard], settings=slow)
    assert [edit.settings["rate"] for edit in made] == [1e-12] * 2
    assert [edit.right for edit in made] == [True, False]
    assert f"No rate makes 1 of 2 edits: {hard[0]!r}." in caplog.messages
    with pytest.raises(EditorError, match=r"none of 2 up to 1e-11 .*Nothing was changed"):
        one.edit([hard], settings=slow)
    assert one.in_force == [1, 2, 3]


def test_a_bar_tells_how_far_the_search_for_a_rate_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Bisection of nine rates takes three or four tries; each has a bar of its own."""
    bars: list[tuple[str, int]] = []

    def told(items: Any, what: str) -> Any:
        bars.append((what, len(items)))
        return items

    monkeypatch.setattr(rates, "bar", told)
    one = Editable(make_face("gpt2"), guard=QUIET)
    with caplog.at_level(logging.INFO):
        edits = one.edit(corrections_for(one.face)[:2], steps=60)
    assert all(edit.right or edit.overridden for edit in edits)
    assert bars == [("look for a rate for 2", 4)]
    assert "makes all of 2 edits" in caplog.text


def test_the_rate_of_edits_made_together_is_theirs_together(tmp_path: Path) -> None:
    one = Editable.load(model_folder("gpt2", tmp_path / "model"), guard=QUIET)
    (edit,) = one.edit(corrections_for(one.face)[:3], together=True, steps=60)
    assert edit.right
