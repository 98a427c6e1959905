"""Bootstrap intervals, of one run and paired: the one resampler.

Every sample adds a row of statistics to the sums, and a figure is a function of the sums (a mean of sum and
count, macro F1 of confusion counts, BLEU of n-gram counts). Then a resample is a row of weights times the
statistics, and no sample is touched again. Clusters are drawn whole. Seeded: the same data and seed give the
same interval on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.distributions import normal_quantile, single_threaded, sorted_quantile
from evalrun.analysis.intervals import LEVEL, Bounds, Ints, clipped
from evalrun.frozen import frozen
from evalrun.results import Estimate

Floats = NDArray[np.float64]
Figure: TypeAlias = Callable[[Floats], Floats]
"""Sums of shape (..., k) to values of shape (...), NaN where the figure is undefined."""

RESAMPLES = 2_000
"""For figures of one run."""
PAIRED_RESAMPLES = 10_000
_BLOCK = 100_000
"""So many weights are held at once; more would leave the processor's cache and take twice as long."""
_KINDS_BLOCK = 1_000_000


def unit_totals(statistics: Floats, clusters: NDArray[Any] | None = None) -> Floats:
    """What each independent unit adds to the sums: the rows, shape (n, k), or their totals by cluster."""
    statistics = np.asarray(statistics, np.float64)
    if clusters is None:
        return statistics
    codes = np.unique(clusters, return_inverse=True)[1]
    columns = [np.bincount(codes, weights=column) for column in statistics.T]
    return np.stack(columns, axis=1)


def resampled_weights(units: int, *, seed: int = 0, resamples: int = PAIRED_RESAMPLES) -> Iterator[Floats]:
    """How often each unit is drawn, in blocks of shape (rows, units): `units` draws with replacement."""
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // max(1, units))
    for begin in range(0, resamples, rows):
        size = min(rows, resamples - begin)
        drawn = rng.integers(units, size=(size, units)) + units * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)


def resampled_sums(totals: Floats, *, seed: int = 0, resamples: int = PAIRED_RESAMPLES) -> Iterator[Floats]:
    """Sums of resampled data, in blocks of shape (rows, k): units of `totals`, shape (U, k), drawn with
    replacement, U of them each time."""
    for weights in resampled_weights(len(totals), seed=seed, resamples=resamples):
        yield weights @ totals


