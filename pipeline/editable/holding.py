"""What holds at the end of a call: a later edit may override an earlier one, and nobody is told.

Earlier edits are read with their targets given, all in a few passes. Only those that fail this are
asked freely, with the call's edits and without them: what failed before is not this call's doing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from pipeline import measures
from pipeline.editable.asking import answers
from pipeline.editable.state import State
from pipeline.editable.work import Answer, Edit, says
from pipeline.models import Face

_ROWS = 32  # prompts read at once

Pair = tuple[str, str]
_T = TypeVar("_T")


def at_the_end(state: State, made: Sequence[Edit]) -> tuple[Edit, ...]:
    """A call's edits with the answers that they get now, and what they overrode.

    Args:
        made: those of one call, all of them in force; nothing was made after the last.
    """
    now = [*_asked_again(state, made[:-1]), made[-1]]
    found = [
        replace(edit, overridden=before.right and not edit.right)
        for before, edit in zip(made, now, strict=True)
    ]
    numbers = [edit.number for edit in made]
    return (*found[:-1], replace(found[-1], overrode=_overrode(state, numbers)))


def _asked_again(state: State, made: Sequence[Edit]) -> list[Edit]:
    """Prompts and rephrases, in as many tokens as before; neighbours are about their edit alone."""
    places: dict[int, list[tuple[int, int]]] = {}  # by tokens: the edit, and which of its answers
    for number, edit in enumerate(made):
        encoded = state.face.tokenise([item.pair for item in edit.corrections])
        tokens = max(len(item.labels) for item in encoded)
        places.setdefault(tokens, []).extend(
            (number, place) for place, answer in enumerate(edit.answers) if answer.wanted
        )
    found: list[list[Answer]] = [list(edit.answers) for edit in made]
    for tokens, some in places.items():
        prompts = [made[number].answers[place].prompt for number, place in some]
        said = [text for part in _parts(prompts) for text in state.answers(part, tokens)]
        for (number, place), text in zip(some, said, strict=True):
            found[number][place] = replace(found[number][place], after=text)
    return [replace(edit, answers=tuple(new)) for edit, new in zip(made, found, strict=True)]


def _overrode(state: State, made: Collection[int]) -> tuple[int, ...]:
    """Edits in force from before that held without those that were made, and hold no more."""
    records = {record["number"]: record for record in state.records}
    pairs: list[tuple[int, Pair]] = [
        (number, (item["prompt"], item["target"]))
        for number in state.numbers
        if number not in made
        for item in records[number]["corrections"]
    ]
    with state.applied() as face:
        right = _read(face, [pair for _, pair in pairs])
        doubted = [item for item, well in zip(pairs, right, strict=True) if not well]
        lost = _lacking(face, doubted)
    if not lost:
        return ()
    with state.applied(without=made) as face:
        never = _lacking(face, lost)
    return tuple(sorted({number for number, _ in lost} - {number for number, _ in never}))


@torch.no_grad()
def _read(face: Face, pairs: Sequence[Pair]) -> list[bool]:
    """Whether each token of a target is the likeliest where those before it are given."""
    found: list[bool] = []
    for part in _parts(pairs):
        batch = face.encode(part)
        found += (measures.exact(face.logits(batch), batch) == 1).tolist()
    return found


def _lacking(face: Face, asked: Sequence[tuple[int, Pair]]) -> list[tuple[int, Pair]]:
    """Those whose answer is not the target, as `Answer.right` has it."""
    found = []
    for number, (prompt, target) in asked:
        tokens = len(face.tokenise([(prompt, target)])[0].labels)
        (said,) = answers(face, [prompt], tokens)
        if not says(said, target, ends=face.kind != "causal"):
            found.append((number, (prompt, target)))
    return found


def _parts(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _ROWS):
        yield items[start : start + _ROWS]
