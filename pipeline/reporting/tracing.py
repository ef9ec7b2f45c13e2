"""Causal tracing: what each state is worth to the answer, as tables and heat maps.

Effects are differences of probability, as in the ROME paper: the total effect is what the noise
takes from the answer, the indirect effect of a state what putting it back gives. A fact counts with
the mean over its positions of one role; intervals draw facts again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline.bootstrap import Array, column_means, interval, resampled_means
from pipeline.reporting import columns, figures
from pipeline.reporting.blocks import DASH, Cell, Paragraph, Picture, Table, short
from pipeline.reporting.inputs import Material, TraceTables
from pipeline.reporting.lines import Line, Panel, panels
from pipeline.reporting.tables import title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROLES = {
    "subject_first": "first subject token",
    "subject_middle": "middle subject tokens",
    "subject_last": "last subject token",
    "further": "further tokens",
    "last": "last token",
}
MODES = {
    ("block", ""): "block's output",
    ("mlp", ""): "MLP outputs",
    ("attention", ""): "attention outputs",
    ("block", "mlp"): "block's output, MLPs severed",
    ("block", "attention"): "block's output, attentions severed",
}
_SHOWN = 3  # facts with a map of their own
_KEYS = ["restored", "severed", "layer", "role"]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A mean over facts with its interval."""

    value: float
    low: float
    high: float

    def cell(self, before: str = "") -> Cell:
        """As a table prints it."""
        ends = (columns.number(end, 3) for end in (self.low, self.high))
        detail = "" if np.isnan(self.low) else f"[{', '.join(ends)}]"
        return Cell(text=columns.number(self.value, 3), detail=f"{before} {detail}".strip())


def effects(found: TraceTables, seed: int) -> pd.DataFrame:
    """Average indirect effects: restored, severed, layer, role, effect, low, high, n (facts)."""
    corrupt = found.facts.set_index("id")["p_corrupt"]
    states = found.states.assign(effect=found.states["p"] - found.states["id"].map(corrupt))
    wide = states.pivot_table("effect", "id", _KEYS, aggfunc="mean").sort_index()
    x = wide.to_numpy(float)
    drawn = resampled_means(x, seed)
    rows = wide.columns.to_frame(index=False)
    ends = [interval(drawn[:, column]) for column in range(x.shape[1])]
    rows["effect"] = column_means(x)
    rows["low"], rows["high"] = zip(*ends, strict=True)
    rows["n"] = (~np.isnan(x)).sum(0)
    return rows


def totals(found: TraceTables, seed: int) -> dict[str, Effect]:
    """The answer's probability, clean and corrupted, and the average total effect."""
    facts = found.facts.sort_values("id")
    x = facts[["p_clean", "p_corrupt"]].to_numpy(float)
    x = np.column_stack([x, x[:, 0] - x[:, 1]])
    drawn, means = resampled_means(x, seed), column_means(x)
    names = ("clean", "corrupted", "total effect")
    return {name: _effect(means[i], drawn[:, i]) for i, name in enumerate(names)}


def _effect(value: float, drawn: Array) -> Effect:
    low, high = interval(drawn)
    return Effect(value=float(value), low=low, high=high)


def peak(found: pd.DataFrame, restored: str, severed: str, roles: Sequence[str]) -> pd.Series:
    """The strongest state of some roles: a row of `effects`."""
    own = found[(found["restored"] == restored) & (found["severed"] == severed)]
    own = own[own["role"].isin(roles)]
    return own.loc[own["effect"].idxmax()]


def table(found: pd.DataFrame, caption: str) -> Table:
    """For each kind of state and each role, the strongest block's effect."""
    roles = [role for role in ROLES if role in set(found["role"])]
    modes = [mode for mode in MODES if ((found["restored"] == mode[0])
                                        & (found["severed"] == mode[1])).any()]  # fmt: skip
    rows = []
    for mode in modes:
        best = [peak(found, *mode, [role]) for role in roles]
        cells = (
            Effect(value=row["effect"], low=row["low"], high=row["high"]).cell(
                f"block {row['layer']}"
            )
            for row in best
        )
        rows.append((Cell(text=MODES[mode]), *cells))
    return Table(
        header=("Put back", *(ROLES[role] for role in roles)),
        rows=tuple(rows),
        caption=caption,
        notes=(
            "The strongest block of each, and its average indirect effect in probability, with 95 "
            "% intervals over facts. Blocks count from 0. The last token of the last block is what "
            "the answer is read from: putting it back gives all of the total effect.",
        ),
    )


