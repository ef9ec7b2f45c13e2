"""What a report is made of, before it is Markdown or HTML.

Both forms are written from the same blocks, so they cannot disagree. Every text is plain text and
escaped by the writers; backticks in paragraphs and notes mark code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Look = Literal["numbers", "facts", "texts"]
MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"  # stands where a number does not apply; the reason is in the notes
INFINITY = "\N{INFINITY}"
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A section's title. `key` is its anchor on the page."""

    text: str
    key: str
    level: int = 2


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Words and what they mean."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A value, and in smaller type what qualifies it: an interval, a unit, a source."""

    text: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under named columns; the first column names the row.

    `look` sets numbers right; facts (short words and numbers) left; texts left, each under its
    column's name where the page is narrow.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    notes: tuple[str, ...] = ()
    look: Look = "numbers"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure: a whole SVG document, and the name of its file without the ending."""

    name: str
    svg: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Figures that stand side by side where there is room."""

    pictures: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True)
class Folded:
    """Blocks that few readers need at once: closed until asked for."""

    summary: str
    blocks: tuple[Table | Paragraph | Terms, ...]


Block = Heading | Paragraph | Terms | Table | Gallery | Folded


@dataclass(frozen=True, kw_only=True)
class Document:
    """A title, a line under it, and the blocks in order."""

    title: str
    subtitle: str
    blocks: tuple[Block, ...]


def short(text: str, limit: int = 90, *, keep_end: bool = False) -> str:
    """Text on one line within a limit. `keep_end` drops the start, as suits a long prompt."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) <= limit:
        return line
    if keep_end:
        return ELLIPSIS + line[-(limit - 1) :].lstrip()
    return line[: limit - 1].rstrip() + ELLIPSIS


def spans(text: str) -> list[tuple[str, bool]]:
    """Running text cut at its backticks: pieces, and whether each is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # an odd backtick marks nothing
        return [(text, False)]
    return [(part, i % 2 == 1) for i, part in enumerate(parts) if part]
