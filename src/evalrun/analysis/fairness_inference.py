"""One group against another: the difference of two means with its interval and test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.correction import ALPHA, holm
from evalrun.analysis.distributions import t_quantile, t_tail
from evalrun.analysis.intervals import FEW_CLUSTERS, LEVEL, wilson
from evalrun.analysis.permutation import Family
from evalrun.frozen import frozen

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@frozen
class Contrast:
    """Mean of one group minus that of another. `n` and `n_against` are their sizes in units."""

    value: float | None
    n: int
    n_against: int
    se: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    method: str = ""
    note: str = ""


def contrast(
    values: Floats,
    group: Mask,
    against: Mask,
    clusters: Ints | None,
    *,
    independent: bool = True,
    bounds: tuple[float | None, float | None] = (None, None),
    level: float = LEVEL,
) -> Contrast:
    """Mean of `group` minus mean of `against`, two masks that share no unit.

    `independent` is False where values are means over repeats, `bounds` are those of the values, `level` is
    that of the interval.
    """
    ours, theirs = values[group], values[against]
    if len(ours) == 0 or len(theirs) == 0:
        return Contrast(None, len(ours), len(theirs), note="no samples")
    binary = bool(((values == 0) | (values == 1))[group | against].all())
    if binary and clusters is None and independent:
        return _shares(float(ours.sum()), len(ours), float(theirs.sum()), len(theirs), level)
    result = _clustered(values, group, against, clusters, level)
    if result.se is None and binary:
        result = _equal_within(values, group, against, clusters, level)
    return within(result, bounds)


def _shares(hits: float, n: int, hits_against: float, n_against: int, level: float) -> Contrast:
    """Difference of two independent shares: method 10 of Newcombe (1998), Fisher's exact test.

    low = d - sqrt((p1 - l1)^2 + (u2 - p2)^2), high = d + sqrt((u1 - p1)^2 + (p2 - l2)^2), with Wilson's
    bounds l and u of each share.
    """
    one, other = wilson(hits, n, level), wilson(hits_against, n_against, level)
    p1, p2 = hits / n, hits_against / n_against
    plain = Contrast(p1 - p2, n, n_against, method="newcombe")
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return replace(plain, method="", note="one sample has no interval")
    return replace(
        plain,
        se=math.sqrt(p1 * (1 - p1) / n + p2 * (1 - p2) / n_against),
        low=p1 - p2 - math.hypot(p1 - one.low, other.high - p2),
        high=p1 - p2 + math.hypot(one.high - p1, p2 - other.low),
        p=fisher_exact(int(hits), n, int(hits_against), n_against),
    )


def fisher_exact(hits: int, n: int, hits_against: int, n_against: int) -> float:
    """Two-sided p of Fisher's exact test: the tables no likelier than the one seen, margins given."""
    total, marked = n + n_against, hits + hits_against
    low, high = max(0, marked - n_against), min(n, marked)
    factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    k = np.arange(low, high + 1)
    weight = -(factorial[k] + factorial[n - k] + factorial[marked - k] + factorial[n_against - marked + k])
    chance = np.exp(weight - weight.max())
    chance /= chance.sum()
    seen = chance[hits - low]
    return float(min(1.0, chance[chance <= seen * (1 + 1e-7)].sum()))


def _clustered(values: Floats, group: Mask, against: Mask, clusters: Ints | None, level: float) -> Contrast:
    """Difference of means with a clustered standard error.

    With u_c the sum over a cluster of (x - mean of its group) / n of its group, the other group's with a
    minus sign: SE^2 = C/(C-1) sum u_c^2, C - 1 being that of the group with fewer clusters for t. Where no
    cluster holds both groups it is Welch's t on clusters, and without clusters Welch's t.
    """
    rows = np.flatnonzero(group | against)
    mine = group[rows]
    taken = values[rows]
    n, m = int(mine.sum()), int((~mine).sum())
    means = float(taken[mine].mean()), float(taken[~mine].mean())
    value = means[0] - means[1]
    code = np.arange(len(rows)) if clusters is None else np.unique(clusters[rows], return_inverse=True)[1]
    influence = np.where(mine, (taken - means[0]) / n, -(taken - means[1]) / m)
    size = int(code.max()) + 1
    sums: Floats = np.bincount(code, weights=influence, minlength=size).astype(np.float64)
    with_mine = np.bincount(code[mine], minlength=size) > 0
    with_other = np.bincount(code[~mine], minlength=size) > 0
    fewest = int(min(with_mine.sum(), with_other.sum()))
    plain = Contrast(value, n, m)
    if fewest < 2:
        return replace(plain, note="one cluster has no interval" if clusters is not None else "n is 1")
    if (with_mine & with_other).any():
        variance, df = size / (size - 1) * float(np.square(sums).sum()), fewest - 1
    else:
        variance, df = _welch(sums, with_mine)
    se = math.sqrt(variance)
    if se <= 1e-12 * max(1.0, abs(value)):
        return replace(plain, note="all values within a group are equal, so there is no interval")
    half = t_quantile(0.5 + level / 2, df) * se
    few = f"{fewest} clusters; below {FEW_CLUSTERS} the interval is too narrow"
    return replace(
        plain,
        se=se,
        low=value - half,
        high=value + half,
        p=min(1.0, 2 * t_tail(abs(value) / se, df)),
        method="welch-t" if clusters is None else "clustered-t",
        note=few if clusters is not None and fewest < FEW_CLUSTERS else "",
    )


