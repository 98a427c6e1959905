"""The difference between two runs on the same samples: test, interval, and what could have been seen.

Two intervals that overlap say little about a difference; the differences sample by sample do. Which test and
interval suit which data is decided here and written down in docs/statistics.md. Without SciPy, whose import
costs more than the tests do."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.correction import ALPHA
from evalrun.analysis.distributions import normal_quantile, single_threaded, t_quantile
from evalrun.analysis.intervals import clipped, mean_clustered, mean_t
from evalrun.analysis.power import (
    POWER,
    detectable_share,
    even_churn,
    independent_churn,
    pairs_needed,
    rescaled,
)
from evalrun.analysis.weighted import effective, mean_weighted
from evalrun.frozen import frozen
from evalrun.results import Estimate
from evalrun.sweep_results import PairedResult
from evalrun.types import Direction

Floats = NDArray[np.float64]

PERMUTATIONS = 10_000
FEW_DISCORDANT = 5
"""With fewer pairs that disagree, or where all disagree alike, the score interval covers up to 100 %."""
_EXACT_UNITS = 13
"""Up to so many differing units all 2^k sign patterns are taken: they are fewer than the permutations."""
_FEW_SIZES = 64
_LARGEST = 4_096
"""So many of the largest units are flipped one by one; the sum of the smaller ones is drawn as normal."""
_BLOCK = 1_000_000


def mcnemar_exact(a_only: int, b_only: int) -> float:
    """Two-sided exact McNemar test: min(1, 2 P(B <= min)) for B binomial(a_only + b_only, 1/2).

    The pairs that agree say nothing (McNemar 1947; the exact form is the sign test on the discordant pairs).
    Equals `scipy.stats.binomtest(a_only, a_only + b_only).pvalue`.
    """
    n, k = a_only + b_only, min(a_only, b_only)
    if 2 * k >= n - 1:
        return 1.0
    log_first = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
    # Terms fall geometrically from k downwards: C(n, i-1) = C(n, i) i / (n - i + 1).
    total, term, i = 1.0, 1.0, k
    while i > 0 and term > 1e-18 * total:
        term *= i / (n - i + 1)
        total += term
        i -= 1
    return min(1.0, 2 * math.exp(log_first) * total)


def binomial_note(hits: float, trials: float, *, independent: bool) -> str:
    """The test in words, for a figure's note; of dependent samples it says that there is none."""
    if not independent:
        return "no binomial test: samples depend on each other"
    if not round(trials):
        return ""
    # The exact test against one half is McNemar's test of the pairs that prefer one or the other.
    p = mcnemar_exact(round(hits), round(trials) - round(hits))
    shown = f"p = {p:.2g}" if p >= 0.0001 else "p < 0.0001"
    return f"{hits:,.0f} of {trials:,.0f}; {shown} against one half (exact binomial test)"


