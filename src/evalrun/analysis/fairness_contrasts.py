"""The signed difference between two groups, with an interval and a p that hold for the data at hand.

Independent shares get Newcombe's interval and Fisher's exact test: both hold for small groups and at 0 and
1. Everything else (other scores, samples that belong together, repeats) gets the difference of two means
with a standard error clustered by the unit that was drawn. To first order that is the variance which a
bootstrap of whole clusters converges to; it costs no resampling, has no noise of its own, and its t quantile
widens it where clusters are few, which a percentile bootstrap does not (the tests compare the three).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.distributions import t_quantile, t_tail
from evalrun.analysis.intervals import FEW_CLUSTERS, LEVEL, wilson

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
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
) -> Contrast:
    """Mean of `group` minus mean of `against`, two masks that share no unit.

    `independent` is False where values are means over repeats, `bounds` are those of the values.
    """
    ours, theirs = values[group], values[against]
    if len(ours) == 0 or len(theirs) == 0:
        return Contrast(None, len(ours), len(theirs), note="no samples")
    binary = bool(((values == 0) | (values == 1))[group | against].all())
    if binary and clusters is None and independent:
        return _shares(float(ours.sum()), len(ours), float(theirs.sum()), len(theirs))
    found = _clustered(values, group, against, clusters)
    if found.se is None and binary:
        found = _equal_within(values, group, against, clusters)
    return _clipped(found, bounds)


def _shares(hits: float, n: int, hits_against: float, n_against: int) -> Contrast:
    """Difference of two independent shares: method 10 of Newcombe (1998), Fisher's exact test.

    low = d - sqrt((p1 - l1)^2 + (u2 - p2)^2), high = d + sqrt((u1 - p1)^2 + (p2 - l2)^2), with Wilson's
    bounds l and u of each share.
    """
    one, other = wilson(hits, n), wilson(hits_against, n_against)
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


def _clustered(values: Floats, group: Mask, against: Mask, clusters: Ints | None) -> Contrast:
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
    half = t_quantile(0.5 + LEVEL / 2, df) * se
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


def _equal_within(values: Floats, group: Mask, against: Mask, clusters: Ints | None) -> Contrast:
    """Shares that are 0 or 1 throughout a group: as if each cluster (or sample id) were one sample."""
    sizes = [
        int(mask.sum()) if clusters is None else len(np.unique(clusters[mask])) for mask in (group, against)
    ]
    shares = float(values[group].mean()), float(values[against].mean())
    found = _shares(shares[0] * sizes[0], sizes[0], shares[1] * sizes[1], sizes[1])
    note = "" if clusters is None else f"all values within a group are equal: as of {min(sizes)} clusters"
    both = 0 if clusters is None else len(np.intersect1d(clusters[group], clusters[against]))
    return replace(
        found,
        n=int(group.sum()),
        n_against=int(against.sum()),
        p=None if both else found.p,  # the exact test is for groups that share no cluster
        note="; ".join(part for part in (found.note, note) if part),
    )


def _clipped(found: Contrast, bounds: tuple[float | None, float | None]) -> Contrast:
    """A difference of values between a and b lies between a - b and b - a."""
    if bounds[0] is None or bounds[1] is None or found.low is None or found.high is None:
        return found
    width = bounds[1] - bounds[0]
    return replace(found, low=max(-width, found.low), high=min(width, found.high))
