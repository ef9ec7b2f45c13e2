"""Settings: from the record `params.yaml` to frozen dataclasses that refuse what they do not know.

Each part of the library has a frozen dataclass `Config` beside the code that it configures; `build`
makes one from the plain values of the record and names the full path of whatever does not fit.
"""

from __future__ import annotations

import dataclasses
import os
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pipeline.errors import DataError, SettingsError, near_misses

RECORD = "params.yaml"
Params = dict[str, Any]

_Settings = TypeVar("_Settings")
_SIMPLE: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def project_root() -> Path:
    """The project's own folder, also for a queued experiment, which works in a temporary copy.

    DVC sets DVC_ROOT for every stage; of a queued one it is the folder it was queued from.
    """
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


@dataclass(frozen=True, kw_only=True)
class Root:
    """The root of a record. What lies deeper is checked by the code that it configures."""

    record: str
    suite: str
    study: str
    raw: str | None
    seed: int
    threads: int
    algs: tuple[str, ...]
    plan: dict[str, Any]
    world: dict[str, Any] | None
    benches: dict[str, Any]
    editors: dict[str, Any]
    overrides: dict[str, Any]
    traits: dict[str, Any]
    statistics: dict[str, Any]
    evaluate: dict[str, Any]
    tracing: dict[str, Any]
    traces: dict[str, Any]
    source: str
    used: tuple[str, ...]
    bases: dict[str, Any]
    runs: dict[str, Any]
    settings: dict[str, Any]
    fits: dict[str, Any]
    moments: dict[str, Any]
    skipped: tuple[Any, ...]

    def __post_init__(self) -> None:
        """Raises SettingsError for a number of threads that there cannot be."""
        if self.threads < 1:
            raise wrong("params.threads", "at least 1", self.threads)


def check_root(params: Mapping[str, Any]) -> None:
    """Raises SettingsError when a setting at the root is unknown, missing or of the wrong type."""
    build(Root, params, "params")


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> Params:
    """`base` with the values of `own`, level by level."""
    result = dict(base)
    for key, value in own.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if nested else value
    return result


def read_params(path: Path = Path(RECORD)) -> Params:
    """The composed settings, as plain dictionaries and lists.

    Read as DVC reads them; PyYAML would take `1e-5` for text.

    Raises:
        DataError: the file is missing or is no YAML mapping.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise DataError(
            expected=f"composed settings in {path}",
            found=str(error),
            remedy="Compose them again: errata params.",
        ) from error
    if not isinstance(values, dict):
        raise DataError(
            expected=f"a mapping in {path}",
            found=type(values).__name__,
            remedy="Compose it again: errata params.",
        )
    return {str(key): value for key, value in values.items()}


def pick(params: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path.

    Raises:
        SettingsError: there is none; the message names the near misses at that level.
    """
    here: Any = params
    done: list[str] = []
    for key in path.split("."):
        if not isinstance(here, Mapping) or key not in here:
            known = list(here) if isinstance(here, Mapping) else []
            raise SettingsError(
                expected=f"a setting {path}",
                found=f"no {key!r} in {'.'.join(done) or 'the settings'}",
                remedy=near_misses(key, known),
            )
        here = here[key]
        done.append(key)
    return here


def build(cls: type[_Settings], mapping: Any, where: str = "settings") -> _Settings:
    """Make the dataclass `cls`, and those nested in it, from plain values.

    Args:
        cls: a dataclass with fields of str, int, float, bool, None, Literal, tuple[X, ...],
            dict[str, X], dataclasses, and unions of these.
        mapping: what the record holds for it.
        where: the dotted path of `mapping`, for messages.

    Raises:
        SettingsError: a key is unknown or missing, or a value has the wrong type.
    """
    assert dataclasses.is_dataclass(cls)
    if not isinstance(mapping, Mapping):
        raise wrong(where, "a mapping of settings", mapping)
    fields = {item.name: item for item in dataclasses.fields(cls) if item.init}
    for key in mapping:
        if key not in fields:
            raise SettingsError(
                expected=f"a setting of {where}",
                found=f"{where}.{key}",
                remedy=near_misses(str(key), fields),
            )
    missing = [name for name, item in fields.items() if _required(item) and name not in mapping]
    if missing:
        raise SettingsError(
            expected=f"a value for {', '.join(f'{where}.{name}' for name in missing)}",
            found="none",
            remedy="Set it in conf/ and compose again: errata params.",
        )
    hints = get_type_hints(cls)
    values = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in mapping.items()}
    made: _Settings = cls(**values)
    return made


def flatten(values: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings as dotted paths; lists and empty mappings are values."""
    if not isinstance(values, Mapping) or not values:
        return {path: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(flatten(value, f"{path}.{key}" if path else str(key)))
    return flat


def _required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(hint), value, where)
    if origin is Literal:
        return _convert_literal(get_args(hint), value, where)
    if origin is tuple:
        return _convert_tuple(get_args(hint), value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise wrong(where, "a mapping", value)
        inner = get_args(hint)[1]
        return {str(key): _convert(inner, item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        return build(hint, value, where)
    return _convert_simple(hint, value, where)


def _convert_simple(hint: Any, value: Any, where: str) -> Any:
    assert hint in _SIMPLE, f"{where}: settings cannot be of type {hint}"
    if getattr(value, "ndim", None) == 0:  # a number out of an array or a table
        value = value.item()
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:  # a bool is an int to isinstance, and no number to a user
        raise wrong(where, _SIMPLE[hint], value)
    return value


def _convert_union(hints: tuple[Any, ...], value: Any, where: str) -> Any:
    for hint in hints:
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            return _convert(hint, value, where)  # its own message is the better one
        try:
            return _convert(hint, value, where)
        except SettingsError:
            continue
    raise wrong(where, " or ".join(_describe(hint) for hint in hints), value)


def _convert_literal(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return value
    raise SettingsError(
        expected=f"{where} to be one of {', '.join(map(repr, choices))}",
        found=repr(value),
        remedy=near_misses(str(value), map(str, choices)),
    )


def _convert_tuple(hints: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise wrong(where, "a list", value)
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(hints) != len(value):
        raise wrong(where, f"a list of {len(hints)} values", value)
    return tuple(
        _convert(hint, item, f"{where}[{i}]")
        for i, (hint, item) in enumerate(zip(hints, value, strict=True))
    )


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    return _SIMPLE.get(hint, "a list" if get_origin(hint) is tuple else "a mapping")


def wrong(where: str, expected: str, value: Any) -> SettingsError:
    """The error for a setting's value."""
    return SettingsError(
        expected=f"{where} to be {expected}",
        found=f"{value!r} ({type(value).__name__})",
        remedy="Correct it where it is set: on the command line, or in conf/ (then errata params).",
    )
