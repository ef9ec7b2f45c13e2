"""What a model answers, in words: short, greedy, and never beyond its context."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.editable.texts import as_read, encodable
from pipeline.errors import DataError, SettingsError
from pipeline.models import Face
from pipeline.models.face import SLACK

TOKENS = 10  # of an answer, unless the caller says


def answers(face: Face, prompts: Sequence[str], tokens: int | None = None) -> list[str]:
    """Greedy answers of at most `tokens` tokens, or as many as the context has room for.

    A causal model never stops by itself; others end where they end, or a few tokens later than
    they are told. Blanks at the end of its prompt are left for its answer to begin with.

    Raises:
        DataError: a prompt is no text, or leaves no room for an answer.
        SettingsError: fewer tokens than one.
    """
    for prompt in prompts:
        _refuse_no_text(prompt)
    prompts = [as_read(face, prompt, "")[0] for prompt in prompts]
    if tokens is not None and tokens < 1:
        raise SettingsError(
            expected="answers of at least one token", found=str(tokens), remedy="Ask for more."
        )
    if not prompts:
        return []
    rooms = [_room(face, prompt, tokens) for prompt in prompts]
    if len(set(rooms)) == 1:
        written = face.write(list(prompts), rooms)
    else:  # in a batch the longest answer would have to fit after the longest prompt
        written = [face.write([p], [room])[0] for p, room in zip(prompts, rooms, strict=True)]
    return [item.opening if face.kind == "causal" else item.text for item in written]


def has_room(face: Face, prompt: str) -> bool:
    """Whether the context leaves room for an answer to this prompt."""
    taken = len(face.tokenizer(prompt)["input_ids"])
    return taken + (SLACK if face.kind == "causal" else 0) <= face.context


def _room(face: Face, prompt: str, tokens: int | None) -> int:
    wanted = TOKENS if tokens is None else tokens
    if face.kind != "causal":
        return wanted
    taken = len(face.tokenizer(prompt)["input_ids"])
    return max(1, min(wanted, face.context - taken - SLACK + 1))


def _refuse_no_text(prompt: object) -> None:
    """Raises DataError for what no tokenizer can read."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise DataError(
            expected="a prompt of some text", found=repr(prompt)[:80], remedy="Ask something."
        )
    encodable(prompt, "a prompt")
