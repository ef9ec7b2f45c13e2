"""What callers give, in the forms that people try: taken as it is meant, or refused by name."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.editable.texts import encodable
from pipeline.errors import DataError, SettingsError
from pipeline.records import Case, read_cases

_CASES = "Give a parquet table of cases with the split 'train', or a list of `Case`."


def prompts_of(prompts: object) -> list[str]:
    """Prompts out of any iterable, be it one that can be read once only.

    Raises:
        DataError: it is none, or one of them is no text.
    """
    if isinstance(prompts, str):
        prompts = [prompts]
    if not isinstance(prompts, Iterable) or isinstance(prompts, Mapping | bytes):
        raise DataError(
            expected="a prompt, or several", found=repr(prompts)[:80], remedy="Ask something."
        )
    found = list(prompts)
    for prompt in found:
        if not isinstance(prompt, str) or not prompt.strip():
            raise DataError(
                expected="a prompt of some text", found=repr(prompt)[:80], remedy="Ask something."
            )
        encodable(prompt, "a prompt")
    return found


def tokens_of(tokens: object, usual: int) -> int:
    """How many tokens an answer may have; None: as many as usual.

    Raises:
        SettingsError: it is no whole number above 0.
    """
    if tokens is None:
        return usual
    try:
        count = operator.index(tokens)  # type: ignore[arg-type]  # what is none is refused
    except TypeError:
        count = 0
    if count < 1 or isinstance(tokens, bool):
        raise SettingsError(
            expected="answers of at least one token, as a whole number",
            found=repr(tokens)[:80],
            remedy=f"Leave it out for {usual}, or give an int above 0.",
        )
    return count


def numbers_of(numbers: Iterable[object]) -> list[int]:
    """Numbers of edits, as the plain integers that a journal holds.

    Raises:
        SettingsError: one is no whole number.
    """
    found = []
    for number in numbers:
        try:
            whole = operator.index(number)  # type: ignore[arg-type]  # what is none is refused
        except TypeError:
            whole = None
        if whole is None or isinstance(number, bool):
            raise SettingsError(
                expected="the numbers of edits, as whole numbers",
                found=repr(number)[:80],
                remedy="`model.in_force` has them.",
            )
        found.append(whole)
    return found


def cases_of(cases: Sequence[Case] | str | Path) -> tuple[Case, ...]:
    """Training cases, at hand or out of a table, where they are those of the split 'train'.

    Raises:
        DataError: there is no such table, it has none of these, or something is no case.
    """
    if isinstance(cases, str | Path):
        found = tuple(case for case in table_of(Path(cases), _CASES) if case.split == "train")
        if not found:
            raise DataError(
                expected=f"training cases in {cases}",
                found="none of the split 'train'",
                remedy="Give a table of cases that has some.",
            )
        return found
    several = isinstance(cases, Iterable) and not isinstance(cases, Mapping | bytes)
    items: list[Any] = list(cases) if several else [cases]
    for item in items:
        if not isinstance(item, Case):
            raise DataError(expected="training cases", found=repr(item)[:80], remedy=_CASES)
    return tuple(items)


def table_of(path: Path, remedy: str) -> list[Case]:
    """Cases of a table that a user names: it need not be what a stage makes. Raises DataError."""
    try:
        return read_cases(path)
    except DataError as error:
        raise DataError(expected=error.expected, found=error.found, remedy=remedy) from error


def settings_of(settings: object, more: Mapping[str, Any]) -> dict[str, Any]:
    """An editor's settings by their names. Raises SettingsError where they have none."""
    if settings is not None and not isinstance(settings, Mapping):
        raise SettingsError(
            expected="settings by their names",
            found=repr(settings)[:80],
            remedy='Give a mapping, {"rate": 1e-3, "outer.steps": 300}, or keywords, rate=1e-3.',
        )
    for name in settings or ():
        text_of(name, "the name of a setting", 'Write it in quotes: {"rate": 1e-3}.')
    return {**(settings or {}), **more}


def text_of(value: object, what: str, remedy: str) -> str:
    """The value, which must be a text. Raises SettingsError."""
    if not isinstance(value, str):
        raise SettingsError(expected=what, found=repr(value)[:80], remedy=remedy)
    return value
