"""Outcome rows to numbers: every metric of the papers under its own name, with its interval.

A metric is a function of the means of a few per-case columns, so that drawing cases again gives an
interval for every one of them, harmonic means and perplexities included. No torch here: tables in,
numbers out.

Sources: the MEND paper, Eq. 1 and the averages of its code (exact match of the whole target under
teacher forcing; perplexities weighted by tokens); the CounterFact scores of the ROME paper as its
code computes them (a tie fails; S from unrounded means).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.bootstrap import Array, column_means, interval, resampled_means
from pipeline.errors import DataError
from pipeline.percase import Column, before_edits, groups, original_as_before, per_case

Numbers = dict[str, float | None]
Summary = dict[str, Numbers]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Columns, and how their means become one number. `benches`: where it is defined, or all."""

    columns: tuple[Column, ...]
    combine: Callable[..., Array]
    benches: tuple[str, ...] = ()


def _same(mean: Array) -> Array:
    return mean


def _fall(before: Array, after: Array) -> Array:
    return before - after


def _perplexity(loss: Array, tokens: Array) -> Array:
    with np.errstate(over="ignore"):  # a destroyed model: infinity is the honest number
        return np.asarray(np.exp(loss / tokens))


def _perplexity_rise(before: Array, after: Array, tokens: Array) -> Array:
    return _perplexity(after, tokens) - _perplexity(before, tokens)


