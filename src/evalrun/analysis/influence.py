"""Intervals of figures from the influence of each sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.distributions import t_quantile
from evalrun.analysis.intervals import LEVEL, Bounds, clipped
from evalrun.results import Estimate
from evalrun.scoring.columns import Smooth

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


_BACK: Mapping[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "plain": (lambda x: x, lambda v: 1.0),
    "fisher-z": (math.tanh, lambda v: 1 - v * v),
    "logit": (_expit, lambda v: v * (1 - v)),
    "log": (_exp, lambda v: v),
}
"""From a scale back to the figure, and the slope of that at a value of the figure."""
METHODS: Mapping[str, str] = {"plain": "influence", "log": "log-t", "logit": "logit-t"}
NO_SPREAD = "no sample would change it, so there is no interval"


def smooth_interval(
    figure: Smooth, groups: Ints | None = None, bounds: Bounds = (None, None), level: float = LEVEL
) -> Estimate:
    """The figure with the interval centre ± t SE on its scale, taken back.

    SE² = sum over units of (sum of influences / n)² / (1 - w), where w is the unit's share of the weights,
    and t has Satterthwaite's degrees of freedom: for one sample a unit s² / n and n - 1, for clusters the CR2
    of their shares. `groups` has one code a sample, None where samples are independent.
    """
    n = len(figure.influence)
    units = n if groups is None or not n else len(np.unique(groups))
    if math.isnan(figure.value):
        return Estimate(None, units, note=figure.note or "nothing to compute it from")
    plain = Estimate(figure.value, units, note=figure.note)
    shares: Floats = np.full(n, 1 / n) if figure.weights is None else figure.weights
    sums: Floats = figure.influence / n
    if groups is not None:
        codes = np.unique(groups, return_inverse=True)[1]
        sums, shares = (np.asarray(np.bincount(codes, weights=each), np.float64) for each in (sums, shares))
    if units < 2 or not math.isfinite(figure.centre) or shares.max() >= 1:
        return _without(plain, "too few samples, or all alike: no interval")
    shrink = n / (n + figure.pseudo)
    spread = float((sums * sums / (1 - shares)).sum()) * shrink**2
    se = math.sqrt(spread + figure.extra / (n + figure.pseudo) ** 2)
    back, slope = _BACK[figure.scale]
    if se <= 1e-12 * max(1.0, abs(figure.centre)):
        return _without(plain, NO_SPREAD)
    q = shares * shares / (1 - shares)
    df = 1 / float(shares @ shares + q.sum() ** 2 - q @ q)
    half = t_quantile(0.5 + level / 2, max(1.0, df)) * se
    low, high = back(figure.centre - half), back(figure.centre + half)
    found = Estimate(
        figure.value,
        units,
        se * abs(slope(back(figure.centre))),
        min(low, figure.value),
        max(high, figure.value),
        METHODS.get(figure.scale, figure.scale),
        figure.note,
    )
    return clipped(found, bounds)


def _without(plain: Estimate, why: str) -> Estimate:
    return Estimate(plain.value, plain.n, note="; ".join(part for part in (plain.note, why) if part))