def score_interval(a_only: float, b_only: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Interval for the difference b - a of two paired proportions, by Tango's score test (1998).

    Covers the differences D that the test |b - c - nD| / sqrt(n (2q + D(1 - D))) <= z does not reject, with
    q the maximum-likelihood share of the a-only pairs under D. It keeps its coverage with few discordant
    pairs, or none: then it is +-z^2/(n + z^2). Statistics in Medicine 17, 891; recommended for few pairs by
    Fagerland, Lydersen and Laake (2014), BMC Medical Research Methodology 14:45.
    """
    z = normal_quantile(0.5 + level / 2)
    found = (b_only - a_only) / n

    def statistic(delta: float) -> float:
        linear = -a_only - b_only + (2 * n - b_only + a_only) * delta
        root = math.sqrt(max(0.0, linear * linear + 8 * n * a_only * delta * (1 - delta)))
        variance = n * ((root - linear) / (2 * n) + delta * (1 - delta))
        excess = b_only - a_only - n * delta
        if variance <= 1e-12:
            return 0.0 if abs(excess) < 1e-9 else math.copysign(math.inf, excess)
        return excess / math.sqrt(variance)

    def bound(inside: float, outside: float, target: float) -> float:
        for _ in range(60):
            middle = (inside + outside) / 2
            if abs(statistic(middle)) <= target:
                inside = middle
            else:
                outside = middle
        return inside

    return bound(found, -1.0, z), bound(found, 1.0, z)


@frozen
class SignFlip:
    """`p`, two-sided; `permutations` that it rests on; `exact` where these are all there are."""

    p: float
    permutations: int
    exact: bool


def sign_flip(sums: Floats, seed: int, permutations: int = PERMUTATIONS) -> SignFlip:
    """Test that the sums of independent units (samples, or whole clusters) are symmetric about zero.

    If A and B are alike, the sign of each unit's difference is a toss of a coin. The statistic is the
    absolute total; p = (1 + as large) / (1 + permutations), or the exact share where few units differ.
    """
    sizes = np.abs(sums[sums != 0.0])
    observed = abs(float(sums.sum()))
    if len(sizes) == 0:
        return SignFlip(1.0, 0, True)
    limit = observed - 1e-9 * float(sizes.sum())
    if len(sizes) <= _EXACT_UNITS:
        totals = np.zeros(1)
        for size in sizes:
            totals = np.concatenate([totals + size, totals - size])
        return SignFlip(float((np.abs(totals) >= limit).mean()), len(totals), True)
    with single_threaded():
        totals = _flipped(sizes, permutations, np.random.default_rng(seed))
    as_large = int((np.abs(totals) >= limit).sum())
    return SignFlip((1 + as_large) / (1 + permutations), permutations, False)


def _flipped(sizes: Floats, permutations: int, rng: np.random.Generator) -> Floats:
    """Totals of the sizes with random signs, one a permutation."""
    distinct, counts = np.unique(sizes, return_counts=True)
    if len(distinct) <= _FEW_SIZES:
        # The signs of m equal sizes add up to 2 binomial(m, 1/2) - m.
        heads = rng.binomial(counts, 0.5, size=(permutations, len(counts)))
        return np.asarray((2.0 * heads - counts) @ distinct)
    ordered = np.sort(sizes)
    rest, largest = ordered[:-_LARGEST], ordered[-_LARGEST:]
    totals = np.empty(permutations)
    block = max(1, _BLOCK // len(largest))
    for begin in range(0, permutations, block):
        rows = min(block, permutations - begin)
        width = -(-len(largest) // 8)
        tossed = np.unpackbits(rng.integers(256, size=(rows, width), dtype=np.uint8), axis=1)
        heads_total = tossed[:, : len(largest)].astype(np.float64) @ largest
        totals[begin : begin + rows] = 2.0 * heads_total - largest.sum()
    if len(rest):
        totals += math.sqrt(float(rest @ rest)) * rng.standard_normal(permutations)
    return totals


Ints = NDArray[np.int64]


@frozen
class _Pairs:
    """The pairs without the missing ones. `clusters` are codes 0 … count - 1, or None."""

    a: Floats
    b: Floats
    d: Floats
    clusters: Ints | None
    units: int
    binary: bool
    unit_range: bool
    weights: Floats | None = None
    """What each pair stands for, 1 in the mean; None where all count alike."""

    @property
    def worth(self) -> int:
        """The units that pairs of unequal weight are worth."""
        return self.units if self.weights is None else max(2, int(min(self.units, effective(self.weights))))

    def average(self, values: Floats) -> float:
        """The mean of values of the pairs."""
        return float(np.average(values, weights=self.weights))

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
    tests: int = 1,
    weights: Floats | None = None,
) -> PairedResult:
    """Compare b with a, two arrays of shape (n,) with one value a sample id, aligned (NaN: missing).

    Repeats must have been averaged within their sample id. `clusters`, shape (n,), says which samples belong
    together. 0/1 data without clusters get the exact McNemar test; all else a sign-flip permutation test, of
    whole clusters where there are any (`permutations` flips, seeded; all of them where few units differ). The
    interval is Tango's score interval for 0/1 data without clusters (t covers too rarely with few discordant
    pairs and near 1, and may exceed it); else t on the differences, clustered with clusters. `margin`, in the
    metric's unit, is only carried along for the verdict. As one of several `tests` that are corrected
    together, interval and detectable difference are those of alpha / tests; p is not corrected. `weights`,
    shape (n,), are what the samples stand for: means and interval are Hajek's, and the test flips
    the signs of weighted differences. Raises ValueError where the shapes differ.
    """
    pairs, dropped = _pairs(a, b, clusters, weights)
    n = len(pairs.d)
    if n == 0:
        nothing = (None,) * 7
        return PairedResult(0, dropped, None, *nothing, "", None, None, None, "", "no pairs", alpha, margin)
    outer, inner = _interval(pairs, 1 - alpha / tests), _interval(pairs, 1 - 2 * alpha)
    p, test, test_note = _test(pairs, seed, alpha, permutations)
    mde, independent = _detectable(pairs, outer.se, alpha / tests)
    return PairedResult(
        n=n,
        dropped=dropped,
        n_clusters=None if pairs.clusters is None else pairs.units,
        mean_a=pairs.average(pairs.a),
        mean_b=pairs.average(pairs.b),
        difference=pairs.average(pairs.d),
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
        mde_independent=independent,
        tests=tests,
    )


def decided_difference(
    a: Floats, b: Floats, clusters: NDArray[Any] | None = None, *, seed: int = 0, alpha: float = ALPHA,
    tests: int = 1, weights: Floats | None = None,
) -> PairedResult:  # fmt: skip
    """`paired_difference` as one of `tests`, with p and interval that agree (Bonferroni for the number).

    The exact test and the interval are made in different ways, and near the border one may see a difference
    where the other does not. Then there is none: where p > alpha the bounds are widened to reach 0, and where
    the bounds reach 0 though p <= alpha, p is that of the interval: 1 minus the level at which it excludes 0.
    """
    level = alpha / tests
    result = paired_difference(a, b, clusters, seed=seed, alpha=level, weights=weights)
    p, low, high = result.p, result.ci_low, result.ci_high
    if p is None:
        return result
    if low is not None and high is not None:
        if p > level:
            low, high = min(low, 0.0), max(high, 0.0)
        elif low <= 0.0 <= high:
            p = _p_of_interval(_pairs(a, b, clusters, weights)[0], level)
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


def _pairs(
    a: Floats, b: Floats, clusters: NDArray[Any] | None, weights: Floats | None = None
) -> tuple[_Pairs, int]:
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
    if weights is not None:
        weights = np.asarray(weights, np.float64)[known]
        weights = None if not len(weights) or (weights == weights[0]).all() else weights / weights.mean()
    binary = weights is None and bool(((both == 0) | (both == 1)).all())
    unit_range = bool(((both >= 0) & (both <= 1)).all())
    return _Pairs(a, b, b - a, codes, units, binary, unit_range, weights), int(len(known) - known.sum())


def _interval(pairs: _Pairs, level: float) -> Estimate:
    """The mean of the differences with the interval that suits them."""
    d, n = pairs.d, len(pairs.d)
    plain = _mean(pairs, d, level)
    if pairs.units < 2:
        return plain
    alike = bool((d == d[0]).all()) and (d[0] == 0 or abs(d[0]) == 1)
    if alike and pairs.unit_range:
        # Units all alike have no spread to make an interval from, but as many like them bound the share that
        # may differ, and a difference of values in 0 … 1 is no greater than that share.
        unlike = (pairs.worth if d[0] < 0 else 0, pairs.worth if d[0] > 0 else 0)
        low, high = score_interval(*unlike, pairs.worth, level)
        what = "no pair differs" if d[0] == 0 else "every pair differs alike"
        note = f"{what}: the interval bounds how many of {pairs.worth} might"
        return Estimate(float(d[0]), n, 0.0, low, high, "score", note)
    if pairs.clusters is None and pairs.binary:
        low, high = score_interval(*pairs.discordant, n, level)
        rare = sum(pairs.discordant) < FEW_DISCORDANT or not min(pairs.discordant)
        note = "few pairs disagree, or all alike: the interval may be wider than need be" * rare
        return Estimate(plain.value, n, plain.se, low, high, "score", note)
    return clipped(plain, (-1.0, 1.0)) if pairs.unit_range else plain


def _mean(pairs: _Pairs, values: Floats, level: float = 0.95) -> Estimate:
    """The mean of values of the pairs with the interval of their weights and clusters."""
    if pairs.weights is not None:
        return mean_weighted(values, pairs.weights, pairs.clusters, level=level)
    if pairs.clusters is None:
        return mean_t(values, level=level)
    return mean_clustered(values, pairs.clusters, level=level)


def _test(pairs: _Pairs, seed: int, alpha: float, permutations: int) -> tuple[float, str, str]:
    """(p, name of the test, note)."""
    if pairs.clusters is None and pairs.binary:
        return mcnemar_exact(*pairs.discordant), "mcnemar-exact", ""
    each = pairs.d if pairs.weights is None else pairs.d * pairs.weights
    sums = each if pairs.clusters is None else np.bincount(pairs.clusters, weights=each)
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


def _detectable(pairs: _Pairs, se: float | None, alpha: float) -> tuple[float | None, float | None]:
    """The difference found with power 0.80, with the disagreement that was seen, and as if a and b were
    independent of each other.

    0/1 data: `power.detectable_share`, and at least what gives the fewest discordant pairs that can be
    significant in 80 % of cases. Else (quantile of 1 - alpha/2 + quantile of 0.80 of t) x SE.
    """
    fewest = _fewest(alpha)
    if pairs.units < fewest:
        return None, None
    n = len(pairs.d)
    if pairs.clusters is None and pairs.binary:
        least, share = _mean_for(fewest) / n, float(pairs.a.mean())
        seen, independent = (
            detectable_share(n, churn, alpha)
            for churn in (even_churn(*pairs.discordant, n), independent_churn(share))
        )
        return tuple(None if x is None or max(x, least) > 1 else max(x, least) for x in (seen, independent))  # type: ignore[return-value]
    df = pairs.units - 1
    factor = t_quantile(1 - alpha / 2, df) + t_quantile(POWER, df)
    apart = math.hypot(*(_mean(pairs, values).se or 0.0 for values in (pairs.a, pairs.b)))
    return factor * se if se else None, factor * apart if apart else None


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

    0/1 data: `power.pairs_needed`, at least for the discordant pairs that a test needs. Else
    n (mde / effect)^2; with clusters, as many more of them as of samples. None where the minimum detectable
    effect is unknown.
    """
    if result.mde is None or effect <= 0:
        return None
    if result.discordant is None or result.n_clusters is not None:
        return math.ceil(result.n * (result.mde / effect) ** 2)
    alpha = result.alpha / result.tests
    needed = pairs_needed(effect, even_churn(*result.discordant, result.n), alpha)
    return None if needed is None else max(needed, math.ceil(_mean_for(_fewest(alpha)) / effect))


def agreeing(result: PairedResult, p: float | None, tests: int = 1) -> PairedResult:
    """The result of one of several tests that were corrected together: where the corrected p sees nothing the
    bounds reach 0, and the detectable difference is that of all the tests."""
    if result.tests < tests:
        scaled = [x and rescaled(x, result.alpha, tests) for x in (result.mde, result.mde_independent)]
        result = replace(result, mde=scaled[0], mde_independent=scaled[1], tests=tests)
    if p is None or p <= result.alpha or result.ci_low is None or result.ci_high is None:
        return result
    return replace(result, ci_low=min(result.ci_low, 0.0), ci_high=max(result.ci_high, 0.0))
