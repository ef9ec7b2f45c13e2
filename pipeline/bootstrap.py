"""Means over cases, and how far they move when the cases are drawn again.

The percentile bootstrap: draw as many cases as there are, with replacement, many times; the middle
95 % of the means is the interval. Draws are counts, so every column of numbers is resampled by one
matrix product, and columns resampled together stay paired.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

REPLICATES = 2000  # 50 draws lie beyond each end of a 95 % interval
TAILS = (0.025, 0.975)
_CELLS = 4_000_000  # counts held at once: 32 MB


def column_means(x: Array) -> Array:
    """Mean of each column over its cases; NaN marks a case that lacks the column."""
    return _means(np.ones((1, len(x))), x).reshape(-1)


def resampled_means(x: Array, seed: int, groups: NDArray[np.int64] | None = None) -> Array:
    """`REPLICATES` x columns: the means of every resampling. Same seed and cases, same draws.

    Args:
        groups: for each case, the group that it is drawn with: whole groups are drawn again, since
            cases that share a model vary together. A column that one group alone has, or a single
            case, says nothing of how it varies: NaN.
    """
    if groups is None:
        groups = np.arange(len(x))
    names, group_C = np.unique(groups, return_inverse=True)
    means = np.vstack([_means(counts[:, group_C], x) for counts in _draws(len(names), seed)])
    held = [len(np.unique(group_C[~np.isnan(column)])) for column in x.T]
    means[:, np.array(held) < 2] = np.nan
    return means


def interval(values: Array) -> tuple[float, float]:
    """The ends of the middle 95 % of some draws; of those with a number, if there is any."""
    values = values[~np.isnan(values)]  # a draw may hold none of the few cases measured
    if not len(values):
        return float("nan"), float("nan")
    # An order statistic, never an interpolation: between two infinities there is no number.
    low, high = np.quantile(values, TAILS, method="inverted_cdf")
    return float(low), float(high)


def _draws(cases: int, seed: int) -> Iterator[Array]:
    """How often each case is drawn, in blocks of replicates x cases."""
    digest = hashlib.sha256(f"{seed}/bootstrap".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    block = max(1, _CELLS // cases)
    for start in range(0, REPLICATES, block):
        rows = min(block, REPLICATES - start)
        drawn = rng.integers(0, cases, size=(rows, cases))
        cell = drawn + cases * np.arange(rows)[:, None]
        counts = np.bincount(cell.ravel(), minlength=rows * cases)
        yield counts.reshape(rows, cases).astype(float)


def _means(counts: Array, x: Array) -> Array:
    """Weighted means of the columns. An infinite case makes the mean of its draws infinite."""
    present, infinite = ~np.isnan(x), np.isposinf(x)
    sums = counts @ np.where(present & ~infinite, x, 0.0)
    sums[counts @ infinite.astype(float) > 0] = np.inf
    with np.errstate(invalid="ignore"):  # a draw without any such case has no mean
        return np.asarray(sums / (counts @ present.astype(float)))
