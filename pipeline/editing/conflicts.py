"""Edits made together that contradict each other (MEMIT, appendix: conflicting requests).

Two do when they ask one prompt, or one subject and relation, for different targets. No weights can
satisfy both, and half of each would be written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pipeline.errors import EditorError
from pipeline.records import Request, normalise

Conflicts = Literal["refuse", "keep_first", "keep_last"]


def kept(requests: Sequence[Request], k: int, how: Conflicts) -> list[bool]:
    """Which edits are made, when every k consecutive ones are made together.

    Args:
        requests: edits, a multiple of k.
        k: how many go together.
        how: what happens to edits that contradict each other.

    Raises:
        EditorError: some do, and `how` is "refuse".
    """
    keep = [True] * len(requests)
    for start in range(0, len(requests), k):
        group = range(start, start + k)
        order = group if how == "keep_first" else reversed(group)
        taken: dict[tuple[str, ...], int] = {}
        for number in order:
            request = requests[number]
            rival = next(
                (
                    taken[fact]
                    for fact in _facts(request)
                    if fact in taken and requests[taken[fact]].target != request.target
                ),
                None,
            )
            if rival is None:
                taken |= {fact: number for fact in _facts(request) if fact not in taken}
                continue
            if how == "refuse":
                raise _refused(request, requests[rival])
            keep[number] = False
    return keep


def _facts(request: Request) -> Iterator[tuple[str, ...]]:
    yield (normalise(request.prompt),)
    if request.subject and request.relation:
        yield normalise(request.subject), request.relation


def _refused(one: Request, two: Request) -> EditorError:
    return EditorError(
        expected="edits made at once to agree with each other",
        found=f"{one.prompt!r} ->{one.target!r} and {two.prompt!r} ->{two.target!r}",
        remedy="Drop one of them, or set the editor's `conflicts` to keep_first or keep_last.",
    )
