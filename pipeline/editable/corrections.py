"""What a user wants said: corrections, from Python, from flags, or from a JSONL or CSV file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, near_misses
from pipeline.models import Face
from pipeline.records import LABELS, Request, normalise

_OTHER_NAMES = {
    "target_new": "target",
    "answer": "target",
    "rephrase": "rephrases",
    "neighbour": "neighbours",
    "neighbor": "neighbours",
    "neighbors": "neighbours",
}
_LISTS = ("rephrases", "neighbours")


@dataclass(frozen=True, kw_only=True)
class Correction:
    """One thing the model should say, and prompts to look at besides.

    Attributes:
        prompt, target: what is asked, and what should follow ("true" or "false" of a classifier).
        subject: what it is about, word for word as in the prompt; ROME and MEMIT look for it.
        rephrases: other wordings, which should follow the edit.
        neighbours: prompts about other things, whose answers should stay.
    """

    prompt: str
    target: str
    subject: str = ""
    rephrases: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()

    @property
    def pair(self) -> tuple[str, str]:
        """Prompt and target."""
        return self.prompt, self.target

    def request(self, prediction: str = "") -> Request:
        """What an editor may know of it."""
        return Request(
            prompt=self.prompt, target=self.target, subject=self.subject, prediction=prediction
        )


Asked = Correction | Request | Mapping[str, Any] | tuple[str, str]


def corrections(asked: Asked | Iterable[Asked]) -> tuple[Correction, ...]:
    """One correction or several, in any of the forms that people write.

    Raises:
        DataError: a field is unknown or missing, or not text.
    """
    if isinstance(asked, Correction | Request | Mapping) or _is_pair(asked):
        asked = [asked]  # type: ignore[list-item]
    found = tuple(_one(item, f"request {number}") for number, item in enumerate(asked, 1))
    if not found:
        raise DataError(
            expected="at least one request", found="none", remedy="Say what should change."
        )
    return found


def read(path: Path) -> tuple[Correction, ...]:
    """Requests of a JSONL or CSV file.

    A CSV has a header; several rephrases or neighbours in a cell are separated by `|`.

    Raises:
        DataError: the file is missing, of another kind, or a line is broken (named by its number).
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            expected=f"requests in {path}",
            found=str(error),
            remedy="Give a JSONL or CSV file in UTF-8.",
        ) from error
    if path.suffix.lower() == ".csv":
        rows: list[tuple[str, Any]] = [
            (f"{path}, line {number}", {k: v for k, v in row.items() if k and v})
            for number, row in enumerate(csv.DictReader(text.splitlines()), 2)
        ]
    else:
        rows = _lines(path, text)
    found = tuple(_one(row, where) for where, row in rows)
    if not found:
        raise DataError(
            expected=f"requests in {path}", found="none", remedy="Give one on each line."
        )
    return found


def checked(face: Face, asked: Sequence[Correction]) -> tuple[Correction, ...]:
    """Requests as this model reads them: a causal model's target begins with its space.

    Raises:
        DataError: a subject is not in its prompt, a pair is longer than the model's context, a
            target has no token or is no label, or two requests contradict each other.
    """
    wanted: dict[str, str] = {}
    spaced = tuple(_spaced(face, item) for item in asked)
    for item in spaced:
        if item.subject and item.subject not in item.prompt:
            raise DataError(
                expected=f"the subject {item.subject!r} in its prompt",
                found=repr(item.prompt),
                remedy="Write the subject word for word as it stands in the prompt.",
            )
        earlier = wanted.setdefault(normalise(item.prompt), item.target)
        if normalise(earlier) != normalise(item.target):
            raise DataError(
                expected=f"one target for {item.prompt!r}",
                found=f"{earlier!r} and {item.target!r}",
                remedy="Leave one of the two out.",
            )
    face.tokenise([item.pair for item in spaced])
    return spaced


def _spaced(face: Face, item: Correction) -> Correction:
    """`prompt + target` is what a causal model reads; people leave the space between out."""
    if face.kind == "classifier":
        target = item.target.strip().lower()
        return replace(item, target=target if target in LABELS else item.target)
    if face.kind == "seq2seq" or item.prompt[-1:].isspace() or not item.target[:1].isalnum():
        return item
    return replace(item, target=f" {item.target}")


def _is_pair(asked: object) -> bool:
    return isinstance(asked, tuple) and len(asked) == 2 and all(isinstance(a, str) for a in asked)


def _lines(path: Path, text: str) -> list[tuple[str, Any]]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            rows.append((where, json.loads(line)))
        except json.JSONDecodeError as error:
            raise DataError(
                expected=f"a JSON object in {where}",
                found=f"{line[:60]!r} ({error})",
                remedy='Write one request on each line: {"prompt": "...", "target": "..."}.',
            ) from error
    return rows


def _one(asked: Any, where: str) -> Correction:
    if isinstance(asked, Correction):
        return asked
    if isinstance(asked, Request):
        return Correction(prompt=asked.prompt, target=asked.target, subject=asked.subject)
    if _is_pair(asked) or (isinstance(asked, list) and _is_pair(tuple(asked))):
        return Correction(prompt=asked[0], target=asked[1])
    if not isinstance(asked, Mapping):
        raise DataError(
            expected=f"a prompt and a target in {where}",
            found=repr(asked)[:80],
            remedy='Give a pair, a Correction, or {"prompt": ..., "target": ...}.',
        )
    named = {_OTHER_NAMES.get(str(key), str(key)): value for key, value in asked.items()}
    known = [item.name for item in fields(Correction)]
    for key in named:
        if key not in known:
            raise DataError(
                expected=f"a field of a request in {where}",
                found=repr(key),
                remedy=near_misses(key, known),
            )
    values = {
        key: _texts(value, key, where) if key in _LISTS else _text(value, key, where)
        for key, value in named.items()
    }
    for key in ("prompt", "target"):
        if not values.get(key, "").strip():
            raise DataError(
                expected=f"text in the field {key!r} of {where}",
                found=repr(values.get(key)),
                remedy="An edit needs a prompt and a target.",
            )
    return Correction(**values)


def _text(value: Any, key: str, where: str) -> Any:
    if isinstance(value, bool):  # JSON's true and false, for a classifier
        return str(value).lower()
    if isinstance(value, str):
        return value
    raise DataError(
        expected=f"text in the field {key!r} of {where}",
        found=repr(value)[:80],
        remedy="Put it in quotes.",
    )


def _texts(value: Any, key: str, where: str) -> Any:
    """A list of prompts; a text is cut at `|`, and of probes only the prompt counts."""
    parts = value.split("|") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        _text(value, key, where)
    prompts = [part["prompt"] if isinstance(part, Mapping) else part for part in parts]
    return tuple(_text(prompt, key, where).strip() for prompt in prompts)
