"""What a user wants said: corrections, from Python, from flags, or from a JSONL or CSV file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipeline.editable.asking import has_room
from pipeline.editable.rows import Row, csv_rows, json_rows
from pipeline.editable.texts import as_read, encodable, read_text
from pipeline.errors import DataError, near_misses
from pipeline.models import Face
from pipeline.records import Probe, Request, normalise

_OTHER_NAMES = {
    "target_new": "target",
    "answer": "target",
    "rephrase": "rephrases",
    "neighbour": "neighbours",
    "neighbor": "neighbours",
    "neighbors": "neighbours",
}
_LISTS = ("rephrases", "neighbours")
_ON_EACH_LINE = 'Write one request on each line: {"prompt": "...", "target": "..."}.'


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
        DataError: a field is unknown or missing, is there twice, or is not text.
    """
    several = isinstance(asked, Iterable) and not isinstance(asked, str | Mapping)
    items: Any = asked if several and not _is_pair(asked) else [asked]
    found = tuple(_one(item, f"request {number}") for number, item in enumerate(items, 1))
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
    text = read_text(path, "requests", "Give a JSONL or CSV file in UTF-8.")
    rows: list[Row] = (
        csv_rows(path, text, [item.name for item in fields(Correction)] + [*_OTHER_NAMES])
        if path.suffix.lower() == ".csv"
        else json_rows(path, text, _ON_EACH_LINE)
    )
    found = tuple(_one(row, where) for where, row in rows)
    if not found:
        raise DataError(
            expected=f"requests in {path}", found="none", remedy="Give one on each line."
        )
    return found


def checked(face: Face, asked: Sequence[Correction]) -> tuple[Correction, ...]:
    """Requests as this model reads them: a causal model's target begins with its space.

    Tokens begin with blanks and hardly end with them, so those at the end of a prompt go there too.

    Raises:
        DataError: a subject is not in its prompt, a pair is longer than the model's context, a
            target has no token or a special one or is no label, a prompt to look at is empty or
            leaves no room for an answer, or two requests contradict each other.
    """
    wanted: dict[str, str] = {}
    pairs = [as_read(face, *item.pair) for item in asked]
    found = tuple(replace(c, prompt=p, target=t) for c, (p, t) in zip(asked, pairs, strict=True))
    for item in found:
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
    face.tokenise([item.pair for item in found])
    for item in found:
        _refuse_special(face, item)
    for item in found:  # all are asked around the edit: before the first is made, not amid them
        for prompt in (item.prompt, *item.rephrases, *item.neighbours):
            _check_room(face, prompt)
    return found


def _refuse_special(face: Face, item: Correction) -> None:
    """Raises DataError for a mark of the tokenizer's own in a target: no answer shows it."""
    marks = [mark for mark in face.tokenizer.all_special_tokens if mark in item.target]
    if marks:
        raise DataError(
            expected="a target of words",
            found=f"{marks[0]!r} in {item.target!r}, a mark of the model's tokenizer",
            remedy="Leave it out: where an answer ends, the model learns by itself.",
        )


def _check_room(face: Face, prompt: str) -> None:
    taken = len(face.tokenizer(prompt)["input_ids"])
    if not prompt.strip() or not taken:
        raise DataError(
            expected="text in every prompt, rephrase and neighbour",
            found=repr(prompt),
            remedy="Write something, or leave it out.",
        )
    if not has_room(face, prompt):
        raise DataError(
            expected=f"room for an answer in the model's context of {face.context} tokens",
            found=f"{taken} tokens in {prompt[:60]!r} alone",
            remedy="Shorten this prompt, rephrase or neighbour, or use a model with a longer "
            "context.",
        )


def _is_pair(asked: object) -> bool:
    return isinstance(asked, tuple) and len(asked) == 2 and all(isinstance(a, str) for a in asked)


def _one(asked: Any, where: str) -> Correction:
    """Whatever form it comes in, its fields are looked at alike."""
    if isinstance(asked, Correction):
        asked = {item.name: getattr(asked, item.name) for item in fields(Correction)}
    elif isinstance(asked, Request):
        asked = {"prompt": asked.prompt, "target": asked.target, "subject": asked.subject}
    elif _is_pair(asked) or (isinstance(asked, list) and _is_pair(tuple(asked))):
        asked = {"prompt": asked[0], "target": asked[1]}
    elif not isinstance(asked, Mapping):
        raise DataError(
            expected=f"a prompt and a target in {where}",
            found=repr(asked)[:80],
            remedy='Give a pair, a Correction, or {"prompt": ..., "target": ...}.',
        )
    values = {
        key: _texts(value, key, where) if key in _LISTS else _text(value, key, where)
        for key, value in _named(asked, where).items()
    }
    for key in ("prompt", "target"):
        if not values.get(key, "").strip():
            raise DataError(
                expected=f"text in the field {key!r} of {where}",
                found=repr(values.get(key)),
                remedy="An edit needs a prompt and a target.",
            )
    values["subject"] = values.get("subject", "").strip()
    return Correction(**values)


def _named(asked: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """The fields under their own names, each once."""
    known = [item.name for item in fields(Correction)]
    named: dict[str, Any] = {}
    written: dict[str, str] = {}
    for key, value in asked.items():
        name = _OTHER_NAMES.get(str(key), str(key))
        if name not in known:
            raise DataError(
                expected=f"a field of a request in {where}",
                found=repr(key),
                remedy=near_misses(name, known),
            )
        if name in named:
            raise DataError(
                expected=f"one field for the {name} in {where}",
                found=f"{written[name]!r} and {str(key)!r}",
                remedy="They mean the same: leave one out.",
            )
        named[name], written[name] = value, str(key)
    return named


def _text(value: Any, key: str, where: str) -> Any:
    if isinstance(value, bool) and key == "target":  # JSON's true and false, for a classifier
        return str(value).lower()
    if isinstance(value, str):
        return encodable(value, f"the field {key!r} of {where}")
    raise DataError(
        expected=f"text in the field {key!r} of {where}",
        found=repr(value)[:80],
        remedy="Put it in quotes.",
    )


def _texts(value: Any, key: str, where: str) -> Any:
    """A list of prompts; a text is cut at `|`, of probes only the prompt counts, empty ones go."""
    if not isinstance(value, str | list | tuple):
        raise DataError(
            expected=f"a list of prompts in the field {key!r} of {where}",
            found=repr(value)[:80],
            remedy='Write ["...", "..."].',
        )
    parts = value.split("|") if isinstance(value, str) else value
    prompts = [_prompt(part) if isinstance(part, Mapping | Probe) else part for part in parts]
    texts = [_text(prompt, key, where).strip() for prompt in prompts]
    return tuple(text for text in texts if text)


def _prompt(probe: Mapping[str, Any] | Probe) -> Any:
    return probe.prompt if isinstance(probe, Probe) else probe.get("prompt", dict(probe))
