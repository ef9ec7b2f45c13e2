"""Words of `errata` in any order, and what is said of those that there are not."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from pipeline import cli
from pipeline.commands import editing, history, project
from pipeline.commands.common import table
from pipeline.errors import DataError


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a command was given; none is run."""
    found: dict[str, Any] = {}

    def keep(arguments: argparse.Namespace) -> None:
        found.update(vars(arguments))

    for module, name in (
        (editing, "_ask"),
        (editing, "_compare"),
        (history, "_undo"),
        (history, "_log"),
        (project, "_params"),
    ):
        monkeypatch.setattr(module, name, keep)
    return found


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ask", "m", "--tokens", "4", "Ada"], {"tokens": 4, "prompts": ["Ada"]}),
        (["ask", "m", "--json", "Ada", "Tom"], {"json": True, "prompts": ["Ada", "Tom"]}),
        (["ask", "--json", "m", "Ada", "--tokens", "4", "Tom"], {"prompts": ["Ada", "Tom"]}),
        (["ask", "m", "--json", "-5 degrees is"], {"prompts": ["-5 degrees is"]}),
        (["ask", "m", "--json", "--", "-x"], {"prompts": ["-x"]}),
        (["ask", "m", "--json"], {"prompts": []}),
        (["compare", "m", "--device", "cpu", "Ada"], {"device": "cpu", "prompts": ["Ada"]}),
        (["undo", "m", "--json", "1", "4"], {"numbers": [1, 4]}),
        (["undo", "m", "--all", "3"], {"all": True, "numbers": [3]}),
        (["params", "alg=mend", "--root", "x", "seed=1"], {"overrides": ["alg=mend", "seed=1"]}),
    ],
)
def test_options_stand_anywhere(
    words: list[str], expected: dict[str, Any], parsed: dict[str, Any]
) -> None:
    assert cli.main(words) == 0
    assert {name: parsed[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ask", "m", "--tokns", "4", "Ada"], "unrecognized arguments: --tokns"),
        (["undo", "m", "--json", "one"], "invalid int value: 'one'"),
        (["log", "m", "Ada"], "unrecognized arguments: Ada"),
    ],
)
def test_others_are_named_with_the_usage_of_their_command(
    words: list[str], expected: str, parsed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert (ended.value.code, parsed) == (2, {})
    said = capsys.readouterr().err
    assert said.startswith(f"usage: errata {words[0]} ")
    assert expected in said


def test_wide_characters_take_two_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    assert table(("prompt", "answer"), [["日本の首都は", "東京"], ["cafe\u0301", "x"]]) == (
        "prompt        answer\n--------------------\n日本の首都は  東京\ncafe\u0301          x"
    )
    monkeypatch.setenv("COLUMNS", "60")
    *_, row = table(("prompt", "answer"), [[40 * "日", "x"]]).splitlines()
    assert row == f"{25 * '日'}…   x"  # half of another would fit


def test_a_message_of_another_program_keeps_no_period(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: argparse.Namespace) -> None:
        raise DataError(expected="a thing", found="none of its files.", remedy="Give one.")

    monkeypatch.setattr(history, "_log", fail)
    assert cli.main(["log", "m"]) == 1
    assert caplog.messages == ["DataError: expected a thing; found none of its files. Give one."]
