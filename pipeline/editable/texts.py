"""What a model is given to read: text that can be read at all, in lines, with spaces where due."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import DataError

if TYPE_CHECKING:
    from pipeline.models import Face

# Scripts without spaces between words that are not as wide as Chinese and Japanese, by the
# beginnings of their characters' names.
_UNSPACED = (
    "THAI ",
    "LAO ",
    "KHMER ",
    "MYANMAR ",
    "TIBETAN ",
    "TAI ",
    "NEW TAI LUE ",
    "JAVANESE ",
    "BALINESE ",
    "HALFWIDTH KATAKANA",
)


def encodable(text: str, where: str) -> str:
    """The text as it is.

    Raises:
        DataError: it holds half of a surrogate pair, which no tokenizer and no file takes.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            expected=f"text that UTF-8 can hold in {where}",
            found=f"{ascii(text)[:80]} (half of a surrogate pair, or bytes that are no text)",
            remedy="Write the character itself, or give the text in UTF-8.",
        ) from error
    return text


def read_text(path: Path, what: str, remedy: str) -> str:
    """A file in UTF-8, with its own line ends; a mark of byte order is no part of it.

    Raises:
        DataError: it is missing or of another encoding.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(expected=f"{what} in {path}", found=str(error), remedy=remedy) from error


def lines(text: str) -> list[tuple[int, str]]:
    """Lines that hold something, with their numbers.

    Only a line feed ends one: `splitlines` cuts at U+2028 and others, which stand inside texts.
    """
    cut = ((number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1))
    return [(number, line) for number, line in cut if line.strip()]


def spaced(face: Face, prompt: str, target: str) -> str:
    """A target as this model reads it after the prompt.

    `prompt + target` is what a causal model reads, and people leave the space between them out. Of
    a classifier it is the label, however it was written.
    """
    if face.labels:
        label = target.strip().lower()
        return label if label in face.labels else target
    if face.kind != "causal" or prompt[-1:].isspace() or not target[:1].isalnum():
        return target
    if _without_spaces(prompt[-1:]) or _without_spaces(target[:1]):
        return target
    return f" {target}"


def _without_spaces(character: str) -> bool:
    """Whether a character's script writes words without spaces between them.

    Wide characters are Chinese, Japanese and their punctuation; Hangul has spaces, and emoji
    (symbols) stand among words of any script.
    """
    if not character:
        return False
    name = unicodedata.name(character, "")
    wide = unicodedata.east_asian_width(character) in ("W", "F")
    if wide and unicodedata.category(character) != "So" and not name.startswith("HANGUL"):
        return True
    return name.startswith(_UNSPACED)
