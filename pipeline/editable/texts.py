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
_OPENING, _CURRENCY = ("Ps", "Pi"), "Sc"  # categories of brackets and quotes, of signs as in $5
_QUOTES, _JOINING = "\"'`", "-/\\@_"


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
        raise DataError(
            expected=f"{what} in {path}", found=str(error).strip(), remedy=remedy
        ) from error


def lines(text: str) -> list[tuple[int, str]]:
    """Lines that hold something, with their numbers.

    Only a line feed ends one: `splitlines` cuts at U+2028 and others, which stand inside texts.
    """
    cut = ((number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1))
    return [(number, line) for number, line in cut if line.strip()]


def as_read(face: Face, prompt: str, target: str) -> tuple[str, str]:
    """Prompt and target as this model reads them.

    `prompt + target` is what a causal model reads, and people leave the space between them out, or
    write it at the end of the prompt, where no token has it. Of a classifier the target is the
    label, however it was written.
    """
    if face.labels:
        label = target.strip().lower()
        return prompt, label if label in face.labels else target
    bare = prompt.rstrip(" ")
    if face.kind != "causal" or not bare:
        return prompt, target
    if not target:
        return bare, ""
    if bare == prompt and _apart(prompt, target):
        return prompt, f" {target}"
    return bare, prompt[len(bare) :] + target


def _apart(prompt: str, target: str) -> bool:
    """Whether a space belongs between two texts that are written without one."""
    before, last, first = prompt[-2:-1], prompt[-1:], target[:1]
    if last.isspace() or _without_spaces(last) or _without_spaces(first):
        return False
    if unicodedata.category(last or " ") in (*_OPENING, _CURRENCY):
        return False
    if last in _QUOTES and (not before.strip() or unicodedata.category(before) in _OPENING):
        return False
    if last in _JOINING and before.isalnum():
        return False
    return first.isalnum() or unicodedata.category(first or " ") == _CURRENCY


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
