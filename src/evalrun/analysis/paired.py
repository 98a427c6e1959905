"""The difference between two runs on the same samples: test, interval, and what could have been seen.

Two intervals that overlap say little about a difference; the differences sample by sample do. Which test and
interval suit which data is decided here and written down in docs/statistics.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.correction import ALPHA, benjamini_hochberg, holm
from evalrun.analysis.distributions import normal_quantile, t_quantile
from evalrun.analysis.intervals import mean_clustered, mean_t
from evalrun.analysis.sign_tests import PERMUTATIONS, mcnemar_exact, score_interval, sign_flip
from evalrun.results import Estimate, PairedResult
from evalrun.types import Direction

__all__ = [
    "PairedResult",
    "benjamini_hochberg",
    "equivalent",
    "holm",
    "non_inferiority",
    "paired_difference",
    "samples_needed",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

POWER = 0.80
FEW_DISCORDANT = 25
"""Below so many discordant pairs the t interval covers too rarely (86 % with two), and Tango's is taken."""


@dataclass(frozen=True, slots=True)
class _Pairs:
    """The pairs without the missing ones. `clusters` are codes 0 … count - 1, or None."""

    a: Floats
    b: Floats
    d: Floats
    clusters: Ints | None
    units: int
    binary: bool
    unit_range: bool

    @property
    def discordant(self) -> tuple[int, int]:
        return int((self.d < 0).sum()), int((self.d > 0).sum())


def paired_difference(
    a: Floats,
    b: Floats,
    clusters: NDArray[Any] | None = None,
    *,
    seed: int = 0,
    alpha: float = ALPHA,
    margin: float | None = None,
    permutations: int = PERMUTATIONS,
) -> PairedResult:
    """Compare b with a, two arrays of shape (n,) with one value a sample id, aligned (NaN: missing).

    Repeats must have been averaged within their sample id. `clusters`, shape (n,), says which samples belong
    together. 0/1 data without clusters get the exact McNemar test; all else a sign-flip permutation test, of
    whole clusters where there are any (`permutations` flips, seeded; all of them where few units differ). The
    interval is t on the differences, clustered with clusters; Tango's score interval for 0/1 data with fewer
    than 25 discordant pairs. `margin`, in the metric's unit, is only carried along for the verdict.
    Raises ValueError where the shapes differ.
    """
    pairs, dropped = _pairs(a, b, clusters)
    n = len(pairs.d)
    if n == 0:
        nothing = (None,) * 7
        return PairedResult(0, dropped, None, *nothing, "", None, None, None, "", "no pairs", alpha, margin)
    outer, inner = _interval(pairs, 1 - alpha), _interval(pairs, 1 - 2 * alpha)
    p, test, test_note = _test(pairs, seed, alpha, permutations)
    mde = _detectable(pairs, outer.se, alpha)
    return PairedResult(
        n=n,
        dropped=dropped,
        n_clusters=None if pairs.clusters is None else pairs.units,
        mean_a=float(pairs.a.mean()),
        mean_b=float(pairs.b.mean()),
        difference=float(pairs.d.mean()),
        se=outer.se,
        ci_low=outer.low,
        ci_high=outer.high,
        p=p,
        test=test,
        discordant=pairs.discordant if pairs.binary else None,
        correlation=_correlation(pairs),
        mde=mde,
        method=outer.method,
        note="; ".join(part for part in (outer.note, test_note) if part),
        alpha=alpha,
        margin=margin,
        inner_low=inner.low,
        inner_high=inner.high,
    )


