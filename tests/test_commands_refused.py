"""`errata` on words that cannot be meant, and when it is stopped on its way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cases import make_cases
from conftest import make_face
from models_on_disk import FT, corrections_for, model_folder
from test_journal import EDIT as RECORD

from pipeline.cli import main
from pipeline.editable import Journal
from pipeline.records import write_cases

ROOT = Path(__file__).parents[1]
SET = [word for name, value in FT.items() for word in ("--set", f"{name}={value}")]
EDIT = ["edit", "MODEL", "--prompt", "Tom", "--target", "a"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("gpt2", tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def model(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A model's folder and its journal, as they are named; files for what commands read."""
    monkeypatch.chdir(tmp_path)
    prompts = [prompt for prompt, _ in corrections_for(make_face("gpt2"))]
    pairs = corrections_for(make_face("gpt2"))
    lines = [json.dumps({"prompt": prompt, "target": target}) for prompt, target in pairs[:2]]
    Path("requests.jsonl").write_text("\n".join(lines))
    Path("prompts.txt").write_bytes(f"\ufeff{prompts[0]}\r\n\r\n{prompts[1]}\u2028\n".encode())
    cases = [case for case in make_cases(make_face("gpt2")) if case.split != "train"]
    write_cases(Path("cases.parquet"), cases)
    return [str(base), "--journal", "journal"]