def layers(found: pd.DataFrame, settings: dict[str, str]) -> Table:
    """The blocks that tracing points to, beside those that editors' settings name."""
    rows = []
    for mode in (("mlp", ""), ("block", "")):
        row = peak(found, *mode, ["subject_last"])
        effect = Effect(value=row["effect"], low=row["low"], high=row["high"]).cell()
        name = f"tracing: {MODES[mode]} at the last subject token"
        rows.append((Cell(text=name), Cell(text=str(row["layer"]), detail=effect.text)))
    rows += [(Cell(text=f"settings of {alg}"), Cell(text=text)) for alg, text in settings.items()]
    return Table(
        header=("Where from", "Blocks"), rows=tuple(rows), look="facts",
        caption="Blocks that tracing points to, and blocks that are edited",
        notes=() if settings else (f"No editor of this record names a block: {DASH}",),
    )  # fmt: skip


def verdict(found: pd.DataFrame, blocks: int) -> str:
    """Whether the paper's finding is seen: an early site, the subject's last token half way up."""
    roles = [role for role in ROLES if role != "last"]
    best = peak(found, "block", "", roles)
    mlp = peak(found, "mlp", "", roles)
    where = f"{ROLES[best['role']]} at block {best['layer']} of {blocks}"
    size = f"{columns.number(best['effect'], 3)} [{columns.number(best['low'], 3)}, " \
           f"{columns.number(best['high'], 3)}]"  # fmt: skip
    middle = 0 < best["layer"] < blocks - 1
    tells = (
        f"Away from the last token the strongest state is the {where} (average indirect effect "
        f"{size}); of MLP outputs, the {ROLES[mlp['role']]} at block {mlp['layer']}"
        f" ({columns.number(mlp['effect'], 3)})."
    )
    if best["role"] == "subject_last" and best["low"] > 0 and middle:
        return f"Tracing finds the paper's early site in this model. {tells}"
    if best["role"] == "subject_last" and best["low"] > 0:
        end = "first" if best["layer"] == 0 else "last"
        return (
            "Tracing finds the subject's last token, as in the paper, but not in middle blocks: "
            f"the site is in the {end} block. {tells}"
        )
    return f"This model does not show the paper's early site at the subject's last token. {tells}"


def introduction(material: Material, bench: str) -> Paragraph:
    """How the facts were traced, and what the noise does to them."""
    found = material.traces[bench]
    notes, whole = found.notes, totals(found, material.request.seed)
    said = {name: effect.cell() for name, effect in whole.items()}
    return Paragraph(
        text=f"{title(bench)}: {len(found.facts):,} facts of {notes['known']:,} that the model "
        f"knows (its likeliest next token is the answer's first; {notes['asked']:,} asked). Noise "
        f"of {notes['noise']:g} standard deviations ({notes['sigma']:.3g}) on the subject's "
        f"embeddings, {notes['draws']} draws; windows of {notes['window']} blocks for MLP and "
        f"attention outputs. The answer's probability is {said['clean'].text} clean and "
        f"{said['corrupted'].text} corrupted: an average total effect of "
        f"{said['total effect'].text} {said['total effect'].detail}. "
        f"{verdict(effects(found, material.request.seed), notes['layers'])}"
    )


def average_map(bench: str, found: pd.DataFrame) -> Picture:
    """Average indirect effects by role and block, a panel for each kind of state."""
    roles = [role for role in ROLES if role in set(found["role"])]
    modes = [("block", ""), ("mlp", ""), ("attention", "")]

    def draw(figure: Figure) -> None:
        places = figure.subplots(len(modes), 1, sharex=True)
        for axes, mode in zip(places, modes, strict=True):
            own = found[(found["restored"] == mode[0]) & (found["severed"] == mode[1])]
            grid = own.pivot_table("effect", "role", "layer").reindex(roles)
            words = [ROLES[role] for role in roles]
            _map(figure, axes, grid.to_numpy(float), words, f"{MODES[mode]} put back")
        places[-1].set_xlabel("Block (the window's centre, for MLP and attention)")

    caption = (
        f"{title(bench)}: average indirect effect (difference of the answer's probability) of "
        "putting back clean states, by the token's role and the block."
    )
    return figures.picture(f"tracing-{bench}", draw, caption, (5.2, 6.2))


