"""What an edit is to its user: what was asked, what the model says, what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.editable.corrections import Correction
from pipeline.editable.guard import Health, as_dict, of_dict
from pipeline.errors import DataError

Kind = Literal["edit", "rephrase", "neighbour", "asked"]
_NOT_KEPT = ("number", "time", "overridden", "overrode")


def says(answer: str, wanted: str, *, ends: bool) -> bool:
    """Whether an answer is what was wanted, or begins so where the model writes on (causal)."""
    answer, wanted = answer.strip(), wanted.strip()
    return answer == wanted if ends else answer.startswith(wanted)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model says to a prompt, before and after.

    Attributes:
        kind: the edit's own prompt, a rephrase, a neighbour, or a prompt just asked.
        wanted: what it should say now; "" where nothing is wanted but that it stays.
        ends: the model ends its answers itself: more than what is wanted is not what is wanted.
    """

    kind: Kind
    prompt: str
    before: str
    after: str
    wanted: str = ""
    ends: bool = False

    @property
    def changed(self) -> bool:
        """Whether the answer is another one."""
        return self.before != self.after

    @property
    def right(self) -> bool | None:
        """Whether the answer is as wanted, or stayed where it should; None: nobody said."""
        if self.kind in ("edit", "rephrase"):
            return says(self.after, self.wanted, ends=self.ends)
        return not self.changed if self.kind == "neighbour" else None


@dataclass(frozen=True, kw_only=True)
class Edit:
    """An edit that was made.

    Attributes:
        number: by which it is undone.
        time: when, in UTC.
        alg, settings, editor: which editor, with which settings; the hash of what it had learned.
        corrections: what it was to achieve: one correction, or several that were made together.
        answers: to its prompts, just before and just after; where one call made several edits, what
            it was to achieve is of the call's end.
        health: of the probe set with all edits in force; None where no guard watched.
        steps: optimisation steps.
        seconds: that it took to make, without looking at it.
        overridden: it said what it should, until a later edit of the same call was made.
        overrode: of a call's last edit: numbers of earlier edits that held before the call, and do
            no more. Neither is kept in the journal, which says what an edit did when it was made.
    """

    number: int
    time: str
    alg: str
    settings: Mapping[str, Any]
    editor: str
    corrections: tuple[Correction, ...]
    answers: tuple[Answer, ...]
    health: Health | None
    steps: int
    seconds: float
    overridden: bool = False
    overrode: tuple[int, ...] = ()

    @property
    def right(self) -> bool:
        """Whether the model says what was asked for, to the very prompts of the edit."""
        return all(answer.right for answer in self.answers if answer.kind == "edit")

    def record(self) -> dict[str, Any]:
        """Plain values for a journal, without number and time, which the journal gives.

        Nor is there what became of it by the end of its call.
        """
        plain = asdict(self) | {"kind": "edit", "health": self.health and as_dict(self.health)}
        return {key: value for key, value in plain.items() if key not in _NOT_KEPT}


def of_record(record: Mapping[str, Any]) -> Edit:
    """An edit out of a journal. Raises DataError where what it holds is none."""
    try:
        return _of_record(record)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            expected=f"an edit in record {record.get('number')} of the journal",
            found=str(error).strip(),
            remedy="The file was changed: restore it from a backup.",
        ) from error


def _of_record(record: Mapping[str, Any]) -> Edit:
    return Edit(
        number=record["number"],
        time=record["time"],
        alg=record["alg"],
        settings=record["settings"],
        editor=record["editor"],
        corrections=tuple(_correction(item) for item in record["corrections"]),
        answers=tuple(Answer(**item) for item in record["answers"]),
        health=of_dict(record["health"]) if record["health"] else None,
        steps=record["steps"],
        seconds=record["seconds"],
    )


def questions(asked: Sequence[Correction]) -> list[tuple[Kind, str, str]]:
    """All that is looked at around an edit: kind, prompt, and what is wanted."""
    found: list[tuple[Kind, str, str]] = []
    for item in asked:
        found.append(("edit", item.prompt, item.target))
        found += [("rephrase", prompt, item.target) for prompt in item.rephrases]
        found += [("neighbour", prompt, "") for prompt in item.neighbours]
    return found


def _correction(plain: Mapping[str, Any]) -> Correction:
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()
    }
    return Correction(**values)
