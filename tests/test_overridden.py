"""Edits that a later one overrides: counted as they are at the end of the call, and named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import make_face
from models_on_disk import FT, QUIET, model_folder

from pipeline.cli import main
from pipeline.editable import Editable, Journal

# The second leaves the first no chance: a tiny model hardly tells their prompts apart.
ALIKE = (("Tom Asker works for", " was built"), ("Tom Asker works for a", " born"))
OTHER = ("The harbour", " the old")
SET = [word for name, value in FT.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`errata edit` of two requests that cannot both be had one by one."""
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"prompt": prompt, "target": target}) for prompt, target in ALIKE]
    Path("requests.jsonl").write_text("\n".join(lines))
    model = str(model_folder("gpt2", tmp_path / "model"))
    return ["edit", model, "--requests", "requests.jsonl", *SET, "--guard", "off"]


def test_a_call_counts_what_holds_at_its_end() -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    first, second = one.edit(ALIKE, **FT)
    assert not one.ask(ALIKE[0][0]).startswith(ALIKE[0][1])
    assert (first.right, first.overridden, second.right, second.overridden) == (0, 1, 1, 0)
    tokens = len(one.face.tokenise(ALIKE[:1])[0].labels)
    assert first.answers[0].after == one.ask(ALIKE[0][0], tokens)
    assert second.overrode == ()
    kept, _ = one.edits  # the journal has what was when it was made
    assert kept.right


def test_what_one_edit_overrides_of_those_before_is_named() -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    one.edit([OTHER, ALIKE[0]], **FT)
    (edit,) = one.edit(ALIKE[1], **FT)
    assert edit.overrode == (2,)
    (again,) = one.edit(ALIKE[1], **FT)  # finds nothing to do, and is not blamed
    assert again.overrode == ()
    with one.temporarily(ALIKE[0], **FT) as (tried,):
        assert tried.overrode == (3, 4)


def test_the_command_says_so(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for more in (["--dry-run"], []):
        assert main([*words, *more]) == 0
        said = capsys.readouterr().out
        assert "1 of 2 edits say what they should (ft" in said
        assert "; 1 was overridden by later ones: try --together." in said
    assert main([*words, "--together", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["overridden"], found["overrode"]) == ([], [])
    assert main([*words[:2], "--prompt", ALIKE[0][0], "--target", ALIKE[0][1], *words[4:]]) == 0
    assert "Made before, and overridden: 2 (" in capsys.readouterr().out
    assert Journal(Path("model.errata")).active() == [1, 2, 3]