def decided_difference(
    a: Floats, b: Floats, clusters: NDArray[Any] | None = None, *, seed: int = 0, alpha: float = ALPHA,
    tests: int = 1,
) -> PairedResult:  # fmt: skip
    """`paired_difference` as one of `tests`, with p and interval that agree (Bonferroni for the number).

    The exact test and the interval are made in different ways, and near the border one may see a difference
    where the other does not. Then there is none: where p > alpha the bounds are widened to reach 0, and where
    the bounds reach 0 though p <= alpha, p is that of the interval: 1 minus the level at which it excludes 0.
    """
    level = alpha / tests
    result = paired_difference(a, b, clusters, seed=seed, alpha=level)
    p, low, high = result.p, result.ci_low, result.ci_high
    if p is None:
        return result
    if low is not None and high is not None:
        if p > level:
            low, high = min(low, 0.0), max(high, 0.0)
        elif low <= 0.0 <= high:
            p = _p_of_interval(_pairs(a, b, clusters)[0], level)
    return replace(result, p=min(1.0, p * tests), ci_low=low, ci_high=high)


def _p_of_interval(pairs: _Pairs, known: float) -> float:
    """1 - the greatest level at which the interval excludes 0; at 1 - `known` it does not."""
    inside, outside = known, 1.0
    for _ in range(40):
        middle = (inside + outside) / 2
        found = _interval(pairs, 1 - middle)
        if found.low is None or found.high is None or found.low <= 0 <= found.high:
            inside = middle
        else:
            outside = middle
    return outside


def _pairs(a: Floats, b: Floats, clusters: NDArray[Any] | None) -> tuple[_Pairs, int]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1 or (clusters is not None and np.shape(clusters) != a.shape):
        raise ValueError("a, b and clusters must be one-dimensional and of the same length")
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    codes, units = None, len(a)
    if clusters is not None and len(a):
        labels, codes = np.unique(np.asarray(clusters)[known], return_inverse=True)
        units = len(labels)
        if units == len(a):  # every sample is a cluster of its own: there are no clusters
            codes = None
    both = np.concatenate([a, b])
    binary = bool(((both == 0) | (both == 1)).all())
    unit_range = bool(((both >= 0) & (both <= 1)).all())
    return _Pairs(a, b, b - a, codes, units, binary, unit_range), int(len(known) - known.sum())


def _interval(pairs: _Pairs, level: float) -> Estimate:
    """The mean of the differences with the interval that suits them."""
    d, n = pairs.d, len(pairs.d)
    plain = mean_t(d, level=level) if pairs.clusters is None else _clustered(pairs, level)
    if pairs.units < 2:
        return plain
    alike = bool((d == d[0]).all()) and (d[0] == 0 or abs(d[0]) == 1)
    if alike and pairs.unit_range:
        # Units all alike have no spread to make an interval from, but as many like them bound the share that
        # may differ, and a difference of values in 0 … 1 is no greater than that share.
        unlike = (pairs.units if d[0] < 0 else 0, pairs.units if d[0] > 0 else 0)
        low, high = score_interval(*unlike, pairs.units, level)
        what = "no pair differs" if d[0] == 0 else "every pair differs alike"
        note = f"{what}: the interval bounds how many of {pairs.units} might"
        return Estimate(float(d[0]), n, 0.0, low, high, "score", note)
    if pairs.clusters is None and pairs.binary and sum(pairs.discordant) < FEW_DISCORDANT:
        low, high = score_interval(*pairs.discordant, n, level)
        return Estimate(plain.value, n, plain.se, low, high, "score")
    return plain


def _clustered(pairs: _Pairs, level: float) -> Estimate:
    assert pairs.clusters is not None
    return mean_clustered(pairs.d, pairs.clusters, level=level)


def _test(pairs: _Pairs, seed: int, alpha: float, permutations: int) -> tuple[float, str, str]:
    """(p, name of the test, note)."""
    if pairs.clusters is None and pairs.binary:
        return mcnemar_exact(*pairs.discordant), "mcnemar-exact", ""
    sums = pairs.d if pairs.clusters is None else np.bincount(pairs.clusters, weights=pairs.d)
    test = "paired-permutation" if pairs.clusters is None else "clustered-permutation"
    found = sign_flip(np.asarray(sums, np.float64), seed, permutations)
    what = "samples" if pairs.clusters is None else "clusters"
    needed = _fewest(alpha)
    note = f"fewer than {needed} {what} cannot give p <= {alpha:g}" if pairs.units < needed else ""
    return found.p, test, note


