"""Exact and permutation tests of paired differences, and the score interval for few discordant pairs.

Without SciPy, whose import costs more than the tests do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.blas import single_threaded
from evalrun.analysis.distributions import normal_quantile

Floats = NDArray[np.float64]

PERMUTATIONS = 10_000
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


@dataclass(frozen=True, slots=True)
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
