"""`errata` as its users type it, in this process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cases import make_cases
from conftest import make_face
from models_on_disk import FT, corrections_for, fitted, model_folder

from pipeline.cli import main
from pipeline.editable import Editable, beside
from pipeline.editable.corrections import read
from pipeline.errors import DataError
from pipeline.records import write_cases

SET = [word for name, value in FT.items() for word in ("--set", f"{name}={value}")]
COMMANDS = ("edit", "ask", "compare", "serve", "undo", "log", "check", "export",
            "params", "repro", "mlflow", "readme")  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("gpt2", tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def model(base: Path, tmp_path: Path) -> str:
    """A model's folder without a journal."""
    folder = tmp_path / "model"
    folder.symlink_to(base)
    return str(folder)


@pytest.fixture
def journal(tmp_path: Path) -> list[str]:
    return ["--journal", str(tmp_path / "journal")]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command that works says."""
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(run(capsys, *words, "--json"))


def test_a_session(
    model: str, journal: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Edit by flags and by file, look, undo out of order, export, check."""
    (one, first), (two, second), *_ = corrections_for(make_face("gpt2"))
    said = run(capsys, "edit", model, "--prompt", one, "--target", first, "--rephrase", "Say it",
               "--neighbour", two, *SET, *journal, "--dry-run")  # fmt: skip
    assert "Nothing was kept" in said
    assert "rephrase" in said
    assert "No edits yet" in run(capsys, "log", model, *journal)

    lines = [{"prompt": one, "target": first}, {"prompt": two, "target_new": second}]
    requests = tmp_path / "requests.jsonl"
    requests.write_text("\n".join(map(json.dumps, lines)))
    said = run(capsys, "edit", model, "--requests", str(requests), *SET, *journal)
    assert "1 of 2 edits say what they should (ft" in said
    assert "; 1 was overridden by later ones: try --together." in said
    assert "Probes: drawdown" in said

    found = run_json(capsys, "ask", model, one, two, "--tokens", "4", *journal)
    answers = [item["answer"] for item in found]
    assert answers[1].startswith(second)
    assert run(capsys, "ask", model, one, two, "--tokens", "4", *journal).splitlines() == [
        answer.strip() for answer in answers
    ]
    found = run_json(capsys, "compare", model, one, *journal)
    assert found[0]["changed"]
    assert "changed" in run(capsys, "compare", model, one, *journal)

    assert "Undone: 1. In force: 2." in run(capsys, "undo", model, "1", *journal)
    log = run_json(capsys, "log", model, *journal)
    assert [record["kind"] for record in log["records"]] == ["edit", "edit", "undo"]
    assert log["in_force"] == [2]
    assert "undone" in run(capsys, "log", model, *journal)

    found = run_json(capsys, "export", model, str(tmp_path / "out"), "--to", "bfloat16", *journal)
    assert found["edits"] == [2]
    assert max(found["unchanged"].values()) > 0
    said = run(capsys, "export", model, str(tmp_path / "adapter"), "--as", "adapter", *journal)
    assert "Ranks" in said
    assert run_json(capsys, "undo", model, "--all", *journal)["in_force"] == []
    assert "No edits." in run(capsys, "check", model, *journal)


