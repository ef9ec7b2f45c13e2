"""Settings: what `build` makes, and that it names what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from pipeline.config import build, flatten, pick, project_root, read_params
from pipeline.errors import DataError, SettingsError


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: int = 8


@dataclass(frozen=True, kw_only=True)
class Outer:
    rank: int
    rate: float = 0.5
    name: str = "x"
    flag: bool = False
    place: Literal["mlp", "attention"] = "mlp"
    limit: int | None = None
    rates: tuple[float, ...] = ()
    pair: tuple[int, str] = (1, "a")
    sizes: dict[str, int] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    spare: Inner | None = None


def test_build_converts_nested_values() -> None:
    made = build(
        Outer,
        {
            "rank": 4,
            "rate": 1,
            "place": "attention",
            "limit": None,
            "rates": [1, 0.5],
            "pair": [2, "b"],
            "sizes": {"a": 1},
            "inner": {"width": 16},
            "spare": {"width": 2},
        },
    )
    assert made == Outer(
        rank=4,
        rate=1.0,
        place="attention",
        rates=(1.0, 0.5),
        pair=(2, "b"),
        sizes={"a": 1},
        inner=Inner(width=16),
        spare=Inner(width=2),
    )
    assert type(made.rate) is float
    assert type(made.rates[0]) is float


def test_numbers_out_of_arrays_are_numbers() -> None:
    made = build(Outer, {"rank": np.int64(3), "rate": np.float32(0.5), "flag": np.bool_(True)})
    assert made == Outer(rank=3, rate=0.5, flag=True)
    assert [type(value) for value in (made.rank, made.rate, made.flag)] == [int, float, bool]
    with pytest.raises(SettingsError, match="a whole number"):
        build(Outer, {"rank": np.array([1, 2])})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"rnak": 4}, r"editors\.mend\.rnak.*Did you mean 'rank'"),
        ({}, r"a value for editors\.mend\.rank"),
        ({"rank": "4"}, r"editors\.mend\.rank to be a whole number; found '4' \(str\)"),
        ({"rank": True}, r"editors\.mend\.rank to be a whole number; found True \(bool\)"),
        ({"rank": 4.0}, r"editors\.mend\.rank to be a whole number; found 4\.0 \(float\)"),
        ({"rank": 1, "rate": "1e-5"}, r"editors\.mend\.rate to be a number"),
        ({"rank": 1, "rate": False}, r"editors\.mend\.rate to be a number"),
        ({"rank": 1, "flag": 1}, r"editors\.mend\.flag to be true or false"),
        ({"rank": 1, "place": "mpl"}, r"editors\.mend\.place .*'mpl'.*Did you mean 'mlp'"),
        ({"rank": 1, "limit": "all"}, r"editors\.mend\.limit to be a whole number or null"),
        ({"rank": 1, "rates": 0.5}, r"editors\.mend\.rates to be a list"),
        ({"rank": 1, "rates": [1, "a"]}, r"editors\.mend\.rates\[1\] to be a number"),
        ({"rank": 1, "pair": [1]}, r"editors\.mend\.pair to be a list of 2 values"),
        ({"rank": 1, "sizes": {"a": "b"}}, r"editors\.mend\.sizes\.a to be a whole number"),
        ({"rank": 1, "inner": {"widht": 1}}, r"editors\.mend\.inner\.widht.*Did you mean 'width'"),
        ({"rank": 1, "inner": 3}, r"editors\.mend\.inner to be a mapping"),
        ({"rank": 1, "spare": {"width": "x"}}, r"editors\.mend\.spare\.width to be a whole number"),
    ],
)
def test_build_names_the_full_path(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        build(Outer, values, "editors.mend")


def test_pick_finds_or_names_near_misses() -> None:
    params = {"editors": {"mend": {"rank": 4}}}
    assert pick(params, "editors.mend.rank") == 4
    with pytest.raises(SettingsError, match=r"no 'mnd' in editors.*Did you mean 'mend'"):
        pick(params, "editors.mnd.rank")


def test_read_params_reads_numbers_that_yaml_takes_for_text(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("rate: 1e-5\n")
    assert read_params(path) == {"rate": 1e-5}


@pytest.mark.parametrize("text", [None, "a: [1", "- 1\n"])
def test_read_params_refuses_what_is_no_record(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "params.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match="errata params"):
        read_params(path)


def test_flatten_keeps_lists_and_empty_mappings() -> None:
    assert flatten({"a": {"b": [1], "c": {}}, "d": None}) == {"a.b": [1], "a.c": {}, "d": None}


def test_project_root_is_where_an_experiment_was_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert project_root() == tmp_path
    monkeypatch.delenv("DVC_ROOT")
    assert project_root() == Path.cwd()
