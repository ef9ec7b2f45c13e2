"""Probes of one's own: read from files, brought to what a model reads, and told of if left out."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
from conftest import make_face

from pipeline.commands.made import health_line
from pipeline.editable import Editable, Guard
from pipeline.editable import guard as guards
from pipeline.editable.guard import Health, Watch
from pipeline.editable.probes import read_probes
from pipeline.errors import DataError, SettingsError
from pipeline.models import Face
from pipeline.records import Probe, write_cases

LONG = Probe("Tom " * 70, "")


def test_probes_are_given_as_mappings_too(causal: Face) -> None:
    guard = Guard(probes=({"prompt": "Tom works", "target": " for"},))  # type: ignore[arg-type]
    assert guard.probes == (Probe("Tom works", " for"),)
    assert math.isfinite(Editable(causal, guard=guard).health().perplexity)
    with pytest.raises(SettingsError, match=r"a Guard; found 'refuse'.*action"):
        Editable(causal, guard="refuse")  # type: ignore[arg-type]


def test_many_probes_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rows in (64, 3):
        monkeypatch.setattr(guards, "_ROWS", rows)
        one = Editable(make_face("gpt2"))
        (edit,) = one.edit(("Tom Asker works for", " was built"), rate=1e-2, steps=60)
        assert edit.health is not None
        found.append([v for v in vars(edit.health).values() if isinstance(v, float)])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.fixture(scope="module")
def causal() -> Face:
    return make_face("gpt2")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("some.TXT", "\ufeffTom\r\n\n Ada\u2028was\n", [("Tom", ""), (" Ada\u2028was", "")]),
        ("some.jsonl", '\ufeff{"prompt": "Tom"}\n', [("Tom", "")]),
        (
            "some.jsonl",
            '{"prompt": "Tom", "target": "a"}\r\n{"prompt": "Ada", "target": true}',
            [("Tom", "a"), ("Ada", "true")],
        ),
    ],
)
def test_probes_of_a_file(
    name: str, text: str, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert read_probes(path) == tuple(Probe(*pair) for pair in expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"prompt": 5}', "'prompt' of .*line 2; found 5"),
        ('{"prompt": "Tom", "target": null}', "'target' of .*line 2; found None"),
        ('{"prompt": "Tom", "target": ["a"]}', "'target' of .*line 2"),
        ('{"prompt": "\\udcff"}', "UTF-8 can hold in the field 'prompt' of .*line 2"),
        ('{"target": "a"}', "a probe in .*line 2"),
        ('"Tom"', "a probe in .*line 2"),
        ("Tom", "a JSON object in .*line 2"),
    ],
)
def test_a_broken_line_is_named(line: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(f'{{"prompt": "Ada"}}\n{line}\n')
    with pytest.raises(DataError, match=expected):
        read_probes(path)


@pytest.mark.parametrize("name", ["some.txt", "some.jsonl", "some.parquet"])
def test_a_file_without_probes_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write_cases(path, []) if path.suffix == ".parquet" else path.write_text("\n \n")
    with pytest.raises(DataError, match=rf"probes in .*{name}; found none"):
        read_probes(path)


@pytest.mark.parametrize("probe", ["Tom", Probe("Tom", None), {"target": "a"}])  # type: ignore[arg-type]
def test_a_guard_takes_probes_alone(probe: object) -> None:
    with pytest.raises(DataError, match="probe 1"):
        Guard(probes=(probe,))  # type: ignore[arg-type]


def test_a_target_is_read_as_a_request_is(causal: Face) -> None:
    watch = Watch(causal, Guard(probes=(Probe("The harbour", "was built"),)))
    assert watch.pairs == [("The harbour", " was built")]
    given = (Probe("Tom works.", "True"), Probe("Ada sings.", "false"), Probe("The harbour.", ""))
    found = Watch(make_face("bert"), Guard(probes=given)).pairs
    assert found[:2] == [("Tom works.", "true"), ("Ada sings.", "false")]
    assert found[2][1] in ("true", "false")


def test_probes_that_cannot_be_read_are_told_of(
    causal: Face, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        Watch(causal, Guard(probes=(LONG, Probe("The harbour", ""))))
    (record,) = caplog.records
    assert record.getMessage().startswith("1 of 2 probes are left out; of the first: expected at")


@pytest.mark.parametrize(
    ("architecture", "probe", "why"),
    [("gpt2", LONG, "64 tokens"), ("bert", Probe("Tom works.", "maybe"), "a label out of")],
)
def test_probes_of_which_none_can_be_read_are_refused(
    architecture: str, probe: Probe, why: str
) -> None:
    with pytest.raises(DataError, match=f"a probe that this model can read.*none.*{why}"):
        Editable(make_face(architecture), guard=Guard(probes=(probe,))).health()


NAN = math.nan


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((NAN, NAN, NAN, NAN, 0.1, NAN, NAN), "Probes: none that this model can be asked, norms"),
        ((2.0, NAN, 0.0, 1.0, NAN, 3.0, NAN), "perplexity 2.00 to no number"),
        ((2.0, 2.5, 0.9, 0.1, 0.1, NAN, NAN), "norms grew by up to 10.0%."),
    ],
)
def test_no_number_is_said_in_words(numbers: tuple[float, ...], expected: str) -> None:
    names = ("perplexity_before", "perplexity", "agreement", "drawdown", "growth",
             "entropy_before", "entropy")  # fmt: skip
    said = health_line(Health(**dict(zip(names, numbers, strict=True))))  # type: ignore[arg-type]
    assert "nan" not in said
    assert expected in said
