"""Means of rows that stand for unlike numbers of others: a sample of production, with weights and strata."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.distributions import t_quantile
from evalrun.analysis.intervals import LEVEL, NO_DATA, Bounds, clipped, clustering, wilson
from evalrun.results import Estimate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def effective(weights: Floats) -> float:
    """What the rows are worth, as rows of equal weight: (sum of w)^2 / sum of w^2 (Kish)."""
    return float(weights.sum() ** 2 / (weights**2).sum()) if len(weights) else 0.0


def mean_weighted(
    values: Floats,
    weights: Floats,
    clusters: Ints | None = None,
    strata: Ints | None = None,
    bounds: Bounds = (None, None),
    level: float = LEVEL,
) -> Estimate:
    """Hajek's mean, sum of w y / sum of w, with its variance by linearisation.

    z = sum over a cluster of w (y - mean) / sum of w; the variance is, over strata, C/(C-1) times the sum of
    (z - mean z)^2, C the clusters of the stratum (every row is one without `clusters`). With equal weights
    and no strata that is the usual clustered one. t with as many degrees of freedom as clusters less strata.
    A stratum of one cluster adds its z^2. Where every value is 0, or every one 1, Wilson's interval over the
    effective number.
    """
    n = len(values)
    if n == 0:
        return NO_DATA
    total = float(weights.sum())
    value, worth = float(weights @ values / total), effective(weights)
    note = f"weighted: {n:,} rows are worth {worth:,.0f} of equal weight"
    if n == 1:
        return Estimate(value, 1, note="one sample has no interval")
    if bool(((values == 0) | (values == 1)).all()) and values.min() == values.max():
        units = worth if clusters is None else min(worth, len(np.unique(clusters)))
        return replace(wilson(value * units, max(2, int(units))), value=value, n=n, note=note)
    own = np.arange(n) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    of = np.zeros(n, np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
    pairs, place = np.unique(np.stack([of, own]), axis=1, return_inverse=True)
    z = np.bincount(place.ravel(), weights * (values - value) / total)
    stratum = pairs[0]
    count = np.bincount(stratum)
    alone = count[stratum] < 2
    centred = z - np.where(alone, 0.0, (np.bincount(stratum, z) / count)[stratum])
    factor = np.where(count > 1, count / np.maximum(count - 1, 1), 1.0)[stratum]
    se = math.sqrt(float((factor * centred**2).sum()))
    df = len(z) - len(count)
    if se <= 1e-12 * abs(value) or df < 1:
        return Estimate(
            value, n, 0.0 if df >= 1 else None, note=f"{note}; no spread, so there is no interval"
        )
    half = t_quantile(0.5 + level / 2, df) * se
    facts = None if clusters is None else clustering(clusters)
    return clipped(Estimate(value, n, se, value - half, value + half, "hajek", note, facts), bounds)
