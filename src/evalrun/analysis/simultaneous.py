"""The best of several runs on the same samples, and the runs that cannot be told from it.

Who looks best was chosen by the data, so each comparison with it must hold among all comparisons that could
have been made: all pairs at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.blas import single_threaded
from evalrun.analysis.bootstrap import resampled_sums, unit_totals
from evalrun.analysis.distributions import sorted_quantile, t_quantile
from evalrun.types import Direction

Floats = NDArray[np.float64]

RESAMPLES = 4_000
_FAR, _GRID = 6.0, 97
"""Up to so many standard errors Student's t is looked up, at so many places."""


@dataclass(frozen=True, slots=True)
class AllPairs:
    """Means of k columns over the same n samples, and how far any two of them differ by chance.

    `se` is (k, k), the standard error of each difference; `greatest` the greatest |difference| / se of any
    pair in each resample of centred data, sorted.
    """

    means: Floats
    se: Floats
    greatest: Floats
    n: int
    units: int

    def difference(self, i: int, j: int) -> float:
        """Mean of column i minus that of column j."""
        return float(self.means[i] - self.means[j])

    def p(self, i: int, j: int) -> float:
        """p of i = j, corrected for all pairs: share of resamples in which some pair differs as much.

        Where every unit differs by the same, resampling knows no chance at all; then it is the exact sign
        test's, times the number of pairs.
        """
        difference, se = abs(self.difference(i, j)), float(self.se[i, j])
        if difference == 0 or len(self.greatest) == 0:
            return 1.0
        if se == 0:
            return min(1.0, math.comb(len(self.means), 2) * 2.0 ** (1 - self.units))
        as_large = len(self.greatest) - int(np.searchsorted(self.greatest, difference / se - 1e-9))
        return (1 + as_large) / (1 + len(self.greatest))

    def interval(self, i: int, j: int, level: float = 0.95) -> tuple[float, float] | None:
        """Bounds for i - j that hold for all pairs at once with probability `level`.

        None where every unit differs by the same: that shows no chance, not that there is none.
        """
        if len(self.greatest) == 0 or (self.se[i, j] == 0 and self.difference(i, j) != 0):
            return None
        half = sorted_quantile(self.greatest, level) * float(self.se[i, j])
        return self.difference(i, j) - half, self.difference(i, j) + half


def all_pairs(
    values: Floats,
    clusters: NDArray[Any] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> AllPairs:
    """Compare the columns of `values`, shape (n, k), without NaN, row by row (max-T bootstrap).

    Samples, or whole clusters (n,), are drawn with replacement, the same for all columns, so that what they
    have in common cancels. The draws are widened as Student's t is wider than the normal distribution.
    (Romano and Wolf 2005, Econometrica 73, 1237, for why the greatest statistic corrects for all.)
    """
    n, k = values.shape
    means = values.mean(axis=0)
    totals = unit_totals(values - means, clusters)
    units = len(totals)
    if units < 2 or k < 2:
        return AllPairs(means, np.zeros((k, k)), np.empty(0), n, units)
    with single_threaded():
        covariance = units / (units - 1) * (totals.T @ totals) / n**2
        variances = np.diag(covariance)
        squared = np.maximum(variances[:, None] + variances[None, :] - 2 * covariance, 0.0)
        squared[squared <= 1e-20 * max(1e-300, float(variances.max()))] = 0.0
        se = np.sqrt(squared)
        blocks = [_greatest(sums / n, se) for sums in resampled_sums(totals, seed=seed, resamples=resamples)]
    greatest = np.sort(np.concatenate(blocks)) * math.sqrt(units / (units - 1))
    return AllPairs(means, se, _as_student(greatest, units - 1), n, units)


def _as_student(greatest: Floats, df: int) -> Floats:
    """Values of a normal distribution as those of Student's t that are as rare.

    The far tail is widened more than the middle, and with many pairs the greatest of them lies far out.
    """
    end = min(_FAR, float(greatest[-1])) or 1.0
    grid = np.linspace(0.0, end, _GRID)
    points = [t_quantile(1 - math.erfc(at / math.sqrt(2)) / 2, df) if at else 0.0 for at in grid.tolist()]
    beyond = np.maximum(greatest / end, 1.0)
    return np.asarray(np.interp(greatest, grid, points) * beyond)


def _greatest(means: Floats, se: Floats) -> Floats:
    """The greatest |difference| / se of any pair, for each row of means."""
    inverse = np.divide(1.0, se, out=np.zeros_like(se), where=se > 0)
    found = np.zeros(len(means))
    for i in range(1, means.shape[1]):
        sizes = np.abs(means[:, :i] - means[:, i : i + 1]) * inverse[i, :i]
        np.maximum(found, sizes.max(axis=1), out=found)
    return found


@dataclass(frozen=True, slots=True)
class TiedSet:
    """`order` of the columns from best to worst; `tied` those that cannot be told from the best, with it.

    `p[i]` is that of the best against column i, corrected for all pairs (1 for the best itself).
    """

    order: tuple[int, ...]
    tied: tuple[int, ...]
    p: tuple[float, ...]
    pairs: AllPairs

    @property
    def best(self) -> int:
        """The column with the best mean."""
        return self.order[0]


def tied_set(
    values: Floats,
    clusters: NDArray[Any] | None = None,
    *,
    direction: Direction = "higher",
    alpha: float = 0.05,
    seed: int = 0,
) -> TiedSet:
    """The best column of `values`, shape (n, k), and those not shown to be behind it at level alpha.

    With probability 1 - alpha no column that is truly as good as the best-looking one is left out.
    """
    pairs = all_pairs(values, clusters, seed=seed)
    sign = 1 if direction == "lower" else -1
    order = tuple(int(at) for at in np.argsort(sign * pairs.means, kind="stable"))
    p = tuple(pairs.p(order[0], at) for at in range(values.shape[1]))
    tied = tuple(at for at in order if at == order[0] or p[at] > alpha)
    return TiedSet(order, tied, p, pairs)
