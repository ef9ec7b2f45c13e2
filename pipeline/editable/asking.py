"""What a model answers, in words: short, greedy, and never beyond its context."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.models import Face
from pipeline.models.face import SLACK

TOKENS = 10  # of an answer, unless the caller says


def answers(face: Face, prompts: Sequence[str], tokens: int | None = None) -> list[str]:
    """Greedy answers of `tokens` tokens, or as many as the context has room for.

    A causal model never stops by itself; others end where they end.

    Raises:
        DataError: a prompt leaves no room for an answer.
    """
    if not prompts:
        return []
    rooms = [_room(face, prompt, tokens or TOKENS) for prompt in prompts]
    if len(set(rooms)) == 1:
        written = face.write(list(prompts), rooms)
    else:  # in a batch the longest answer would have to fit after the longest prompt
        written = [face.write([p], [room])[0] for p, room in zip(prompts, rooms, strict=True)]
    return [item.opening if face.kind == "causal" else item.text for item in written]


def has_room(face: Face, prompt: str) -> bool:
    """Whether the context leaves room for an answer to this prompt."""
    taken = len(face.tokenizer(prompt)["input_ids"])
    return taken + (SLACK if face.kind == "causal" else 0) <= face.context


def _room(face: Face, prompt: str, tokens: int) -> int:
    if face.kind != "causal":
        return max(tokens, TOKENS)
    taken = len(face.tokenizer(prompt)["input_ids"])
    return max(1, min(tokens, face.context - taken - SLACK + 1))
