"""How each metric is called, printed and explained. Order here is order in the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.reporting.blocks import DASH, INFINITY, MINUS, Cell


@dataclass(frozen=True, kw_only=True)
class Column:
    """One metric as a column.

    Attributes:
        label: the column's head, protocol included.
        meaning: one sentence for the reader who has not seen the metric before.
        better: "higher" or "lower".
        scale: what the stored value is multiplied by (100 for percentages).
        decimals: digits after the point.
    """

    label: str
    meaning: str
    better: str = "higher"
    scale: float = 1.0
    decimals: int = 3


def _score(label: str, meaning: str) -> Column:
    return Column(label=label, meaning=meaning, scale=100.0, decimals=1)


def _cost(label: str, meaning: str, decimals: int = 3) -> Column:
    return Column(label=label, meaning=meaning, better="lower", decimals=decimals)


_FORCED = "every token of the target is the likeliest one, given the target's tokens before it"

MAIN: Mapping[str, Column] = {
    "edit_success_rephrase": Column(
        label="Success, rephrasing",
        meaning=f"Edit success as MEND's code measures it: on one other wording, {_FORCED}.",
    ),
    "edit_success_eq1": Column(
        label="Success, Eq. 1",
        meaning="Edit success as MEND's Eq. 1 has it: the same, averaged over the edit's own "
        "wording and all others.",
    ),
    "generation_success_rephrase": Column(
        label="Generated, rephrasing",
        meaning="On all other wordings the model, writing freely and greedily, writes exactly the "
        "target: stricter than success on the same wordings, which hands it each token's past.",
    ),
    "accuracy_drawdown": _cost(
        "Drawdown, accuracy",
        "Share of unrelated questions answered exactly before the edit, minus the share after.",
    ),
    "perplexity_drawdown": _cost(
        "Drawdown, perplexity",
        "Perplexity on unrelated passages after the edit minus before, weighted by tokens.",
    ),
    "neighbour_drawdown": _cost(
        "Drawdown, neighbours",
        "Exact answers lost on other subjects with the edited relation.",
    ),
    "hard_neighbour_drawdown": _cost(
        "Drawdown, hard neighbours",
        "Exact answers lost on other facts of the edited subject, and on subjects close by name.",
    ),
    "implied_success": Column(
        label="Implied facts", meaning="Facts that must follow from the edit are right as well."
    ),
    "seconds_per_edit": _cost(
        "Seconds per edit",
        "Wall clock of making the edits, scoring aside, over their number: many are made side by "
        "side (`evaluate.cases`), so one alone takes longer.",
    ),
}
MORE: Mapping[str, Column] = {
    "edit_success_edit": Column(
        label="Success, own wording", meaning="Edit success on the edit's own wording alone."
    ),
    "generality_all_rephrases": Column(
        label="Success, all rephrasings",
        meaning="Edit success over every other wording there is.",
    ),
    "generation_success_edit": Column(
        label="Generated, own wording",
        meaning="Writing freely, the model writes exactly the target on the edit's own wording.",
    ),
    "accuracy_drawdown_original": _cost(
        "Drawdown from original, accuracy",
        "Accuracy drawdown against the model from before the editor changed its weights.",
    ),
    "perplexity_drawdown_original": _cost(
        "Drawdown from original, perplexity",
        "Perplexity drawdown against the model from before the editor changed its weights.",
    ),
    "agreement_unrelated": Column(
        label="Agreement, unrelated",
        meaning="Share of target positions where the likeliest token is still the unedited one.",
    ),
    "agreement_neighbour": Column(
        label="Agreement, neighbours", meaning="The same on the neighbours."
    ),
    "agreement_hard_neighbour": Column(
        label="Agreement, hard neighbours", meaning="The same on the hard neighbours."
    ),
    "kl_unrelated": _cost(
        "KL, unrelated", "Divergence of the edited from the unedited model, nats per token.", 4
    ),
}
SCORES: Mapping[str, Column] = {
    "S": _score("S", "Harmonic mean of ES, PS and NS, in percent."),
    "ES": _score("ES", "The new target is likelier than the true one after the edit's prompt."),
    "PS": _score("PS", "The same after paraphrases."),
    "NS": _score("NS", "The true target is still likelier after neighbouring subjects' prompts."),
    "EM": _score("EM", "By how much: probability of the new target minus that of the true one."),
    "PM": _score("PM", "The same after paraphrases."),
    "NM": _score("NM", "Probability of the true target minus that of the new one, neighbours."),
    "GE": _score(
        "GE",
        "Generation entropy, in bits times 100 (no percentage): weighted entropies of the 2-grams "
        "and 3-grams of free texts about the subject, prompt included. An edit that makes the "
        "model repeat itself lowers it.",
    ),
    "RS": _score(
        "RS",
        "Reference score, cosine times 100: likeness (of TF-IDF vectors) of those texts to texts "
        "about others that the new target is true of.",
    ),
}
OTHER: Mapping[str, Column] = {
    "token_accuracy_score": _score("Score", "Harmonic mean of the next three."),
    "token_accuracy_edit": _score("Efficacy, tokens", "Share of the target's tokens right."),
    "token_accuracy_rephrase": _score("Paraphrase, tokens", "The same on paraphrases."),
    "token_accuracy_unrelated": _score(
        "Specificity, tokens",
        "Share of the true answer's tokens right on unrelated questions: no agreement with the "
        "unedited model, which may be wrong there.",
    ),
}
# zsRE of a language model: the papers' token shares, then what they leave out.
_STRICT = ("agreement_unrelated", "generation_success_edit", "generation_success_rephrase")
ZSRE: Mapping[str, Column] = {**OTHER, **{name: MORE.get(name) or MAIN[name] for name in _STRICT}}

ALL: Mapping[str, Column] = {**MAIN, **MORE, **SCORES, **OTHER}
README = (
    "edit_success_rephrase",
    "edit_success_eq1",
    "generation_success_rephrase",
    "accuracy_drawdown",
    "perplexity_drawdown",
    "neighbour_drawdown",
    "S",
    "seconds_per_edit",
)


def number(value: float, decimals: int = 3) -> str:
    """A number as it is printed; one that rounds to nothing without being it is "<0.001"."""
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return INFINITY if value > 0 else MINUS + INFINITY
    if abs(value) < 1000:  # as a CSV holds it, so that a tie is rounded alike from either
        value = float(f"{value:.6g}")
    size = abs(value)
    if size >= 1e7:
        text = f"{size:.1e}".replace("e+0", "e").replace("e+", "e")
    else:  # four digits are all that a large number needs
        text = f"{size:,.{0 if size >= 1000 else min(decimals, 1) if size >= 100 else decimals}f}"
    if value > 0 and not float(text.replace(",", "")):
        return f"<{10.0**-decimals:.{decimals}f}"
    return MINUS + text if value < 0 and float(text.replace(",", "")) else text


def value_cell(column: Column, value: float, low: float, high: float) -> Cell:
    """A metric's value with its interval; NaN where it was not measured or has no interval."""
    ends = [number(end * column.scale, column.decimals) for end in (low, high)]
    detail = "" if math.isnan(low) or math.isnan(high) else f"[{ends[0]}, {ends[1]}]"
    return Cell(text=number(value * column.scale, column.decimals), detail=detail)
