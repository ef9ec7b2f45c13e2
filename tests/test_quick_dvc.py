"""DVC with libyaml for its lock: the same bytes, other files untouched by it, comments kept."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import dpath
import pytest
from dvc.utils.serialize import dumps_yaml, load_yaml, loads_yaml, modify_yaml
from dvc.utils.serialize._yaml import YAMLFileCorruptedError, parse_yaml

from pipeline.quick_dvc import Lock, Parsed, dumped, quick, remembering, straight

ROOT = Path(__file__).parents[1]
WORDS = ["yes", "null", "", "1e-3", "0123", "a: b", "- x", "#", "ü — é", "x " * 90, "~", "true"]
QUICK = (sys.executable, "-m", "pipeline.quick_dvc")
LOCK = {
    "schema": "2.0",
    "stages": {
        "b": OrderedDict(cmd="python -m b", params=None),
        "a": {"words": WORDS, "rates": [1e-5, 0.1, 1.0, 3e-7], "none": None, "of": {}, "ids": []},
    },
}


def test_the_committed_lock_is_as_dvc_writes_it() -> None:
    text = (ROOT / "dvc.lock").read_text()
    assert dumped(load_yaml(ROOT / "dvc.lock")) == text


def test_texts_numbers_and_nothing_are_written_as_dvc_does() -> None:
    assert dumped(LOCK) == dumps_yaml(LOCK)


@pytest.mark.parametrize("text", ["two\nlines: \n\nmore", "it's", 'a "word"', "ends in: "])
def test_what_is_written_otherwise_reads_the_same(text: str, tmp_path: Path) -> None:
    place = tmp_path / "dvc.lock"
    place.write_text(dumped({"texts": [text], "next": {text: None}}))
    assert load_yaml(place) == {"texts": [text], "next": {text: None}}


def test_a_lock_is_changed_in_place(tmp_path: Path) -> None:
    place, twin = tmp_path / "dvc.lock", tmp_path / "twin.lock"
    place.write_text(dumped(LOCK))
    twin.write_text(dumps_yaml(LOCK))
    for modify, path in ((quick(modify_yaml, Lock()), place), (modify_yaml, twin)):
        with modify(str(path)) as data:
            data["stages"].update({"c": OrderedDict(cmd="python -m c"), "b": {"cmd": "other"}})
    assert place.read_bytes() == twin.read_bytes()
    assert list(load_yaml(place)["stages"]) == ["b", "a", "c"]


def test_a_lock_that_is_not_there_begins_empty(tmp_path: Path) -> None:
    with quick(modify_yaml, Lock())(str(tmp_path / "dvc.lock")) as data:
        data["schema"] = "2.0"
    assert (tmp_path / "dvc.lock").read_text() == "schema: '2.0'\n"


def test_a_text_is_parsed_once_and_its_values_are_not_shared() -> None:
    asked: list[str] = []

    def parse(text: str, _path: str, typ: str = "safe") -> dict[str, list[str]]:
        asked.append(f"{typ} {text}")
        return {"found": [text]}

    quickly = remembering(parse, Lock())
    quickly("a", "one.yaml")["found"].append("changed")
    assert quickly("a", "two.yaml") == {"found": ["a"]}
    assert quickly("b", "one.yaml") == {"found": ["b"]}
    quickly("a", "one.yaml", typ="rt")
    quickly("a", "one.yaml", typ="rt")
    assert asked == ["safe a", "safe b", "rt a", "rt a"]


def test_what_was_parsed_is_kept_for_later_calls(tmp_path: Path) -> None:
    """Values stay each caller's own; a folder that is gone costs nothing but the parsing."""
    asked: list[str] = []

    def parse(text: str) -> list[str]:
        asked.append(text)
        return [text]

    for name in ("here", "here", "gone", "gone"):
        folder = tmp_path / name
        (tmp_path / "here").mkdir(exist_ok=True)
        parsed = Parsed(folder)
        parsed.value("a", parse).append("changed")
        assert parsed.value("a", parse) == ["a"]
    assert len(asked) == 1 + 2


