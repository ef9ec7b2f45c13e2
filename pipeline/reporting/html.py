"""A document as one self-contained page: style and figures inside, nothing fetched, no script.

On a narrow screen a table of numbers scrolls in its own frame, its first column staying in view, so
that editors can still be compared down a column; every other table becomes a list of rows, each
value beside its column's name.
"""

from __future__ import annotations

from html import escape

from pipeline.reporting import figures
from pipeline.reporting.blocks import (
    Block,
    Cell,
    Document,
    Folded,
    Gallery,
    Heading,
    Paragraph,
    Picture,
    Table,
    Terms,
    spans,
)
from pipeline.reporting.style import CSS

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(document: Document) -> str:
    """The whole page."""
    body = "\n".join(block(item) for item in document.blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(document.title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(document.title)}</h1><p>{prose(document.subtitle)}</p></header>\n"
        f"{_contents(document)}\n{body}\n</main>\n</body>\n</html>\n"
    )


def block(item: Block) -> str:
    """One block."""
    match item:
        case Heading():
            name = f"h{item.level}"
            return f'<{name} id="{escape(item.key)}">{escape(item.text)}</{name}>'
        case Paragraph():
            return f"<p>{prose(item.text)}</p>"
        case Terms():
            rows = (f"<dt>{escape(word)}</dt><dd>{prose(text)}</dd>" for word, text in item.items)
            return f"<dl>{''.join(rows)}</dl>"
        case Table():
            return table(item)
        case Gallery():
            return f'<div class="gallery">{"".join(map(_figure, item.pictures))}</div>'
        case Folded():
            inner = "\n".join(block(inside) for inside in item.blocks)
            return f"<details><summary>{escape(item.summary)}</summary>\n{inner}\n</details>"


def table(item: Table) -> str:
    """A table with its caption, and its notes below."""
    caption = f"<caption>{escape(item.caption)}</caption>" if item.caption else ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in item.header)
    rows = "\n".join(f"<tr>{_row(item.header, row)}</tr>" for row in item.rows)
    notes = "".join(f"<li>{prose(note)}</li>" for note in item.notes)
    return (
        f'<div class="frame" tabindex="0"><table class="{item.look}">{caption}\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
        + (f'\n<ul class="notes">{notes}</ul>' if notes else "")
    )


def prose(text: str) -> str:
    """Running text: escaped, with its `code` set as code."""
    return "".join(
        f"<code>{escape(part)}</code>" if is_code else escape(part) for part, is_code in spans(text)
    )


def _row(header: tuple[str, ...], row: tuple[Cell, ...]) -> str:
    first, *rest = row
    cells = [f'<th scope="row">{_cell(first)}</th>']
    cells += [
        f'<td data-label="{escape(name)}"><span>{_cell(cell)}</span></td>'
        for name, cell in zip(header[1:], rest, strict=True)
    ]
    return "".join(cells)


def _cell(cell: Cell) -> str:
    detail = f"<small>{escape(cell.detail)}</small>" if cell.detail else ""
    return escape(cell.text) + detail


def _figure(picture: Picture) -> str:
    caption = escape(picture.caption)
    svg = figures.inline(picture).replace("<svg", f'<svg role="img" aria-label="{caption}"', 1)
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _contents(document: Document) -> str:
    headings = [item for item in document.blocks if isinstance(item, Heading) and item.level == 2]
    links = (f'<a href="#{escape(item.key)}">{escape(item.text)}</a>' for item in headings)
    return f'<nav aria-label="Contents">{" ".join(links)}</nav>'
