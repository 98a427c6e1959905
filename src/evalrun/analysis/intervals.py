"""Means, proportions and percentiles with their standard errors and 95 % intervals.

Every function gives an Estimate that names its method. Which method suits which data is decided in `mean`:
Wilson for proportions, t for other means, clustered t where units belong together. Coverage is tested by
simulation in tests/unit/analysis.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.distributions import binomial_cdf, normal_quantile, sorted_quantile, t_quantile
from evalrun.results import Estimate

LEVEL = 0.95
FEW_CLUSTERS = 40
"""Below this many clusters the clustered interval is known to be too narrow, and a note says so."""

_NOTHING = 1e-12
"""A standard error below this share of the mean is rounding, not spread."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bounds = tuple[float | None, float | None]


NO_DATA = Estimate(None, 0, note="no samples")


def wilson(hits: float, n: int, level: float = LEVEL) -> Estimate:
    """A proportion with the score interval of Wilson (1927), which holds near 0 and 1 and for small n.

    centre = (p + z^2/2n) / (1 + z^2/n), half width = z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n). The standard
    error is that of a mean, sqrt(p(1-p)/(n-1)).
    """
    if n == 0:
        return NO_DATA
    p = hits / n
    if n == 1:
        return Estimate(p, 1, note="one sample has no interval")
    z = normal_quantile(0.5 + level / 2)
    scale = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    # At p = 0 and p = 1 the bound is p itself; rounding must not push it past the value.
    low, high = min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))
    return Estimate(p, n, math.sqrt(max(0.0, p * (1 - p)) / (n - 1)), low, high, "wilson")


def mean_t(values: Floats, bounds: Bounds = (None, None), level: float = LEVEL) -> Estimate:
    """Mean of independent values, SE = s / sqrt(n), interval by Student's t with n - 1 degrees of freedom."""
    n = len(values)
    if n == 0:
        return NO_DATA
    value = float(values.mean())
    if n == 1:
        return Estimate(value, 1, note="one sample has no interval")
    se = float(values.std(ddof=1)) / math.sqrt(n)
    if se <= _NOTHING * abs(value):
        return Estimate(value, n, 0.0, note="all values are equal, so there is no interval")
    half = t_quantile(0.5 + level / 2, n - 1) * se
    return clipped(Estimate(value, n, se, value - half, value + half, "t"), bounds)


def mean_clustered(
    values: Floats, clusters: Ints, bounds: Bounds = (None, None), level: float = LEVEL
) -> Estimate:
    """Mean of values that belong together in clusters (codes >= 0).

    SE^2 = C/(C-1) * sum over clusters of (sum of (x - mean))^2 / n^2, t with C - 1 degrees of freedom (Miller
    2024, arXiv 2411.00640, with the small-sample factor C/(C-1)). Too narrow for few clusters; noted.
    """
    n = len(values)
    if n == 0:
        return NO_DATA
    value = float(values.mean())
    sums = np.bincount(clusters, weights=values - value)[np.bincount(clusters) > 0]
    count = len(sums)
    if count == 1:
        return Estimate(value, n, note="all samples are in one cluster, so there is no interval")
    se = math.sqrt(count / (count - 1) * float(sums @ sums)) / n
    note = _few(count)
    if se <= _NOTHING * max(abs(value), float(np.abs(values).max())):
        alike = "no cluster's mean differs from the others', so there is no interval"
        return Estimate(value, n, 0.0, note="; ".join(part for part in (alike, note) if part))
    half = t_quantile(0.5 + level / 2, count - 1) * se
    return clipped(Estimate(value, n, se, value - half, value + half, "clustered-t", note), bounds)


def _few(count: int) -> str:
    return (
        f"{count} clusters; below {FEW_CLUSTERS} the interval is too narrow" if count < FEW_CLUSTERS else ""
    )


def few_clusters(clusters: Ints | None) -> str:
    """A warning where there are clusters and too few of them, else empty."""
    return "" if clusters is None else _few(len(np.unique(clusters)))


def mean(
    values: Floats,
    clusters: Ints | None = None,
    *,
    repeated: bool = False,
    bounds: Bounds = (None, None),
) -> Estimate:
    """Mean with the interval that suits the data: one value a unit (a sample id), `clusters` one code a unit.

    `repeated` says that values are means over repeats. Where every value is 0, or every value 1, the
    clustered and the t interval would have no width; then Wilson's is taken over the independent units
    (clusters or sample ids).
    """
    if len(values) == 0:
        return NO_DATA
    shares = bounds[1] is None or bounds[1] <= 1  # on a scale of 1 to 5 a 1 is no hit
    binary = shares and bool(((values == 0) | (values == 1)).all())
    if clusters is None and binary and not repeated:
        return wilson(float(values.sum()), len(values))
    if binary and values.min() == values.max():
        units = len(values) if clusters is None else len(np.unique(clusters))
        if units > 1:
            plain = wilson(float(values[0]) * units, units)
            note = (
                ""
                if units == len(values)
                else f"all values are equal: the interval is that of {units} clusters"
            )
            return replace(plain, n=len(values), note=note)
    if clusters is None:
        return mean_t(values, bounds)
    return mean_clustered(values, clusters, bounds)


def clipped(estimate: Estimate, bounds: Bounds) -> Estimate:
    """The interval kept within what the metric can be."""
    low, high = estimate.low, estimate.high
    if low is not None and bounds[0] is not None:
        low = max(low, bounds[0])
    if high is not None and bounds[1] is not None:
        high = min(high, bounds[1])
    return replace(estimate, low=low, high=high)


def percentile(ordered: Floats, q: float, level: float = LEVEL) -> Estimate:
    """The q quantile (0 < q < 1) of sorted values, with an interval between two order statistics.

    The value interpolates linearly between neighbours (numpy's default). The number of values below the true
    quantile is binomial(n, q), so [x_(l), x_(u)] covers it with probability P(l <= B < u), at least `level`;
    l and u are the closest that leave at most (1 - level)/2 on either side. No assumption on the shape.
    """
    n = len(ordered)
    if n == 0:
        return NO_DATA
    value = sorted_quantile(ordered, q)
    start, below = binomial_cdf(n, q)
    tail = (1 - level) / 2
    # l is the greatest rank with P(B <= l - 1) <= tail, u the least with P(B <= u - 1) >= 1 - tail.
    lower = start + int(np.searchsorted(below, tail + 1e-12, side="right"))
    upper = start + int(np.searchsorted(below, 1 - tail - 1e-12, side="left")) + 1
    if lower < 1 or upper > n:
        return Estimate(value, n, note="n does not support an interval")
    return Estimate(value, n, None, float(ordered[lower - 1]), float(ordered[upper - 1]), "order-statistic")
