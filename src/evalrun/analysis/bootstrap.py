"""Bootstrap intervals, one-sample and paired, for means and for anything made from sums over samples.

Every sample adds a row of statistics to the sums, and a figure is a function of the sums (a mean of sum and
count, macro F1 of confusion counts, BLEU of n-gram counts). Then a resample is a row of weights times the
statistics, and no sample is touched again. Clusters are drawn whole. Seeded: the same data and seed give the
same interval on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.blas import single_threaded
from evalrun.analysis.distributions import normal_quantile, sorted_quantile
from evalrun.results import Estimate

Floats = NDArray[np.float64]
Figure: TypeAlias = Callable[[Floats], Floats]
"""Sums of shape (..., k) to values of shape (...), NaN where the figure is undefined."""

Method: TypeAlias = Literal["bca", "percentile"]

RESAMPLES = 10_000
_BLOCK = 100_000
"""So many weights are held at once; more would leave the processor's cache and take twice as long."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """How an interval is made: the seed, the number of resamples, the level and the method."""

    seed: int = 0
    resamples: int = RESAMPLES
    level: float = 0.95
    method: Method = "bca"


@dataclass(frozen=True, slots=True)
class Draws:
    """A figure of the data, of every resample (NaN dropped), and of the data without each unit in turn."""

    value: float
    resampled: Floats
    left_out: Floats
    units: int

    def interval(self, level: float = 0.95, method: Method = "bca") -> Estimate:
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
        if method == "bca":
            low, high = (self._adjusted(tail, ordered) for tail in tails)
        else:
            low, high = tails
        bounds = sorted_quantile(ordered, low), sorted_quantile(ordered, high)
        name = "bootstrap-bca" if method == "bca" else "bootstrap"
        return Estimate(self.value, self.units, float(ordered.std(ddof=1)), *bounds, name)

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


def unit_totals(statistics: Floats, clusters: NDArray[Any] | None = None) -> Floats:
    """What each independent unit adds to the sums: the rows, shape (n, k), or their totals by cluster."""
    statistics = np.asarray(statistics, np.float64)
    if clusters is None:
        return statistics
    codes = np.unique(clusters, return_inverse=True)[1]
    columns = [np.bincount(codes, weights=column) for column in statistics.T]
    return np.stack(columns, axis=1)


def resampled_weights(units: int, *, seed: int = 0, resamples: int = RESAMPLES) -> Iterator[Floats]:
    """How often each unit is drawn, in blocks of shape (rows, units): `units` draws with replacement."""
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // max(1, units))
    for begin in range(0, resamples, rows):
        size = min(rows, resamples - begin)
        drawn = rng.integers(units, size=(size, units)) + units * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)


def resampled_sums(totals: Floats, *, seed: int = 0, resamples: int = RESAMPLES) -> Iterator[Floats]:
    """Sums of resampled data, in blocks of shape (rows, k): units of `totals`, shape (U, k), drawn with
    replacement, U of them each time."""
    for weights in resampled_weights(len(totals), seed=seed, resamples=resamples):
        yield weights @ totals


def draw(
    statistics: Floats,
    figure: Figure,
    clusters: NDArray[Any] | None = None,
    how: Resampling | None = None,
) -> Draws:
    """Resample a figure of sums. `statistics` is (n, k), one row a sample; `clusters` (n,) labels or codes.

    Raises ValueError without samples.
    """
    how = how or Resampling()
    totals = unit_totals(statistics, clusters)
    if len(totals) == 0:
        raise ValueError("there is nothing to resample")
    sums = totals.sum(axis=0)
    # Figures without any data are NaN; that is not worth a warning.
    with single_threaded(), np.errstate(divide="ignore", invalid="ignore"):
        value = float(figure(sums))
        resampled = np.concatenate(
            [
                np.asarray(figure(each))
                for each in resampled_sums(totals, seed=how.seed, resamples=how.resamples)
            ]
        )
        left_out = np.asarray(figure(sums - totals))
    return Draws(value, resampled[~np.isnan(resampled)], left_out, len(totals))


def _ratio(sums: Floats) -> Floats:
    return np.asarray(sums[..., 0] / sums[..., 1])


def bootstrap_mean(
    values: Floats,
    clusters: NDArray[Any] | None = None,
    how: Resampling | None = None,
) -> Estimate:
    """The mean of values, shape (n,), with a bootstrap interval; `n` counts samples. NaN is not allowed."""
    statistics = np.stack([values, np.ones(len(values))], axis=1)
    return _interval(draw(statistics, _ratio, clusters, how), len(values), how)


def bootstrap_paired_mean(
    a: Floats,
    b: Floats,
    clusters: NDArray[Any] | None = None,
    how: Resampling | None = None,
) -> Estimate:
    """The mean of b - a over aligned pairs, shape (n,): a bootstrap of the differences."""
    difference = np.asarray(b, np.float64) - np.asarray(a, np.float64)
    return bootstrap_mean(difference, clusters, how)


def draw_paired(
    statistics_a: Floats,
    statistics_b: Floats,
    figure: Figure,
    clusters: NDArray[Any] | None = None,
    how: Resampling | None = None,
) -> Draws:
    """Resample figure(b) - figure(a), where row i of both (n, k) statistics is sample i; both see the same
    resamples, so that what the pairs share cancels."""
    if statistics_a.shape != statistics_b.shape:
        raise ValueError("both runs need one row a sample and the same statistics")
    width = statistics_a.shape[1]

    def difference(sums: Floats) -> Floats:
        return np.asarray(figure(sums[..., width:]) - figure(sums[..., :width]))

    both = np.concatenate([statistics_a, statistics_b], axis=1)
    return draw(both, difference, clusters, how)


def bootstrap_paired(
    statistics_a: Floats,
    statistics_b: Floats,
    figure: Figure,
    clusters: NDArray[Any] | None = None,
    how: Resampling | None = None,
) -> Estimate:
    """The difference figure(b) - figure(a) of a corpus metric, with a paired bootstrap interval."""
    draws = draw_paired(statistics_a, statistics_b, figure, clusters, how)
    return _interval(draws, len(statistics_a), how)


def bootstrap_p(draws: Draws) -> float | None:
    """Two-sided p of a difference of zero: (1 + centred draws at least as far from 0) / (1 + draws).

    The draws, moved so that their centre is zero, stand for the difference if there were none.
    """
    if math.isnan(draws.value) or len(draws.resampled) < 2:
        return None
    apart = np.abs(draws.resampled - draws.value) >= abs(draws.value) - 1e-12
    return float(1 + apart.sum()) / (1 + len(draws.resampled))


def _interval(draws: Draws, samples: int, how: Resampling | None) -> Estimate:
    how = how or Resampling()
    return replace(draws.interval(how.level, how.method), n=samples)