def put(words: list[str], model: list[str]) -> list[str]:
    """The words with MODEL as it is named, and its journal at their end."""
    folder, *journal = model
    return [*(folder if word == "MODEL" else word for word in words), *journal]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["log", "nowhere/at/all"], "ModelError: expected a folder with a model at nowhere/at/all"),
        (["log", "./nowhere"], "found no such folder"),
        (["undo", "nowhere/", "1"], "ModelError: expected a folder"),
        (["check", "/nowhere"], "ModelError: expected a folder"),
        (["undo", "MODEL"], "SettingsError: expected the numbers of edits, or --all; found n"),
        (["undo", "MODEL", "1", "--all"], "or --all; found both"),
        (["ask", "MODEL", ""], "DataError: expected text in every prompt; found ''"),
        (["compare", "MODEL", "Tom", " "], "DataError: expected text in every prompt; found ' '"),
        ([*EDIT[:3], " ", *EDIT[4:]], "DataError: expected text in the field 'prompt'"),
        ([*EDIT[:5], ""], "DataError: expected text in the field 'target'"),
        (["ask", "MODEL", "caf\udce9"], "DataError: expected text that UTF-8 can hold in the comm"),
        ([*EDIT[:3], "caf\udce9", *EDIT[4:]], "DataError: expected text that UTF-8 can hold"),
        (["ask", "MODEL", "Tom", "--tokens", "0"], "SettingsError: expected at least one token"),
        ([*EDIT, "--editor", "ed", "--fit", "cases.parquet"], "expected --editor without --fit;"),
        ([*EDIT, "--fit", "cases.parquet"], "DataError: expected training cases in cases"),
        (["export", "MODEL", "out", "--as", "patch", "--to", "float16"], "expected --as patch wit"),
        *(
            (["edit", "MODEL", "--requests", "requests.jsonl", name, "Tom"],
             f"SettingsError: expected --requests without {name}; found both")
            for name in ("--subject", "--rephrase", "--neighbour")
        ),
        ([*EDIT, "--set", "rate=1", "--set", "rate.x=4"], "found rate and rate.x"),
        ([*EDIT, "--set", "outer.lr=1", "--set", "outer={}"], "found outer.lr and outer"),
        ([*EDIT, "--set", "rate=1", "--set", "rate=2"], "found rate twice"),
        ([*EDIT, "--limit", "growth=1", "--limit", "growth=2"], "found growth twice"),
        ([*EDIT, "--limit", "grwth=1"], "Did you mean 'growth'"),
        ([*EDIT, "--limit", "action=off"], "SettingsError: expected limits of perplexity"),
        ([*EDIT, "--limit", "agreement=7"], "expected the guard's agreement from 0 to 1"),
        ([*EDIT, "--guard", "off", "--limit", "growth=1"], "expected --guard off without --limit"),
        ([*EDIT, "--set", "rate=-1"], "SettingsError: expected ft.rate to be above 0"),
        ([*EDIT, "--set", "rates=[]"], "a list of at least one rate"),
        ([*EDIT, "--set", "steps=0"], "SettingsError: expected ft.steps to be at least 1"),
        ([*EDIT, "--set", "reach=7"], "above 0 and at most 1"),
        ([*EDIT, "--alg", "mend", "--editor", "nowhere"], "where an editor was fitted at nowhere;"),
        (["serve", "MODEL", "--json"], "SettingsError: expected serve without --json"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_message(
    words: list[str], expected: str, model: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(put(words, model)) == 1
    assert expected in caplog.messages[-1]
    assert not Path("journal").exists()


def test_settings_of_one_part_do_not_conflict(model: list[str]) -> None:
    assert main(put([*EDIT, *SET, "--set", "rates=1", "--dry-run"], model)) == 1  # no such setting
    assert main(put([*EDIT, *SET, "--dry-run", "--guard", "off"], model)) == 0


def test_prompts_of_a_file(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(put(["ask", "MODEL", "--file", "prompts.txt", "--json"], model)) == 0
    found = [item["prompt"] for item in json.loads(capsys.readouterr().out)]
    prompts = [prompt for prompt, _ in corrections_for(make_face("gpt2"))]
    assert found == [prompts[0], f"{prompts[1]}\u2028"]


def test_the_history_of_a_model_that_is_gone_is_read(tmp_path: Path) -> None:
    """Where its journal is named; and a hub name has no folder."""
    Journal(tmp_path / "journal", "hash").append(RECORD, Path.touch)
    assert main(["log", "./gone", "--journal", str(tmp_path / "journal")]) == 0
    assert main(["log", "owner/name", "--journal", str(tmp_path / "journal")]) == 0


def test_a_name_of_nothing_has_no_history(caplog: pytest.LogCaptureFixture) -> None:
    for words in (["log", "models/typo"], ["undo", "models/typo", "--all"]):
        assert main(words) == 1
        assert f"its journal at {Path('models--typo.errata').resolve()}" in caplog.messages[-1]


# ---------------------------------------------------------------------- stopped on its way


def several(model: list[str], *words: str) -> list[str]:
    return put(["edit", "MODEL", "--requests", "requests.jsonl", *SET, *words], model)


def test_a_batch_that_fails_in_the_middle_says_what_was_made(
    model: list[str], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    lax = ["--limit", "perplexity=1e9", "--limit", "agreement=0", "--limit", "entropy=0"]
    assert main(several(model, "--dry-run", "--json", *lax)) == 0
    first, second = (e["health"]["growth"] for e in json.loads(capsys.readouterr().out)["edits"])
    assert first < second
    between = ["--guard", "refuse", "--limit", f"growth={(first + second) / 2}"]
    assert main(several(model, "--json", *lax, *between)) == 1
    assert capsys.readouterr().out == ""
    assert caplog.messages[-1].startswith("GuardError: expected an edit within")
    assert caplog.messages[-1].endswith(
        "Made before, and in force: 1 (`errata undo` takes them back)."
    )
    assert Journal(Path("journal")).active() == [1]


def test_an_interrupt_is_one_line(
    model: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    append = Journal.append

    def stopped(self: Journal, *words: Any) -> Any:
        if self.records():
            raise KeyboardInterrupt
        return append(self, *words)

    monkeypatch.setattr(Journal, "append", stopped)
    assert main(several(model, "--guard", "off")) == 130
    assert caplog.messages[-1] == (
        "Interrupted. Made before, and in force: 1 (`errata undo` takes them back)."
    )


@pytest.mark.parametrize("words", [["log", ".", "--json"], ["--help"]])
def test_an_output_that_nobody_reads_ends_quietly(words: list[str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        stdout=writer,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        check=False,
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode in (0, 141)  # argparse ends by itself
