"""What is in force on a model, and what was done to it: in memory, and in a journal if any."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any

import torch
import transformers

from pipeline.editable.asking import answers
from pipeline.editable.failures import JournalError
from pipeline.editable.force import in_force, not_in_force
from pipeline.editable.given import numbers_of
from pipeline.editable.journal import Journal, Record
from pipeline.editable.stored import load_edit, save_edit
from pipeline.editing.patch import Intervention
from pipeline.errors import EditorError
from pipeline.models import Face
from pipeline.stack import Stack, moved

Adapt = Callable[[Record], Face]


class State:
    """Edits in force by number, and the model that they are made on.

    Numbers above 0 are the journal's. Edits below 0 are temporary: nothing is written of them.

    Args:
        face: the untouched model.
        adapt: gives the model that the editor of a record trained (ENN), when edits are taken up.
    """

    def __init__(self, face: Face, journal: Journal | None, adapt: Adapt) -> None:
        self.face, self.disk, self._adapt = face, journal, adapt
        self.stack = Stack()
        self.faces: dict[str, Face] = {"": face}  # by the editor that trained another
        self.on: dict[int, str] = {}  # which of them an edit is made on
        self._lent = False
        self.written: set[int] = set()  # records of our own, not another process's
        self.records: list[Record] = []
        self.follow()

    @property
    def current(self) -> Face:
        """The model that edits in force are made on; with none, the untouched one."""
        return self.faces[next(iter(self.on.values()), "")]

    @property
    def numbers(self) -> list[int]:
        """Edits in force that are not temporary, oldest first."""
        return [number for number in self.stack.numbers() if number > 0]

    @contextmanager
    def applied(self, without: Collection[int] = ()) -> Iterator[Face]:
        """The current model, answering as edited inside, or as it would without some edits."""
        face = self.current
        if self._lent:  # it does already
            yield face
            return
        stack = self.stack.without(without) if without else self.stack
        with stack.applied(face.model):
            yield face

    def on_top(self, face: Face) -> AbstractContextManager[None]:
        """What is computed on `face` inside builds on the weights as edited so far."""
        return self.stack.beneath(face.model)

    @contextmanager
    def lent(self) -> Iterator[Face]:
        """`applied`, for a caller's own use; what needs the untouched model must wait."""
        with self.applied() as face:
            before, self._lent = self._lent, True
            try:
                yield face
            finally:
                self._lent = before

    def refuse_lent(self) -> None:
        """Raises EditorError inside `lent`: there the model is not the untouched one."""
        if self._lent:
            raise EditorError(
                expected="the `with model.edited():` block to be over",
                found="a call inside of it that needs the untouched model",
                remedy="Leave the block first; inside, ask what it gives, or `model.ask`.",
            )

    def refuse_temporary(self) -> None:
        """Raises EditorError while temporary edits are in force: what lasts would stand on them."""
        if any(number < 0 for number in self.stack.numbers()):
            raise EditorError(
                expected="the `with model.temporarily(...)` block to be over",
                found="a lasting edit inside of it, made and judged on what will be gone",
                remedy="Leave the block first; inside, edits are temporary too.",
            )

    def answers(self, prompts: Sequence[str], tokens: int | None = None) -> list[str]:
        """What the edited model answers."""
        with self.applied() as face:
            return answers(face, prompts, tokens)

    def put(self, number: int, on: str, edit: Intervention) -> None:
        """Put an edit in force."""
        self.stack.put(number, edit)
        self.on[number] = on

    def drop(self, number: int) -> None:
        """Take an edit out of force."""
        self.stack.take(number)
        del self.on[number]

    def temporary(self) -> int:
        """A number for an edit that is not written down, or not yet."""
        return min([0, *self.stack.numbers()]) - 1

    def refuse_other_base(self, on: str, alg: str) -> None:
        """Raises EditorError where edits in force are made on another model than this editor's."""
        if self.on and on not in self.on.values():
            raise EditorError(
                expected="all edits in force to be made on one model",
                found=f"{alg}, which does not edit the model of edits "
                f"{', '.join(map(str, self.stack.numbers()))}",
                remedy="Undo those first, or use another editor.",
            )

    def write(self, record: Record, edit: Intervention | None = None) -> Record:
        """Write a record down, whole or not at all; returns it with its number and time.

        Raises:
            ChangedError: an edit was made on others than those in force by now; see `follow`.
        """
        if self.disk is None:
            last = max((item["number"] for item in self.records), default=0)
            record = record | {"number": last + 1, "time": now()}
        else:
            save = None if edit is None else (lambda path: save_edit(edit, path))
            known = self.records if record["kind"] == "edit" else None  # what it was made on
            record = self.disk.append(record, save, known)
        self.records.append(record)
        self.written.add(record["number"])
        return record

    def undo(self, numbers: Sequence[int]) -> None:
        """Take edits back. Raises JournalError where one is not in force; then none is."""
        numbers = numbers_of(numbers)
        self.follow()
        for number in numbers:
            if number not in self.numbers:
                known = any(r["number"] == number and r["kind"] == "edit" for r in self.records)
                raise not_in_force(number, self.numbers, known=known)
        try:
            if numbers:
                self.write({"kind": "undo", "of": sorted(set(numbers))})
        except JournalError:
            self.follow()  # another process was first
            raise
        for number in set(numbers):
            self.drop(number)

    def follow(self) -> None:
        """Drop what other processes have undone since, and take up the edits that they made.

        All or nothing; and nothing inside `lent`, where the model is in its caller's hands.

        Raises:
            DataError: a record or a patch is broken.
            JournalError: the editor that an edit was made with is gone, or not what it was.
        """
        if self.disk is None or self._lent:
            return
        known = {record["number"]: record for record in self.records}
        numbers = self.disk.numbers()
        if numbers == list(known):
            return
        records = [known.get(number) or self.disk.record(number) for number in numbers]
        active = set(in_force(records))
        new = {
            record["number"]: self._load(record)
            for record in records
            if record["number"] in active and record["number"] not in self.stack
        }
        for number in set(self.numbers) - active:
            self.drop(number)
        for number, (on, edit) in new.items():
            self.put(number, on, edit)
        self.records = records

    def _load(self, record: Record) -> tuple[str, Intervention]:
        """An edit of the journal, and the model that it is made on."""
        assert self.disk is not None
        number, on = record["number"], record["on"]
        if on not in self.faces:
            self.faces[on] = self._adapt(record)
        edit, _ = load_edit(self.disk.patch(number))
        return on, moved(edit, self.face.device)


def versions() -> dict[str, Any]:
    """What ran, for the record."""
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