def test_check_tells_of_an_edit_that_no_longer_holds(
    model: str,
    journal: list[str],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    prompt, target = corrections_for(make_face("gpt2"))[0]
    run(capsys, "edit", model, "--prompt", prompt, "--target", target, *SET, *journal)
    assert "holds" in run(capsys, "check", model, *journal, "--guard", "off")
    run(capsys, "edit", model, "--prompt", prompt, "--target", "born", *SET, *journal)
    assert main(["check", model, *journal]) == 1
    assert "does not hold" in capsys.readouterr().out
    assert "found edits 1, which other edits or undos overrode" in caplog.messages[-1]


def test_check_asks_for_as_many_tokens_as_a_target_has(
    model: str, journal: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    face = make_face("gpt2")
    prompt, target = corrections_for(face)[0][0], 15 * " by"
    assert len(face.tokenise([(prompt, target)])[0].labels) > 14
    (edit,) = run_json(capsys, "edit", model, "--prompt", prompt, "--target", target, *SET,
                       "--guard", "off", *journal)["edits"]  # fmt: skip
    assert edit["right"]
    (found,) = run_json(capsys, "check", model, *journal)["edits"]
    assert found["holds"]
    assert found["held"]


def test_a_csv_and_probes_of_ones_own(
    model: str, journal: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt, target = corrections_for(make_face("gpt2"))[0]
    requests, probes = tmp_path / "requests.csv", tmp_path / "probes.txt"
    requests.write_text(f"prompt,target,rephrase\n{prompt},{target.strip()},Say it|Tell me\n")
    probes.write_text("The harbour\n")
    found = run_json(capsys, "edit", model, "--requests", str(requests), "--probes", str(probes),
                     "--limit", "agreement=0", "--limit", "growth=9", *SET, *journal)  # fmt: skip
    (edit,) = found["edits"]
    assert edit["corrections"][0]["target"] == target
    assert [answer["prompt"] for answer in edit["answers"]] == [prompt, "Say it", "Tell me"]
    assert edit["health"]["perplexity"] > 1


def test_editors_that_learn_take_a_folder_or_cases(
    model: str, journal: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    face = make_face("gpt2")
    prompt, target = corrections_for(face)[0]
    asked = ["edit", model, "--prompt", prompt, "--target", target, "--guard", "off", *journal]
    folder = fitted(face, "mend", Path(model), tmp_path / "mend")
    (edit,) = run_json(capsys, *asked, "--editor", str(folder))["edits"]
    assert edit["alg"] == "mend"
    write_cases(tmp_path / "cases.parquet", make_cases(face))
    few = ["--set", "outer.steps=4", "--set", "outer.batch=2", "--set", "rank=4"]
    (edit,) = run_json(
        capsys, *asked, "--alg", "mend", "--fit", str(tmp_path / "cases.parquet"), *few
    )["edits"]
    assert edit["settings"]["outer"]["steps"] == 4
    assert main([*asked, "--alg", "mend"]) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["edit", "MODEL", "--prompt", "Tom"], "DataError: expected either --prompt and --target"),
        (["edit", "MODEL", "--requests", "none.jsonl"], "DataError: expected requests in none"),
        (
            ["edit", "MODEL", "--prompt", "Tom", "--target", "a", "--set", "rate"],
            "SettingsError: expected a setting as name=value",
        ),
        (
            ["edit", "MODEL", "--prompt", "Tom", "--target", "a", "--subject", "Ada"],
            "DataError: expected the subject 'Ada' in its prompt",
        ),
        (["ask", "MODEL"], "DataError: expected a prompt"),
        (["ask", "./nothing", "Tom"], "ModelError: expected a folder with a model"),
        (["undo", "MODEL", "7"], "JournalError: expected 7 to be an edit in force (none is)"),
        (["export", "MODEL", "out"], "EditorError: expected an edit in force"),
        (["check", "MODEL", "--limit", "growht=1"], "SettingsError: .*Did you mean 'growth'"),
    ],
)
def test_mistakes_are_one_message(
    words: list[str],
    expected: str,
    model: str,
    journal: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([model if word == "MODEL" else word for word in words] + journal) == 1
    (record,) = (r for r in caplog.records if r.name == "pipeline.cli")
    said = record.getMessage()
    assert said.startswith(expected.split(".*")[0])
    assert all(part in said for part in expected.split(".*"))
    assert not (tmp_path / "journal").exists()


def test_broken_requests_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text('{"prompt": "Tom", "target": "a"}\n{"prompt": \n')
    with pytest.raises(DataError, match=r"requests\.jsonl, line 2"):
        read(path)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "examples:" in said
    assert f"errata {name}" in said.partition("examples:")[2]


def test_the_history_is_read_without_torch(tmp_path: Path) -> None:
    """So that it shows at once."""
    code = (
        "import sys; from pipeline.cli import main; "
        f"main(['log', 'model', '--journal', {str(tmp_path / 'journal')!r}]); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_journal_lies_beside_the_model_unless_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    folder = model_folder("gpt2", own / "model")
    prompt, target = corrections_for(make_face("gpt2"))[0]
    run(capsys, "edit", str(folder), "--prompt", prompt, "--target", target, *SET, "--guard", "off")
    assert beside(folder) == own / "model.errata"
    assert Editable.load(folder, journal=own / "model.errata").in_force == [1]


def test_a_check_says_what_is_past_a_limit(
    model: str, journal: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    prompt, target = corrections_for(make_face("gpt2"))[0]
    words = ["--prompt", prompt, "--target", target, *SET, "--guard", "off", *journal]
    assert main(["edit", model, *words]) == 0
    tight = ["--limit", "growth=1e-9", *journal]
    assert main(["check", model, *tight]) == 0
    assert "norm growth" in capsys.readouterr().out
    assert main(["check", model, "--guard", "refuse", *tight]) == 1
