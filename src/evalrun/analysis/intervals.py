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
from evalrun.types import Clustering

LEVEL = 0.95
FEW_CLUSTERS = 40
"""Below this many clusters an interval with the degrees of freedom of their number is too narrow."""
FEW_FREEDOM = 20
"""Below so many degrees of freedom (one less than clusters of equal size) a clustered interval covers 88 to
95
% where rows of a cluster are much alike, and a note says so."""
FEW = "so few that the interval may be too narrow"

FEW_HITS = 5
"""With fewer of either kind Wilson's interval covers, by n and p, 86 to 98 %."""

SKEWED = 25
PILED = "values pile up at one end: the interval is Wilson's, which takes the greatest variance they may have"

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


def near_an_end(hits: float, n: int) -> str:
    """A note where hits or misses are so few that Wilson's interval is not sure to cover 93 to 97 %."""
    if min(hits, n - hits) >= FEW_HITS:
        return ""
    return f"fewer than {FEW_HITS} hits or misses: the interval covers 86 to 98 %, not just 95"


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

    CR2 standard error (Bell and McCaffrey 2002), which for a mean is SE² = sum over clusters of
    (sum of (x - mean))² / (1 - m/n) / n² with m the cluster's size; t with Satterthwaite's degrees of freedom
    under independence: 1 / (sum w² + (sum q)² - sum q²), w = m/n, q = w² / (1 - w). With C equal clusters
    that is the formula of Miller (2024, arXiv 2411.00640) with the factor C/(C-1), and C - 1 degrees of
    freedom. The note has the number of clusters, what they are worth, design effect and intraclass
    correlation.
    """
    n = len(values)
    if n == 0:
        return NO_DATA
    value = float(values.mean())
    count = np.bincount(clusters)
    there = count > 0
    sums: Floats = np.asarray(np.bincount(clusters, weights=values - value)[there], np.float64)
    sizes: Floats = count[there].astype(np.float64)
    facts = _facts(sizes)
    if facts.count == 1:
        return Estimate(
            value, n, note="all samples are in one cluster, so there is no interval", clusters=facts
        )
    se = math.sqrt(float((sums * sums / (1 - sizes / n)).sum())) / n
    if se <= _NOTHING * max(abs(value), float(np.abs(values).max())):
        alike = "no cluster's mean differs from the others', so there is no interval"
        return Estimate(value, n, 0.0, note=f"{alike}; {told_clusters(facts)}", clusters=facts)
    facts = _spread(facts, values - value, sums, sizes, se)
    half = t_quantile(0.5 + level / 2, facts.df or 1.0) * se
    found = Estimate(value, n, se, value - half, value + half, "clustered-t", told_clusters(facts), facts)
    return clipped(found, bounds)


def _facts(sizes: Floats) -> Clustering:
    """What clusters of these sizes are worth."""
    n = float(sizes.sum())
    share = sizes / n
    squares = float(share @ share)
    if len(sizes) < 2:
        return Clustering(len(sizes), 1 / squares)
    q = share * share / (1 - share)
    df = 1 / (squares + float(q.sum()) ** 2 - float(q @ q))
    return Clustering(len(sizes), 1 / squares, max(1.0, df))


def _spread(facts: Clustering, deviations: Floats, sums: Floats, sizes: Floats, se: float) -> Clustering:
    """With design effect and intraclass correlation (one-way analysis of variance)."""
    n, count = len(deviations), facts.count
    total = float(deviations @ deviations)
    design_effect = se * se * n * (n - 1) / total
    if n == count:
        return replace(facts, design_effect=design_effect)
    between = float((sums * sums / sizes).sum())
    mean_between, mean_within = between / (count - 1), max(0.0, total - between) / (n - count)
    size = (n - float(sizes @ sizes) / n) / (count - 1)
    below = mean_between + (size - 1) * mean_within
    icc = (mean_between - mean_within) / below if below > 0 else None
    return replace(facts, design_effect=design_effect, icc=icc)


def told_clusters(facts: Clustering) -> str:
    """What clusters do, in words."""
    said = [f"{facts.count} clusters"]
    if facts.effective < 0.95 * facts.count:
        said[0] += f" worth {facts.effective:.3g} of equal size"
    if facts.design_effect is not None:
        said.append(f"design effect {facts.design_effect:.3g}")
    if facts.icc is not None:
        said.append(f"intraclass correlation {facts.icc:.2f}")
    if facts.df is None or facts.df < FEW_FREEDOM:
        said.append(FEW)
    return ", ".join(said)


def clustering(clusters: Ints | None) -> Clustering | None:
    """What the clusters (codes >= 0) are worth; None without clusters."""
    if clusters is None or not len(clusters):
        return None
    sizes = np.bincount(clusters)
    return _facts(sizes[sizes > 0].astype(np.float64))


def few_clusters(clusters: Ints | None) -> str:
    """How many clusters there are, what they are worth, and whether that is too little; else empty."""
    facts = clustering(clusters)
    return "" if facts is None else told_clusters(facts)


def grouping(clusters: Ints | None) -> Ints | None:
    """The clusters (codes >= 0), or None where every unit is one of its own: then units are independent."""
    if clusters is None or not len(clusters) or int(np.bincount(clusters).max()) == 1:
        return None
    return clusters


def mean(
    values: Floats,
    clusters: Ints | None = None,
    *,
    repeated: bool = False,
    bounds: Bounds = (None, None),
) -> Estimate:
    """Mean with the interval that suits the data: one value a unit (a sample id), `clusters` one code a unit.

    Clusters of one unit each are no clusters. `repeated` says that values are means over repeats. Where every
    value is 0, or every value 1, the clustered and the t interval would have no width; then Wilson's is taken
    over the independent units (clusters or sample ids). It is taken too where values between two bounds are
    so skewed that t would be too short; of others a note says so.
    """
    if len(values) == 0:
        return NO_DATA
    clusters = grouping(clusters)
    shares = bounds[1] is None or bounds[1] <= 1  # on a scale of 1 to 5 a 1 is no hit
    binary = shares and bool(((values == 0) | (values == 1)).all())
    if clusters is None and binary and not repeated:
        found = wilson(float(values.sum()), len(values))
        return replace(found, note=found.note or near_an_end(float(values.sum()), len(values)))
    if binary and values.min() == values.max():
        facts = clustering(clusters)
        units = len(values) if facts is None else facts.count
        if units > 1:
            plain = wilson(float(values[0]) * units, units)
            note = "" if facts is None else f"all values are equal: the interval is that of {units} clusters"
            return replace(plain, n=len(values), note=note, clusters=facts)
    if clusters is None:
        return _bounded(mean_t(values, bounds), values, bounds)
    sums = np.asarray(np.bincount(clusters, weights=values - values.mean())[np.bincount(clusters) > 0], float)
    found = mean_clustered(values, clusters, bounds)
    return replace(found, note="; ".join(part for part in (found.note, skewed(sums)) if part))


def _bounded(found: Estimate, values: Floats, bounds: Bounds) -> Estimate:
    """A t interval, or what stands for it where values are too skewed for one.

    On a scale with two ends a mean has at most the variance of right and wrong, m (1 - m) as a share of the
    scale. Where values pile up at one end, the few others may not have shown how far they go, and Wilson's
    interval, which takes that greatest variance, is wide enough: 95 to 100 %.
    """
    note = skewed(values)
    low, high = bounds
    if not note or found.low is None or found.value is None:
        return found
    if low is None or high is None or high <= low:
        return replace(found, note="; ".join(part for part in (found.note, note) if part))
    n = len(values)
    score = wilson(min(1.0, max(0.0, (found.value - low) / (high - low))) * n, n)
    ends = [low + (high - low) * end for end in (score.low or 0.0, score.high or 0.0)]
    return replace(found, low=ends[0], high=ends[1], method="wilson", note=PILED)


def skewed(values: Floats) -> str:
    """A note where values are too skewed for Student's t: |skewness| above 1, and n below 25 times its square
    (Cochran 1977, Sampling Techniques, 2.15), else empty."""
    n = len(values)
    if n < 3:
        return ""
    deviations = values - values.mean()
    squares = deviations * deviations
    variance = float(squares.sum()) / n
    if variance <= 1e-18 * max(1e-300, float((values * values).sum()) / n):
        return ""
    skewness = float((squares * deviations).sum()) / n / variance**1.5
    if abs(skewness) <= 1 or n >= SKEWED * skewness**2:
        return ""
    return f"skewed (skewness {skewness:.2g}): for so few values the interval may be too narrow"


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
    covered = float(below[upper - 1 - start] - (below[lower - 1 - start] if lower > start else 0.0))
    note = f"between whole ranks: covers {100 * covered:.0f} %" if covered > level + 0.02 else ""
    low, high = float(ordered[lower - 1]), float(ordered[upper - 1])
    return Estimate(value, n, None, low, high, "order-statistic", note)