def bootstrap_units(totals: Floats, figures: Figure, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Figures of resampled data, shape (resamples, m), where whole units (clusters, sample ids) are drawn.

    `totals` is (U, k): what each unit adds to the sums; `figures` maps sums (..., k) to (..., m).
    """
    return np.concatenate([figures(each) for each in resampled_sums(totals, seed=seed, resamples=resamples)])


def bootstrap_kinds(
    counts: Ints, statistics: Floats, figures: Figure, seed: int, resamples: int = RESAMPLES
) -> Floats:
    """Figures of resampled data, shape (resamples, m), where each sample is one of K kinds.

    Drawing n samples with replacement is one multinomial draw of the K counts. `statistics` is (K, k), what
    one sample of each kind adds to the sums; `figures` maps sums (..., k) to (..., m).
    """
    rng = np.random.default_rng(seed)
    n = int(counts.sum())
    block = max(1, _KINDS_BLOCK // (len(counts) + statistics.shape[1]))
    parts = []
    for begin in range(0, resamples, block):
        drawn = rng.multinomial(n, counts / n, size=min(block, resamples - begin))
        parts.append(figures(drawn.astype(np.float64) @ statistics))
    return np.concatenate(parts)


FEW_DRAWN = 30


def few_drawn(units: int) -> str:
    """A note where so few units were resampled that a percentile interval is too narrow, else empty."""
    return f"resampled from {units} samples: the interval may be too narrow" if units < FEW_DRAWN else ""


def percentile_interval(
    value: float,
    n: int,
    draws: Floats,
    bounds: Bounds = (None, None),
    *,
    level: float = LEVEL,
    note: str = "",
) -> Estimate:
    """A value with the interval and standard error of its bootstrap draws (percentile method)."""
    if math.isnan(value):
        return Estimate(None, n, note="nothing to compute it from")
    if n < 2:
        return Estimate(value, n, note="one sample has no interval")
    draws = np.sort(draws[~np.isnan(draws)])
    if len(draws) < 2 or draws[0] == draws[-1]:
        return Estimate(value, n, note="every resample gives the same value, so there is no interval")
    low, high = (sorted_quantile(draws, tail) for tail in ((1 - level) / 2, (1 + level) / 2))
    found = Estimate(value, n, float(draws.std(ddof=1)), low, high, "bootstrap", note)
    return clipped(found, bounds)


@frozen
class Draws:
    """A figure of the data, of every resample (NaN dropped), and of the data without each unit in turn."""

    value: float
    resampled: Floats
    left_out: Floats
    units: int

    def interval(self, level: float = LEVEL) -> Estimate:
        """The value with its standard error and interval.

        BCa (Efron 1987): percentiles of the resamples, shifted by the bias z0 (from the share of resamples
        below the value) and the acceleration a (from the skewness of the leave-one-out values). No interval
        for fewer than two units or where every resample gives the same.
        """
        if math.isnan(self.value):
            return Estimate(None, self.units, note="nothing to compute it from")
        ordered = np.sort(self.resampled)
        # Resamples of equal values differ by rounding.
        if self.units < 2 or len(ordered) < 2 or ordered[-1] - ordered[0] <= 1e-12 * abs(self.value):
            note = "every resample gives the same value, so there is no interval"
            return Estimate(self.value, self.units, note=note)
        tails = (1 - level) / 2, (1 + level) / 2
        low, high = (sorted_quantile(ordered, self._adjusted(tail, ordered)) for tail in tails)
        return Estimate(self.value, self.units, float(ordered.std(ddof=1)), low, high, "bootstrap-bca")

    def _adjusted(self, tail: float, ordered: Floats) -> float:
        """Which percentile of the resamples stands for this tail."""
        below = np.searchsorted(ordered, self.value, side="left")
        up_to = np.searchsorted(ordered, self.value, side="right")
        # Half of the ties, or figures that take few values would look biased.
        share = float(below + up_to) / 2 / len(ordered)
        if not 0 < share < 1:
            return tail
        normal = NormalDist()
        bias = normal.inv_cdf(share)
        deviations = float(np.nanmean(self.left_out)) - self.left_out
        deviations = deviations[~np.isnan(deviations)]
        spread = float((deviations**2).sum()) ** 1.5
        acceleration = float((deviations**3).sum()) / (6 * spread) if spread > 0 else 0.0
        shifted = bias + normal_quantile(tail)
        return normal.cdf(bias + shifted / (1 - acceleration * shifted))


def draw(
    statistics: Floats,
    figure: Figure,
    clusters: NDArray[Any] | None = None,
    *,
    seed: int = 0,
    resamples: int = PAIRED_RESAMPLES,
) -> Draws:
    """Resample a figure of sums. `statistics` is (n, k), one row a sample; `clusters` (n,) labels or codes.

    Raises ValueError without samples.
    """
    totals = unit_totals(statistics, clusters)
    if len(totals) == 0:
        raise ValueError("there is nothing to resample")
    sums = totals.sum(axis=0)
    # Figures without any data are NaN; that is not worth a warning.
    with single_threaded(), np.errstate(divide="ignore", invalid="ignore"):
        value = float(figure(sums))
        resampled = np.concatenate(
            [np.asarray(figure(each)) for each in resampled_sums(totals, seed=seed, resamples=resamples)]
        )
        left_out = np.asarray(figure(sums - totals))
    return Draws(value, resampled[~np.isnan(resampled)], left_out, len(totals))


def draw_paired(
    statistics_a: Floats,
    statistics_b: Floats,
    figure: Figure,
    clusters: NDArray[Any] | None = None,
    *,
    seed: int = 0,
    resamples: int = PAIRED_RESAMPLES,
) -> Draws:
    """Resample figure(b) - figure(a), where row i of both (n, k) statistics is sample i; both see the same
    resamples, so that what the pairs share cancels."""
    if statistics_a.shape != statistics_b.shape:
        raise ValueError("both runs need one row a sample and the same statistics")
    width = statistics_a.shape[1]

    def difference(sums: Floats) -> Floats:
        return np.asarray(figure(sums[..., width:]) - figure(sums[..., :width]))

    both = np.concatenate([statistics_a, statistics_b], axis=1)
    return draw(both, difference, clusters, seed=seed, resamples=resamples)


def bootstrap_p(draws: Draws) -> float | None:
    """Two-sided p of a difference of zero: (1 + centred draws at least as far from 0) / (1 + draws).

    The draws, moved so that their centre is zero, stand for the difference if there were none.
    """
    if math.isnan(draws.value) or len(draws.resampled) < 2:
        return None
    apart = np.abs(draws.resampled - draws.value) >= abs(draws.value) - 1e-12
    return float(1 + apart.sum()) / (1 + len(draws.resampled))
