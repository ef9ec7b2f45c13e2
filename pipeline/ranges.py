"""Settings out of their range: numbers that no run can use, told by the setting's name.

A name means the same wherever it stands, so that one list serves every editor and every stage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.config import flatten, wrong

# What a run would divide by, draw from, build a model of, or have nothing left with.
_AT_LEAST_ONE = frozenset({"batch", "beams", "blocks", "cases", "condition", "context", "epochs"})
_AT_LEAST_ONE |= {"heads", "hidden", "layers", "most", "pool", "rank", "rows", "save_every"}
_AT_LEAST_ONE |= {"steps", "tokens", "top_k", "tries", "validate_every", "vocabulary", "width"}
_ABOVE_ZERO = frozenset({"bound", "epsilon", "lr", "rate", "scale"})
_SHARES = frozenset({"reach"})
_RANGED = (
    "world",
    "benches",
    "editors",
    "overrides",
    "settings",
    "evaluate",
    "statistics",
    "tracing",
)


def check_record_ranges(values: Mapping[str, Any]) -> None:
    """`check_ranges` of every part of a record that there is."""
    for part in _RANGED:
        check_ranges(values.get(part) or {}, part)


def check_ranges(settings: Mapping[str, Any], where: str) -> None:
    """Raises SettingsError when a setting at any depth, null aside, is out of its range."""
    for path, value in flatten(settings, where).items():
        name = path.rpartition(".")[2]
        if _is_number(value):
            _check_named(path, name, value)
        if not all(math.isfinite(number) and number >= 0 for number in _numbers(value)):
            raise wrong(path, "no less than 0, and finite", value)
        if name == "rates":
            _check_rates(path, value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(value: Any) -> Iterator[float]:
    """All numbers of a value, in lists of lists too."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)
    elif _is_number(value):
        yield value


def _check_named(path: str, name: str, number: float) -> None:
    if name in _AT_LEAST_ONE and not number >= 1:
        raise wrong(path, "at least 1", number)
    if name in _ABOVE_ZERO and not number > 0:
        raise wrong(path, "above 0", number)
    if name in _SHARES and not 0 < number <= 1:
        raise wrong(path, "above 0 and at most 1", number)
    if name == "smoothing" and not number < 1:
        raise wrong(path, "below 1", number)


def _check_rates(path: str, rates: Any) -> None:
    if not rates:
        raise wrong(path, "a list of at least one rate", rates)
    if not (rates[0] > 0 and list(rates) == sorted(set(rates))):
        raise wrong(path, "rates above 0, in rising order", rates)
