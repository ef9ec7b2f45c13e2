"""What a model answers, in words: short, greedy, and never beyond its context."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.models import Face
from pipeline.models.face import SLACK

TOKENS = 10  # of an answer, unless the caller says


def answers(face: Face, prompts: Sequence[str], tokens: int | None = None) -> list[str]:
    """Greedy answers of about `tokens` tokens: a causal model never stops by itself.

    With `tokens` None an answer is as long as the model's context allows, at most `TOKENS`.

    Raises:
        DataError: a prompt, or a prompt with an answer of the asked length, exceeds the context.
    """
    if not prompts:
        return []
    rooms = [_room(face, prompt, tokens) for prompt in prompts]
    if len(set(rooms)) == 1:
        written = face.write(list(prompts), rooms)
    else:  # in a batch the longest answer would have to fit after the longest prompt
        written = [face.write([p], [room])[0] for p, room in zip(prompts, rooms, strict=True)]
    # A causal model is heard for as long as was asked; others end where they end.
    return [item.opening if face.kind == "causal" else item.text for item in written]


def _room(face: Face, prompt: str, tokens: int | None) -> int:
    if tokens is not None or face.kind != "causal":
        return tokens or TOKENS
    taken = len(face.tokenizer(prompt)["input_ids"])
    return max(1, min(TOKENS, face.context - taken - SLACK + 1))
