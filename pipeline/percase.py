"""Outcome rows to one number per case: the layer between the table and the metrics.

The unedited model's measures are `pre_*`; those of the model from before an editor changed its
weights are `orig_*`. A row counts where the edited or the unedited model was measured; a counted
row that is NaN or collapsed takes the worst value that its measure has, so that a broken model is
never dropped from an average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.bootstrap import Array

# What a row can be measured by, and the worst that a broken model can score.
WORST = {
    "tf_exact": 0.0,
    "tf_token_acc": 0.0,
    "gen_exact": 0.0,
    "gen_contains": 0.0,
    "gen_entropy": 0.0,
    "gen_reference": 0.0,
    "argmax_agree": 0.0,
    "new_wins": 0.0,  # the new target is likelier than the true one; a tie fails
    "true_wins": 0.0,
    "new_margin": -1.0,  # p(new) - p(true), geometric means over tokens
    "true_margin": -1.0,
    "kl": np.inf,
    "nll_true": np.inf,
}
# A passage is one probe of thousands of tokens: right or wrong says nothing about it, while
# agreement, divergence and loss, which go token by token, do.
_TOKEN_BY_TOKEN = ("argmax_agree", "kl")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A measure over each case's probes of some kinds: their mean, or for passages their sum.

    `prefix` says which model ("" edited, "pre_" unedited, "orig_" original). `first` keeps only
    probe number 0. `passages` takes whole passages (empty prompt), where `nll_true` is the total
    loss in nats and `n_tokens` its weight; without it they are left to `_TOKEN_BY_TOKEN`.
    """

    measure: str
    probes: tuple[str, ...]
    prefix: str = ""
    first: bool = False
    passages: bool = False


def per_case(outcomes: pd.DataFrame, columns: Sequence[Column]) -> tuple[NDArray[np.str_], Array]:
    """Case ids in order, and cases x columns; NaN where a case has no probe for a column."""
    codes, ids = pd.factorize(outcomes["case_id"], sort=True)
    probe, index = outcomes["probe"].to_numpy(), outcomes["index"].to_numpy()
    passage = (outcomes["prompt"] == "").to_numpy(bool)
    x = np.full((len(ids), len(columns)), np.nan)
    for j, column in enumerate(columns):
        values = _values(outcomes, column)
        keep = np.isin(probe, column.probes) & ~np.isnan(values)
        if column.measure not in _TOKEN_BY_TOKEN:
            keep &= passage == column.passages
        if column.first:
            keep &= index == 0
        counts = np.bincount(codes[keep], minlength=len(ids))
        sums = np.bincount(codes[keep], weights=values[keep], minlength=len(ids))
        scale = np.ones(len(ids)) if column.passages else np.maximum(counts, 1)
        x[:, j] = np.where(counts > 0, sums / scale, np.nan)
    return np.asarray(ids, dtype=str), x


def before_edits(outcomes: pd.DataFrame) -> pd.DataFrame:
    """The same rows as if the unedited model had been scored: `pre_*` in place of the measures.

    What compares with the original of a trained model goes: this is a model, and no editor.
    """
    measured = {name: name[4:] for name in outcomes if name.startswith("pre_")}
    after = [
        name
        for name in outcomes
        if name in measured.values() or name in _TOKEN_BY_TOKEN or name.startswith("orig_")
    ]
    return outcomes.drop(columns=after).rename(columns=measured).assign(collapsed=False)


def original_as_before(outcomes: pd.DataFrame) -> pd.DataFrame:
    """The same rows as if the edits had been made on the original model: `orig_*` as `pre_*`."""
    before = [name for name in outcomes if name.startswith("pre_")]
    unknown = pd.Series(np.nan, index=outcomes.index)  # the original did not write freely
    return outcomes.assign(**{name: outcomes.get(f"orig_{name[4:]}", unknown) for name in before})


def groups(outcomes: pd.DataFrame) -> NDArray[np.int64]:
    """The group of edits that each case was made in, cases in the order of `per_case`.

    Protocols edit consecutive cases together, and rows keep the order of cases.
    """
    ids = outcomes["case_id"].drop_duplicates().to_numpy(str)
    k = int(outcomes["k"].iloc[0]) if "k" in outcomes else 1
    number = np.arange(len(ids)) // k
    return np.asarray(number[np.argsort(ids)] if k > 1 else number, dtype=np.int64)


def _values(outcomes: pd.DataFrame, column: Column) -> Array:
    """A measure of every row: NaN where it does not apply, the worst value where it broke."""
    name = column.measure
    if name == "n_tokens":
        measured = _applies(outcomes, "nll_true")
        return np.where(measured, _number(outcomes, name), np.nan)
    values = _stored(outcomes, name, column.prefix)
    if column.prefix == "":
        broken = np.isnan(values) | outcomes["collapsed"].to_numpy(bool)
        values = np.where(_applies(outcomes, name) & broken, WORST[name], values)
    return values * _number(outcomes, "n_tokens") if column.passages else values


def _applies(outcomes: pd.DataFrame, name: str) -> NDArray[np.bool_]:
    edited, unedited = (_stored(outcomes, name, prefix) for prefix in ("", "pre_"))
    return ~(np.isnan(edited) & np.isnan(unedited))


def _stored(outcomes: pd.DataFrame, name: str, prefix: str) -> Array:
    """A measure of every row as the table has it, or worked out from the two losses."""
    if name not in ("new_wins", "true_wins", "new_margin", "true_margin"):
        return _number(outcomes, prefix + name)
    new, true = (_number(outcomes, f"{prefix}{loss}") for loss in ("nll_new", "nll_true"))
    if name.startswith("true"):
        new, true = true, new
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.exp(-new) - np.exp(-true) if name.endswith("margin") else true > new
    return np.where(np.isnan(new) | np.isnan(true), np.nan, values)


def _number(outcomes: pd.DataFrame, name: str) -> Array:
    if name not in outcomes:
        return np.full(len(outcomes), np.nan)
    return np.asarray(pd.to_numeric(outcomes[name]).to_numpy(float, na_value=np.nan))