def _harmonic(*means: Array) -> Array:
    """Harmonic mean; 0 where any part is 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(len(means) / (1.0 / np.stack(means)).sum(axis=0))


def _mean(measure: str, *probes: str, first: bool = False) -> Metric:
    return Metric(
        columns=(Column(measure=measure, probes=probes, first=first),),
        combine=_same,
        benches=("counterfact",) if measure.endswith(("wins", "margin")) else (),
    )


def _drawdown(probe: str, reference: str = "pre_") -> Metric:
    """Right answers lost: share exact before minus share exact after."""
    before = Column(measure="tf_exact", probes=(probe,), prefix=reference)
    after = Column(measure="tf_exact", probes=(probe,))
    return Metric(columns=(before, after), combine=_fall)


def _passages(measure: str, prefix: str = "") -> Column:
    return Column(measure=measure, probes=("unrelated",), prefix=prefix, passages=True)


def _perplexity_drawdown(reference: str = "pre_") -> Metric:
    """Perplexity gained on whole passages; both models are weighted by the same tokens."""
    before, after = _passages("nll_true", reference), _passages("nll_true")
    return Metric(columns=(before, after, _passages("n_tokens")), combine=_perplexity_rise)


_CF_SCORES = {
    "ES": _mean("new_wins", "edit"),
    "PS": _mean("new_wins", "rephrase"),
    "NS": _mean("true_wins", "neighbour"),
}

_FRACTIONS = {  # zsRE as the ROME and MEMIT papers score language models: tokens, not whole targets
    "token_accuracy_edit": _mean("tf_token_acc", "edit"),
    "token_accuracy_rephrase": _mean("tf_token_acc", "rephrase"),
    "token_accuracy_unrelated": _mean("tf_token_acc", "unrelated"),
}

METRICS: Mapping[str, Metric] = {
    "edit_success_rephrase": _mean("tf_exact", "rephrase", first=True),
    "edit_success_eq1": _mean("tf_exact", "edit", "rephrase"),
    "edit_success_edit": _mean("tf_exact", "edit"),
    "generality_all_rephrases": _mean("tf_exact", "rephrase"),
    "generation_success_edit": _mean("gen_exact", "edit"),
    "generation_success_rephrase": _mean("gen_exact", "rephrase"),
    "generation_contains_edit": _mean("gen_contains", "edit"),
    "generation_contains_rephrase": _mean("gen_contains", "rephrase"),
    **_FRACTIONS,
    "token_accuracy_score": Metric(
        columns=tuple(column for part in _FRACTIONS.values() for column in part.columns),
        combine=_harmonic,
    ),
    "implied_success": _mean("tf_exact", "implied"),
    "accuracy_unrelated": _mean("tf_exact", "unrelated"),
    "accuracy_neighbour": _mean("tf_exact", "neighbour"),
    "accuracy_hard_neighbour": _mean("tf_exact", "hard_neighbour"),
    "accuracy_drawdown": _drawdown("unrelated"),
    "accuracy_drawdown_original": _drawdown("unrelated", "orig_"),
    "neighbour_drawdown": _drawdown("neighbour"),
    "hard_neighbour_drawdown": _drawdown("hard_neighbour"),
    "perplexity_unrelated": Metric(
        columns=(_passages("nll_true"), _passages("n_tokens")), combine=_perplexity
    ),
    "perplexity_drawdown": _perplexity_drawdown(),
    "perplexity_drawdown_original": _perplexity_drawdown("orig_"),
    "agreement_unrelated": _mean("argmax_agree", "unrelated"),
    "agreement_neighbour": _mean("argmax_agree", "neighbour"),
    "agreement_hard_neighbour": _mean("argmax_agree", "hard_neighbour"),
    "kl_unrelated": _mean("kl", "unrelated"),
    **_CF_SCORES,
    "EM": _mean("new_margin", "edit"),
    "PM": _mean("new_margin", "rephrase"),
    "NM": _mean("true_margin", "neighbour"),
    "S": Metric(
        columns=tuple(column for score in _CF_SCORES.values() for column in score.columns),
        combine=_harmonic,
        benches=("counterfact",),
    ),
    "GE": _mean("gen_entropy", "generation"),
    "RS": _mean("gen_reference", "generation"),
}


def summarise(outcomes: pd.DataFrame, timings: pd.DataFrame, seed: int = 0) -> Summary:
    """Every metric that these outcomes allow: {"value", "low", "high", "n"} each.

    `low` and `high` are the 95 % percentile bootstrap over cases, `n` the cases measured: of a
    metric made of several means, the fewest that any is over. Cases edited together are drawn
    together; what only one of their groups has measured has no interval. A metric whose
    probes the benchmark lacks is left out. Costs (seconds, steps, memory) have no interval: their
    `low` and `high` are None. A value can be infinite: see `plain`.

    Raises:
        DataError: no rows, or rows of several editors or protocols in one table.
    """
    _check_one_run(outcomes)
    summary = _summary(outcomes, seed)
    broken = outcomes.groupby("case_id")["collapsed"].any().to_numpy(float)
    low, high = interval(resampled_means(broken[:, None], seed, groups(outcomes))[:, 0])
    share = float(broken.mean())
    summary["collapsed"] = {"value": share, "low": low, "high": high, "n": len(broken)}
    return summary | costs(timings)


def unedited(outcomes: pd.DataFrame, seed: int = 0) -> Summary:
    """The same metrics of the model before any edit, from the `pre_*` columns of the same rows.

    Of an editor that changed the model beforehand: the model from before that, from `orig_*`.
    """
    _check_one_run(outcomes)
    if measured_original(outcomes):
        outcomes = original_as_before(outcomes)
    return _summary(before_edits(outcomes).assign(k=1), seed)


def measured_original(outcomes: pd.DataFrame) -> bool:
    """Whether the editor changed the model before it edited: the original was measured as well."""
    names = [name for name in outcomes if str(name).startswith("orig_")]
    return bool(outcomes[names].notna().any(axis=None))


def compare(a: pd.DataFrame, b: pd.DataFrame, metric: str, seed: int = 0) -> Numbers:
    """The paired difference a - b of one metric over the cases that both were measured on.

    Both are drawn again together, so what makes a case hard for both cancels out; each by its own
    groups of edits where these are not the same. An infinite difference of infinities is NaN.

    Returns:
        {"difference", "low", "high", "n"}.

    Raises:
        DataError: no case in common, or a case id that stands for two different edits.
    """
    _check_same_edits(a, b)
    ids_a, x_a = per_case(a, METRICS[metric].columns)
    ids_b, x_b = per_case(b, METRICS[metric].columns)
    _, at_a, at_b = np.intersect1d(ids_a, ids_b, return_indices=True)
    missing = np.isnan(x_a[at_a]) | np.isnan(x_b[at_b])
    if missing.all(axis=0).any():  # also where no id is shared at all
        raise DataError(
            expected=f"cases that both editors were measured on for {metric}",
            found=f"{len(at_a)} case ids in common, and none measured in both",
            remedy="Compare runs over one benchmark and one case list.",
        )
    both = np.hstack([np.where(missing, np.nan, x) for x in (x_a[at_a], x_b[at_b])])
    means = np.vstack([column_means(both), _drawn(both, seed, groups(a)[at_a], groups(b)[at_b])])
    combine, width = METRICS[metric].combine, x_a.shape[1]
    with np.errstate(invalid="ignore"):
        values = combine(*means[:, :width].T) - combine(*means[:, width:].T)
    # Without a difference there is no interval either, though some draws may have one.
    low, high = interval(values[1:] if np.isfinite(values[0]) else values[:1])
    n = int((~missing).sum(axis=0).min())
    return {"difference": float(values[0]), "low": low, "high": high, "n": n}


def _drawn(both: Array, seed: int, group_a: NDArray[np.int64], group_b: NDArray[np.int64]) -> Array:
    """Means of resamplings of two runs' columns side by side: paired where their groups agree."""
    pairs = len(np.unique(np.stack([group_a, group_b]), axis=1).T)
    if pairs == len(np.unique(group_a)) == len(np.unique(group_b)):
        return resampled_means(both, seed, group_a)
    a, b = np.hsplit(both, 2)
    return np.hstack([resampled_means(a, seed, group_a), resampled_means(b, seed + 1, group_b)])