def severed_lines(bench: str, found: pd.DataFrame) -> Picture | None:
    """The last subject token's block output against the block, whole and severed."""
    own = found[(found["restored"] == "block") & (found["role"] == "subject_last")]
    if own["severed"].nunique() < 2:
        return None
    names = {"": "nothing severed", "mlp": "MLPs severed", "attention": "attentions severed"}
    drawn = tuple(
        Line(
            name=name, x=rows["layer"], y=rows["effect"], low=rows["low"], high=rows["high"]
        )
        for cut, name in names.items()
        for rows in [own[own["severed"] == cut].sort_values("layer")]
    )  # fmt: skip
    caption = (
        f"{title(bench)}: the last subject token's block output put back, with the position's MLPs "
        "or attentions held as in the corrupted run; bands are 95 % intervals over facts. What "
        "severing takes away went through what was severed."
    )
    panel = Panel(label="Indirect effect", lines=drawn)
    order = list(names.values())
    return panels(f"tracing-severed-{bench}", [panel], "Block", caption, order, whole=True)


def fact_maps(bench: str, found: TraceTables) -> list[Picture]:
    """Maps of single facts: those with middling total effects, token by token."""
    effect = found.facts["p_clean"] - found.facts["p_corrupt"]
    order = found.facts.assign(effect=effect).sort_values(["effect", "id"])
    start = max(0, (len(order) - _SHOWN) // 2)
    chosen = order.iloc[start : start + _SHOWN].to_dict("records")
    return [_fact_map(bench, i, fact, found.states) for i, fact in enumerate(chosen)]


def _fact_map(bench: str, number: int, fact: dict[Any, Any], states: pd.DataFrame) -> Picture:
    own = states[(states["id"] == fact["id"]) & (states["restored"] == "block")]
    own = own[own["severed"] == ""]
    grid = own.pivot_table("p", "position", "layer")
    marked = own.drop_duplicates("position").set_index("position").loc[grid.index]
    words = [
        ("* " if str(role).startswith("subject") else "") + short(str(token), 18)
        for token, role in zip(marked["token"], marked["role"], strict=True)
    ]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        _map(figure, axes, grid.to_numpy(float), words, "", "Probability of the answer")
        axes.set_xlabel("Block whose output is put back")

    caption = (
        f"{short(fact['prompt'], 70, keep_end=True)}: probability of its answer "
        f"“{short(fact['answer'], 20)}” with one block's output put back at one token (* subject). "
        f"Clean {fact['p_clean']:.2f}, corrupted {fact['p_corrupt']:.2f}."
    )
    size = (4.6, 0.9 + 0.26 * len(words))
    return figures.picture(f"tracing-{bench}-fact-{number + 1}", draw, caption, size)


def _map(
    figure: Figure,
    axes: Axes,
    grid: Array,
    words: Sequence[str],
    heading: str,
    unit: str = "Indirect effect",
) -> None:
    """Rows of words over blocks, coloured by value, with the numbers where there is room."""
    blocks = grid.shape[1]
    mesh = axes.pcolormesh(np.ma.masked_invalid(grid), cmap="viridis", lw=0)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_yticks(np.arange(len(words)) + 0.5, list(words))
    step = max(1, blocks // 12)
    axes.set_xticks(np.arange(0, blocks, step) + 0.5, [str(i) for i in range(0, blocks, step)])
    if heading:
        axes.set_title(heading[0].upper() + heading[1:], fontsize=9, loc="left")
    figure.colorbar(mesh, ax=axes, label=unit, pad=0.02)
    if blocks <= 8:
        half = (np.nanmin(grid) + np.nanmax(grid)) / 2
        for (row, column), value in np.ndenumerate(grid):
            if np.isfinite(value):
                axes.text(
                    column + 0.5, row + 0.5, columns.number(value, 2), ha="center", va="center",
                    fontsize=7.5, color="#fefefe" if value < half else "#101010",
                )  # fmt: skip
