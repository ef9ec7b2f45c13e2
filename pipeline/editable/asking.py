"""What a model answers, in words: short, greedy, and never beyond its context."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.editable.given import prompts_of, tokens_of
from pipeline.editable.texts import as_read
from pipeline.models import Face
from pipeline.models.face import SLACK

TOKENS = 10  # of an answer, unless the caller says
_ROWS = 64  # prompts answered at once


def answers(face: Face, prompts: Iterable[str], tokens: int | None = None) -> list[str]:
    """Greedy answers of at most `tokens` tokens, or as many as the context has room for.

    A causal model never stops by itself; others end where they end, or a few tokens later than
    they are told. Blanks at the end of its prompt are left for its answer to begin with.

    Raises:
        DataError: a prompt is no text, or leaves no room for an answer.
        SettingsError: tokens are no whole number above 0.
    """
    prompts = [as_read(face, prompt, "")[0] for prompt in prompts_of(prompts)]
    wanted = tokens_of(tokens, TOKENS)
    if not prompts:
        return []
    rooms = [_room(face, prompt, wanted) for prompt in prompts]
    if len(set(rooms)) == 1:
        parts = range(0, len(prompts), _ROWS)
        written = [
            item for i in parts for item in face.write(prompts[i : i + _ROWS], rooms[i : i + _ROWS])
        ]
    else:  # in a batch the longest answer would have to fit after the longest prompt
        written = [face.write([p], [room])[0] for p, room in zip(prompts, rooms, strict=True)]
    return [item.opening if face.kind == "causal" else item.text for item in written]


def has_room(face: Face, prompt: str) -> bool:
    """Whether the context leaves room for an answer to this prompt."""
    taken = len(face.tokenizer(prompt)["input_ids"])
    return taken + (SLACK if face.kind == "causal" else 0) <= face.context


def _room(face: Face, prompt: str, wanted: int) -> int:
    if face.kind != "causal":
        return wanted
    taken = len(face.tokenizer(prompt)["input_ids"])
    return max(1, min(wanted, face.context - taken - SLACK + 1))