def plain(summary: Mapping[str, Mapping[str, float | None]]) -> Summary:
    """The same for strict JSON, which has no infinity: None in its place."""
    return {
        name: {
            key: None if number is None or not np.isfinite(number) else number
            for key, number in numbers.items()
        }
        for name, numbers in summary.items()
    }


def _summary(outcomes: pd.DataFrame, seed: int) -> Summary:
    bench = outcomes["bench"].iloc[0]
    metrics = {n: m for n, m in METRICS.items() if not m.benches or bench in m.benches}
    columns = tuple(dict.fromkeys(c for m in metrics.values() for c in m.columns))
    _, x = per_case(outcomes, columns)
    means = np.vstack([column_means(x), resampled_means(x, seed, groups(outcomes))])
    summary: Summary = {}
    for name, metric in metrics.items():
        at = [columns.index(column) for column in metric.columns]
        if np.isnan(x[:, at]).all(axis=0).any():
            continue
        values = metric.combine(*means[:, at].T)
        low, high = interval(values[1:])
        n = int((~np.isnan(x[:, at])).sum(axis=0).min())
        summary[name] = {"value": float(values[0]), "low": low, "high": high, "n": n}
    return summary


def costs(timings: pd.DataFrame) -> Summary:
    """What the edits cost, over all shards: a property of the machine, so without interval."""
    edits = timings["n_cases"].to_numpy(float)
    total = float(edits.sum())
    if not total:
        return {}
    costs = {
        "seconds_per_edit": float(timings["edit_seconds"].sum()) / total,
        "scoring_seconds_per_edit": float(timings["score_seconds"].sum()) / total,
        "stopped_early": float((timings["stopped_early"] * edits).sum(skipna=False)) / total,
        "steps_mean": float((timings["steps_mean"] * edits).sum(skipna=False)) / total,
        "peak_rss_mb": float(timings["peak_rss_mb"].max()),
    }
    return {
        name: {"value": value, "low": None, "high": None, "n": int(total)}
        for name, value in costs.items()
        if not np.isnan(value)  # an editor that takes no steps has none to count
    }


def _check_one_run(outcomes: pd.DataFrame) -> None:
    keys = [key for key in ("bench", "alg", "variant", "study", "protocol", "k") if key in outcomes]
    runs = outcomes[keys].drop_duplicates()
    if len(runs) == 1:
        return
    raise DataError(
        expected="outcome rows of one benchmark, one editor and one protocol",
        found=f"{len(runs)} different ones in {len(outcomes)} rows",
        remedy="Summarise each run's own outcomes.parquet.",
    )


def _check_same_edits(a: pd.DataFrame, b: pd.DataFrame) -> None:
    columns = ["case_id", "prompt", "target"]
    edits = [frame.loc[frame["probe"] == "edit", columns] for frame in (a, b)]
    both = edits[0].merge(edits[1], on="case_id", suffixes=("", "_b"))
    same = (both["prompt"] == both["prompt_b"]) & (both["target"] == both["target_b"])
    differ = both["case_id"][~same].tolist()
    if differ:
        raise DataError(
            expected="the same edit under the same case id in both runs",
            found=f"{len(differ)} ids with different edits, {differ[0]!r} the first",
            remedy="The runs were scored on different case lists: run dvc repro.",
        )