def _correlation(pairs: _Pairs) -> float | None:
    a, b = pairs.a - pairs.a.mean(), pairs.b - pairs.b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    if size <= 1e-12 * max(1.0, float(pairs.a @ pairs.a), float(pairs.b @ pairs.b)):
        return None
    return max(-1.0, min(1.0, float(a @ b) / size))


def _fewest(alpha: float) -> int:
    """So many units must differ, all in one direction, before a sign test can give p <= alpha."""
    return math.ceil(math.log2(2 / alpha) - 1e-9)


def _detectable(pairs: _Pairs, se: float | None, alpha: float) -> float | None:
    """(quantile of 1 - alpha/2 + quantile of 0.80) x SE, of the normal (McNemar) or of t.

    For 0/1 data at least what gives the fewest discordant pairs that can be significant in 80 % of cases:
    with few discordant pairs the standard error promises too much.
    """
    fewest = _fewest(alpha)
    if pairs.units < fewest:
        return None
    exact = pairs.clusters is None and pairs.binary
    if exact:
        factor = normal_quantile(1 - alpha / 2) + normal_quantile(POWER)
        found = max(factor * (se or 0.0), _mean_for(fewest) / len(pairs.d))
        return found if found <= 1 else None
    if not se:
        return None
    df = pairs.units - 1
    return (t_quantile(1 - alpha / 2, df) + t_quantile(POWER, df)) * se


def _mean_for(least: int) -> float:
    """The mean of a Poisson variable that is at least `least` with probability POWER (7.91 for 6)."""
    low, high = 0.0, 10.0 * least + 10
    for _ in range(60):
        middle = (low + high) / 2
        below = math.exp(-middle) * sum(middle**k / math.factorial(k) for k in range(least))
        low, high = (middle, high) if 1 - below < POWER else (low, middle)
    return high


def non_inferiority(result: PairedResult, margin: float, direction: Direction = "higher") -> bool | None:
    """Whether b is shown to be no worse than a by `margin` (>= 0, in the metric's unit).

    One-sided at alpha/2: the bound of the shown interval on the bad side lies within the margin. None where
    there is no interval. A metric without direction may move neither way.
    """
    if result.ci_low is None or result.ci_high is None:
        return None
    up_is_fine, down_is_fine = result.ci_low > -margin, result.ci_high < margin
    if direction == "none":
        return up_is_fine and down_is_fine
    return up_is_fine if direction == "higher" else down_is_fine


def equivalent(result: PairedResult, margin: float) -> bool | None:
    """Whether a and b are shown to differ by less than `margin`: two one-sided tests at alpha (Schuirmann
    1987), which is the 1 - 2 alpha interval lying within +-margin. None where there is no interval."""
    if result.inner_low is None or result.inner_high is None:
        return None
    return -margin < result.inner_low and result.inner_high < margin


def samples_needed(result: PairedResult, effect: float) -> int | None:
    """About how many pairs would find a difference of `effect` with 80 % power, if they were like these.

    n (mde / effect)^2, at least the discordant pairs that a test needs; with clusters, as many more of them
    as of samples. None where the minimum detectable effect is unknown.
    """
    if result.mde is None or effect <= 0:
        return None
    needed = float(result.n)
    if result.discordant is None or result.se is None:
        needed *= (result.mde / effect) ** 2
    else:
        factor = normal_quantile(1 - result.alpha / 2) + normal_quantile(POWER)
        needed *= (factor * result.se / effect) ** 2
        needed = max(needed, _mean_for(_fewest(result.alpha)) / effect)
    return math.ceil(needed)
