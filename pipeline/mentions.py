"""Where a text mentions a subject, in characters and in tokens.

Positions are found by character offsets of the whole text tokenised once: parts tokenised apart
merge otherwise, and begin tokens shift them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.errors import DataError


def last_character(text: str, subject: str) -> int:
    """Where the last character of a subject stands: of its last mention, as a whole word if any.

    Raises:
        DataError: the text does not mention it.
    """
    places = [found.start() for found in re.finditer(rf"(?<!\w){re.escape(subject)}(?!\w)", text)]
    start = places[-1] if places else text.rfind(subject)
    if start < 0 or not subject:
        raise DataError(
            expected=f"the subject {subject!r} in the prompt",
            found=repr(text[-80:]),
            remedy="Give each edit the subject as its prompt spells it.",
        )
    return start + len(subject) - 1


def token_of(offsets: Sequence[tuple[int, int]], character: int) -> int:
    """The last token that covers a character; several do where a character has many bytes.

    Raises:
        DataError: none does; some tokenizers give blanks to no token.
    """
    places = [i for i, (start, end) in enumerate(offsets) if start <= character < end]
    if not places:
        raise DataError(
            expected=f"a token of the model's that covers character {character}, a subject's last",
            found=f"tokens at {list(offsets)}"[:80],
            remedy="Let the subject end in a letter, not in a blank.",
        )
    return places[-1]


def tokens_of(prompt: str, subject: str, offsets: Sequence[tuple[int, int]]) -> range:
    """The tokens that the subject's last mention lies in, by their characters.

    Raises:
        DataError: the prompt does not name the subject.
    """
    end = last_character(prompt, subject) + 1
    start = end - len(subject)
    inside = [i for i, (a, b) in enumerate(offsets) if a < end and b > max(a, start)]
    return range(inside[0], inside[-1] + 1)
