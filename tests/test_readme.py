"""The README: its results table is the committed report's, and its tree is the project's."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
from models_on_disk import model_folder

from pipeline import editors, tasks
from pipeline.cli import main
from pipeline.errors import DataError
from pipeline.readme import BEGIN, END, with_table
from pipeline.reporting import readme_table

ROOT = Path(__file__).parents[1]


def test_the_table_replaces_what_stands_between_the_markers() -> None:
    text = f"# Errata\n\n{BEGIN}\nold\n{END}\n\nmore\n"
    new = with_table(text, "| a |\n")
    assert new == f"# Errata\n\n{BEGIN}\n\n| a |\n\n{END}\n\nmore\n"
    assert with_table(new, "| a |\n") == new


@pytest.mark.parametrize(
    "text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}", f"{BEGIN}{BEGIN}{END}"]
)
def test_missing_or_doubled_markers_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="once each"):
        with_table(text, "| a |")


def test_the_committed_table_is_the_committed_report() -> None:
    text = (ROOT / "README.md").read_text()
    assert text == with_table(text, readme_table(ROOT / "reports" / "sample" / "main")), (
        "write it again: make readme"
    )


def tree() -> dict[str, str]:
    """Paths of the README's tree, folders with a slash at the end, and what it says of each."""
    section = (ROOT / "README.md").read_text().partition("\n## The tree\n")[2]
    found: dict[str, str] = {}
    folders: list[str] = []
    for line in section.split("```")[1].splitlines()[1:]:
        entry = re.fullmatch(r"((?:  )*)(\S+) {2,}(\S.*)", line)
        assert entry, f"no name and description: {line!r}"
        indent, name, about = entry.groups()
        folders = folders[: len(indent) // 2]
        assert len(folders) == len(indent) // 2, f"in no folder: {line!r}"
        path = "".join(folders) + name
        assert path not in found, f"twice: {path}"
        found[path] = about
        if name.endswith("/"):
            folders.append(name)
    return found


def test_the_tree_has_a_line_for_every_part() -> None:
    parts = [
        path.relative_to(ROOT)
        for pattern in ("pipeline/*", "stages/*.py", "tests/*.py", "conf/*")
        for path in ROOT.glob(pattern)
        if path.name != "__pycache__"
    ]
    names = {f"{path}/" if (ROOT / path).is_dir() else str(path) for path in parts}
    assert len(names) > 50
    assert sorted(names - set(tree())) == []


def test_the_tree_has_no_line_for_what_is_not_there() -> None:
    made = ("dvc.lock", "reports/")  # by the graph: there once a run is committed
    assert not [path for path in tree() if path not in made and not (ROOT / path).exists()]


def test_the_tree_names_every_editor_and_benchmark() -> None:
    found = tree()
    for folder, names in (("editors", editors.names()), ("tasks", tasks.NAMES)):
        for name in names:
            assert re.search(rf"\b{name}\b", found[f"pipeline/{folder}/"]), name


def examples(language: str) -> list[str]:
    """Code of the section about models of one's own."""
    text = (ROOT / "README.md").read_text()
    section = text.partition("\n## Edit a model of your own\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where a tiny model stands in for the sample's."""
    monkeypatch.chdir(tmp_path)
    return model_folder("gpt2", tmp_path / "data" / "sample" / "counterfact" / "base")


def test_the_offline_example_runs_as_it_stands(
    sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = examples("python")
    assert len([line for line in code.splitlines() if line]) == 10
    exec(compile(code, "README.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert [line.count(" | ") >= 2 for line in said[-3:-1]] == [True, True]
    assert said[0] == said[-1]
    assert (sample.parents[3] / "edited" / "model.safetensors").is_file()


def test_the_tour_of_commands_runs_as_it_stands(sample: Path) -> None:
    (code,) = examples("sh")
    first, *lines = code.replace("\\\n", " ").splitlines()
    assert first == f"M={sample.relative_to(sample.parents[3])}"
    ran = []
    for line in lines:
        program, name, *words = shlex.split(line.replace("$M", first[2:]), comments=True)
        assert program == "errata"
        ran.append(name)
        if name != "serve":  # it would not end
            with contextlib.redirect_stdout(io.StringIO()):
                assert main([name, *words]) == 0, line
    assert ran == ["edit", "ask", "compare", "log", "export", "check", "undo", "serve"]
