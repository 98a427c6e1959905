"""How far two judgements of the same things agree: Cohen's kappa and Spearman's rank correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.distributions import normal_quantile
from evalrun.scoring.correlations import fisher_interval, pearson, ranks

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Agreement:
    """`value` by `measure` (kappa, spearman) over `n` samples; None where the data cannot give it (`note`).

    `share` is the fraction of samples on which both say the same (kappa only). The interval has level 0.95.
    """

    measure: str
    value: float | None
    n: int
    ci_low: float | None = None
    ci_high: float | None = None
    share: float | None = None
    note: str = ""


def kappa(first: Sequence[str], second: Sequence[str]) -> Agreement:
    """Cohen's kappa of two columns of labels, each of shape (n,): agreement beyond that of chance.

    1 is full agreement, 0 that of chance. Interval: the large-sample standard error of Fleiss, Cohen and
    Everitt (1969), formula 13.
    """
    n = len(first)
    if n == 0:
        return Agreement("kappa", None, 0, note="no sample has both")
    labels, codes = np.unique(np.array([*map(str, first), *map(str, second)], object), return_inverse=True)
    size = len(labels)
    table = np.bincount(codes[:n] * size + codes[n:], minlength=size * size).reshape(size, size) / n
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    seen, chance = float(np.trace(table)), float(rows @ columns)
    if chance >= 1 - 1e-12:
        return Agreement("kappa", None, n, share=seen, note="both give one label only, and the same")
    value = (seen - chance) / (1 - chance)
    on = np.diag(table) @ ((1 - chance) - (rows + columns) * (1 - seen)) ** 2
    off_weights = (columns[:, None] + rows[None, :]) ** 2
    np.fill_diagonal(off_weights, 0.0)
    off = (1 - seen) ** 2 * float((table * off_weights).sum())
    variance = (float(on) + off - (seen * chance - 2 * chance + seen) ** 2) / (n * (1 - chance) ** 4)
    half = normal_quantile(0.975) * math.sqrt(max(variance, 0.0))
    if half == 0:  # full agreement: the formula knows no doubt, a few samples do
        return Agreement("kappa", value, n, share=seen, note="no disagreement, so no interval")
    return Agreement("kappa", value, n, max(-1.0, value - half), min(1.0, value + half), seen)


def rank_correlation(first: Floats, second: Floats) -> Agreement:
    """Spearman's rank correlation of two columns of numbers, each of shape (n,), without missing values.

    Interval by Fisher's transformation with the variance of Bonett and Wright (2000).
    """
    n = len(first)
    value = pearson(ranks(first), ranks(second)) if n > 1 else math.nan
    if math.isnan(value):
        note = "too few samples" if n < 2 else "one of the two is the same for every sample"
        return Agreement("spearman", None, n, note=note)
    interval = fisher_interval(value, 1 + value**2 / 2, n - 3)
    if interval is None:
        return Agreement("spearman", value, n, note="too few samples, or all in the same order: no interval")
    return Agreement("spearman", value, n, interval.low, interval.high)
