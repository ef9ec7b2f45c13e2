"""A document as GitHub-flavoured Markdown."""

from __future__ import annotations

import re

from pipeline.reporting.blocks import (
    Block,
    Cell,
    Document,
    Folded,
    Gallery,
    Heading,
    Paragraph,
    Table,
    Terms,
    spans,
)

_SPECIAL = re.compile(r"([\\`*_<>|#~]|(?<=\])\(|(?<=!)\[)")  # brackets only where they link


def render(document: Document) -> str:
    """The whole document. Figures are linked as files under `figures/`."""
    parts = [f"# {escape(document.title)}", prose(document.subtitle)]
    parts += [block(item) for item in document.blocks]
    return "\n\n".join(parts) + "\n"


def block(item: Block) -> str:
    """One block."""
    match item:
        case Heading():
            return f"{'#' * item.level} {escape(item.text)}"
        case Paragraph():
            return prose(item.text)
        case Terms():
            return "\n".join(f"- **{escape(word)}.** {prose(text)}" for word, text in item.items)
        case Table():
            return table(item)
        case Gallery():
            return "\n\n".join(
                f"![{escape(picture.caption)}](figures/{picture.name}.svg)\n\n"
                f"*{escape(picture.caption)}*"
                for picture in item.pictures
            )
        case Folded():
            inner = "\n\n".join(block(inside) for inside in item.blocks)
            return f"<details><summary>{escape(item.summary)}</summary>\n\n{inner}\n\n</details>"


def table(item: Table) -> str:
    """A pipe table under its caption, with its notes below."""
    align = ["---", *(["---:" if item.look == "numbers" else "---"] * (len(item.header) - 1))]
    lines = [_row([escape(head) for head in item.header]), _row(align)]
    lines += [_row([_cell(cell) for cell in row]) for row in item.rows]
    parts = [f"**{escape(item.caption)}**"] if item.caption else []
    parts.append("\n".join(lines))
    if item.notes:
        parts.append("\n".join(f"- {prose(note)}" for note in item.notes))
    return "\n\n".join(parts)


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def prose(text: str) -> str:
    """Running text: escaped but for its `code`."""
    return "".join(
        f"`{part}`" if is_code else _SPECIAL.sub(r"\\\1", part) for part, is_code in spans(text)
    )


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    return f"{text} {escape(cell.detail)}" if cell.detail else text


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