def _welch(sums: Floats, mine: Mask) -> tuple[float, int]:
    """Variance of a difference of independent groups of clusters, and Welch's degrees of freedom."""
    parts = []
    for which in (mine, ~mine):
        count = int(which.sum())
        parts.append((count / (count - 1) * float(np.square(sums[which]).sum()), count - 1))
    total = parts[0][0] + parts[1][0]
    if total == 0:
        return 0.0, 1
    df = total**2 / sum(variance**2 / freedom for variance, freedom in parts)
    return total, max(1, int(df))


def _equal_within(
    values: Floats, group: Mask, against: Mask, clusters: Ints | None, level: float
) -> Contrast:
    """Shares that are 0 or 1 throughout a group: as if each cluster (or sample id) were one sample."""
    sizes = [
        int(mask.sum()) if clusters is None else len(np.unique(clusters[mask])) for mask in (group, against)
    ]
    shares = float(values[group].mean()), float(values[against].mean())
    result = _shares(shares[0] * sizes[0], sizes[0], shares[1] * sizes[1], sizes[1], level)
    note = "" if clusters is None else f"all values within a group are equal: as of {min(sizes)} clusters"
    both = 0 if clusters is None else len(np.intersect1d(clusters[group], clusters[against]))
    return replace(
        result,
        n=int(group.sum()),
        n_against=int(against.sum()),
        p=None if both else result.p,  # the exact test is for groups that share no cluster
        note="; ".join(part for part in (result.note, note) if part),
    )


def within(result: Contrast, bounds: tuple[float | None, float | None]) -> Contrast:
    """A difference of values between a and b lies between a - b and b - a."""
    if bounds[0] is None or bounds[1] is None or result.low is None or result.high is None:
        return result
    width = bounds[1] - bounds[0]
    return replace(result, low=max(-width, result.low), high=min(width, result.high))


def jointly_tested(
    results: Sequence[Contrast], family: Family, bounds: tuple[float | None, float | None], tests: int
) -> tuple[list[Contrast], list[float | None]]:
    """The contrasts of one column with p values and intervals that hold for all of them at once.

    Where the exact tests of 0/1 samples hold, Holm's correction makes them hold together; else p and interval
    are those of the permutation. `tests` is 1 for two groups against each other, which are one test seen from
    either side.
    """
    exact = all(one.method in ("newcombe", "") for one in results) or not len(family.drawn)
    known = [one.p for one in results]
    if exact:
        adjusted = holm(known) if tests > 1 else known
    else:
        at = [place for place, p in enumerate(known) if p is not None or results[place].method]
        members = at[:1] if tests == 1 else at
        adjusted = [None] * len(results)
        for place, p in zip(at, family.adjusted(members) * (2 if tests == 1 else 1), strict=False):
            adjusted[place] = p
        results = [
            _permuted(one, family, place, members, bounds) if place in at else one
            for place, one in enumerate(results)
        ]
    return [_agreeing(one, p) for one, p in zip(results, adjusted, strict=True)], adjusted


def _permuted(
    one: Contrast,
    family: Family,
    at: int,
    members: Sequence[int],
    bounds: tuple[float | None, float | None],
) -> Contrast:
    """With p of the permutation, and its interval where the values of the groups spread."""
    if one.method not in _BY_T or one.value is None:
        return replace(one, p=family.p(at))
    half = family.half_width(at, members, ALPHA)
    wide = replace(one, low=one.value - half, high=one.value + half, p=family.p(at), method=_BY_T[one.method])
    return within(wide, bounds)


_BY_T = {"welch-t": "permutation-t", "clustered-t": "clustered-permutation-t"}


def _agreeing(one: Contrast, p: float | None) -> Contrast:
    """Test and interval are made in different ways; where the test sees no difference the bounds reach 0."""
    if p is None or p <= ALPHA or one.low is None or one.high is None:
        return one
    return replace(one, low=min(one.low, 0.0), high=max(one.high, 0.0))
