"""How far the second moments that ROME and MEMIT read have settled: change against tokens."""

from __future__ import annotations

import re

import pandas as pd

from pipeline.reporting import columns
from pipeline.reporting.blocks import DASH, Cell, Picture, Table
from pipeline.reporting.lines import Line, Panel, panels
from pipeline.reporting.tables import title


def table(bench: str, curve: pd.DataFrame) -> Table:
    """A row for each number of tokens, a column for each block.

    Args:
        curve: site, tokens, since, change (‖C - C'‖ / ‖C‖, Frobenius, C' at `since` tokens).
    """
    since = curve.drop_duplicates("tokens").set_index("tokens")["since"]
    sites = list(dict.fromkeys(curve["site"]))
    at = curve.set_index(["tokens", "site"])["change"]
    rows = []
    for tokens in sorted(curve["tokens"].unique()):
        found = (at.get((tokens, site)) for site in sites)
        cells = (Cell(text=DASH if x is None else columns.number(float(x), 3)) for x in found)
        rows.append((Cell(text=f"{tokens:,}"), Cell(text=f"{since[tokens]:,}"), *cells))
    return Table(
        header=("Tokens read", "Since", *(f"{name(site)} (↓)" for site in sites)),
        rows=tuple(rows),
        caption=f"{title(bench)}: change of the second moments as more is read",
        notes=(
            "C = E[k kᵀ] over the text that the base model was taught; the change is "
            "‖C - C'‖ / ‖C‖ (Frobenius), where C' was taken after the tokens in the second column: "
            "about half as many, but for the last row, where the text ends.",
        ),
    )


def picture(bench: str, curve: pd.DataFrame) -> Picture | None:
    """The same, a line for each block."""
    ticks = sorted(curve["tokens"].unique())
    if len(ticks) < 2:
        return None
    sites = list(dict.fromkeys(curve["site"]))
    drawn = Panel(
        label="Relative change",
        lines=tuple(
            Line(name=name(site), x=own["tokens"], y=own["change"])
            for site, own in curve.groupby("site", sort=False)
        ),
    )
    caption = (
        f"{title(bench)}: how much the second moments of each block's keys changed since the look "
        "before, against the tokens read (logarithmic)."
    )
    order = [name(site) for site in sites]
    return panels(f"moments-{bench}", [drawn], "Tokens read", caption, order, ticks=ticks)


def name(site: str) -> str:
    """The block of a site, in words."""
    number = re.search(r"\.(\d+)\.", site)
    return f"block {number[1]}" if number else site