def test_dvc_runs_with_it(tmp_path: Path) -> None:
    """A stage that succeeds is in the lock as DVC writes it; one that fails ends the command."""
    (tmp_path / "params.yaml").write_text("rate: 1.0e-5\nname:\n")
    stage = {"cmd": "echo x > out", "params": ["rate", "name"], "outs": [{"out": {"cache": False}}]}
    (tmp_path / "dvc.yaml").write_text(dumps_yaml({"stages": {"makes": stage}}))
    assert run(tmp_path, "dvc", "init", "--no-scm") == 0
    assert run(tmp_path, *QUICK, "repro") == 0
    lock = (tmp_path / "dvc.lock").read_bytes()
    (tmp_path / "dvc.lock").unlink()
    assert run(tmp_path, "dvc", "repro", "--force") == 0
    assert (tmp_path / "dvc.lock").read_bytes() == lock
    (tmp_path / "dvc.yaml").write_text(dumps_yaml({"stages": {"fails": {"cmd": "exit 3"}}}))
    assert run(tmp_path, *QUICK, "repro") != 0


def run(folder: Path, *words: str) -> int:
    places = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(places), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, check=False
    ).returncode


def test_files_with_comments_keep_them(tmp_path: Path) -> None:
    place = tmp_path / "dvc.yaml"
    place.write_text("stages: # the graph\n  a: {cmd: x}\n")
    with quick(modify_yaml, Lock())(str(place)) as data:
        data["stages"]["b"] = {"cmd": "y"}
    assert "# the graph" in place.read_text()


def test_a_lock_written_stage_by_stage_is_the_lock_written_whole(tmp_path: Path) -> None:
    text = (ROOT / "dvc.lock").read_text()
    place = tmp_path / "dvc.lock"
    place.write_text(text)
    modify, whole = quick(modify_yaml, Lock()), load_yaml(ROOT / "dvc.lock")
    names = list(whole["stages"])
    for name, value in ((names[3], {"cmd": "other"}), ("new", {"cmd": "x", "words": WORDS})):
        with modify(str(place)) as data:
            assert data == whole
            data["stages"][name] = value
        whole["stages"][name] = value
        assert place.read_text() == dumped(whole)
        assert load_yaml(place) == whole
    with modify(str(place)) as data:
        del data["stages"][names[0]]
    del whole["stages"][names[0]]
    assert place.read_text() == dumped(whole)


ODD = "schema: '2.0'\nstages:\n  a:\n    cmd: 'x\n\n      y'\n  'b c':\n    cmd: z\n"


HEAD = "schema: '2.0'\nstages:\n"


@pytest.mark.parametrize(
    "text",
    [
        ODD,
        "",
        "a: 1\n",
        HEAD,
        HEAD + "    a:\n        cmd: x\n",
        HEAD + " a:\n   cmd: x\n",
        HEAD + "datasets:\n  a:\n    url: x\n",
        HEAD + "  a:\n    cmd: x\ndatasets:\n  b:\n    url: y\n",
        HEAD + "  # why\n  a:\n    cmd: x\n",
        HEAD + "  - a\n  - b\n",
        HEAD + "  a: &x\n    cmd: x\n  b: *x\n",
    ],
)
def test_locks_of_any_look_are_read_as_yaml(text: str) -> None:
    lock = Lock()
    for _ in range(2):
        assert lock.read(text) == (loads_yaml(text) or {})
        again = lock.written(loads_yaml(text) or {}, text)
        assert (loads_yaml(again) or {}) == (loads_yaml(text) or {})


@pytest.mark.parametrize("more", ["<<<<<<< HEAD\n", "  a:\n    cmd: x\n"])
def test_a_lock_that_cannot_be_read_is_refused_by_dvc(more: str) -> None:
    for text in (ODD + more, HEAD + more + ODD.removeprefix(HEAD)):
        with pytest.raises(YAMLFileCorruptedError):
            remembering(parse_yaml, Lock())(text, "dvc.lock")


def test_a_setting_is_found_where_its_key_says_or_as_before() -> None:
    settings = {"a": {"b": None, "c": [1, 2]}, "x.y": 3}
    get = straight(dpath.get)
    assert get(settings, "a.b", separator=".") is None
    assert get(settings, "a.c", separator=".") == [1, 2]
    for key in ("a.c.1", "a.?[!b]", "a.*.0", "no.such", "a.b.c"):
        try:
            expected = dpath.get(settings, key, separator=".")
        except (KeyError, ValueError) as error:
            with pytest.raises(type(error)):
                get(settings, key, separator=".")
        else:
            assert get(settings, key, separator=".") == expected
