"""TODO"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.distributions import t_quantile, t_tail
from evalrun.analysis.intervals import FEW_CLUSTERS, LEVEL, wilson
from evalrun.results import ByChance

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
    result = _clustered(values, group, against, clusters)
    if result.se is None and binary:
        result = _equal_within(values, group, against, clusters)
    return _clipped(result, bounds)


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
    result = _shares(shares[0] * sizes[0], sizes[0], shares[1] * sizes[1], sizes[1])
    note = "" if clusters is None else f"all values within a group are equal: as of {min(sizes)} clusters"
    both = 0 if clusters is None else len(np.intersect1d(clusters[group], clusters[against]))
    return replace(
        result,
        n=int(group.sum()),
        n_against=int(against.sum()),
        p=None if both else result.p,  # the exact test is for groups that share no cluster
        note="; ".join(part for part in (result.note, note) if part),
    )


def _clipped(result: Contrast, bounds: tuple[float | None, float | None]) -> Contrast:
    """A difference of values between a and b lies between a - b and b - a."""
    if bounds[0] is None or bounds[1] is None or result.low is None or result.high is None:
        return result
    width = bounds[1] - bounds[0]
    return replace(result, low=max(-width, result.low), high=min(width, result.high))


PERMUTATIONS = 1_000
_LEAST = 200
_BLOCK = 1_000_000
_WORK = 40_000_000
"""Numbers shuffled for one gap at most; larger data get fewer permutations."""

_NORMAL = 200
"""From this group size on the means of shuffled groups are drawn from their normal limit, not shuffled."""

AMONG = "labels shuffled among samples"
WITHIN = "labels shuffled within clusters"
WHOLE = "labels shuffled among whole clusters"


@dataclass(frozen=True, slots=True)
class Part:
    """Values and the group of each; every code 0 … k-1 occurs. `clusters` is None where all are apart."""

    values: Floats
    groups: Ints
    clusters: Ints | None


def gap_of(values: Floats, groups: Ints) -> float:
    """Greatest minus least group mean; every code 0 … k-1 occurs."""
    means = np.bincount(groups, weights=values) / np.bincount(groups)
    return float(means.max() - means.min())


def chance_of_largest(parts: Sequence[Part], seed: int) -> ByChance:
    """Compare the largest of the gaps of several parts (that share no sample and have the same groups) with
    those under shuffled labels.

    With clusters, labels are shuffled within them where most samples are in a cluster of several groups (the
    same template with different names), else whole blocks of one cluster and group are shuffled. Labels are
    shuffled within each part, so that what the parts differ in (the right answer, for equalized odds) stays
    as it is. Clusters that are shuffled as wholes take their samples of every part along.
    """
    rng = np.random.default_rng(seed)
    observed = max(gap_of(part.values, part.groups) for part in parts)
    if all(part.values.min() == part.values.max() for part in parts):
        return ByChance(0.0, 0.0, 1.0, 0, "all values are equal")
    total = sum(len(part.values) for part in parts)
    count = int(max(_LEAST, min(PERMUTATIONS, _WORK // total)))
    clustered = [(part, part.clusters) for part in parts if part.clusters is not None]
    if len(clustered) < len(parts):
        gaps, how = [_shuffled(part.values, part.groups, count, rng) for part in parts], AMONG
    elif _several_in_most(clustered):
        gaps, how = [_within(part, clusters, count, rng) for part, clusters in clustered], WITHIN
    else:
        gaps, how = [_whole(clustered, count, rng)], WHOLE
    largest = np.max(gaps, axis=0)
    as_large = int((largest >= observed - 1e-12).sum())
    p95, p = float(np.quantile(largest, 0.95)), (1 + as_large) / (1 + count)
    return ByChance(float(largest.mean()), p95, p, count, how)


def _gaps(means: Floats) -> Floats:
    return np.asarray(means.max(axis=1) - means.min(axis=1))


def _shuffled(values: Floats, groups: Ints, count: int, rng: np.random.Generator) -> Floats:
    sizes = np.bincount(groups)
    if ((values == 0) | (values == 1)).all():
        # Where the hits fall among the groups is hypergeometric: the whole distribution at once.
        hits = rng.multivariate_hypergeometric(sizes, int(values.sum()), size=count, method="marginals")
        return _gaps(hits / sizes)
    if sizes.min() >= _NORMAL:
        # Means of shuffled groups: independent normal ones, less their weighted mean.
        z = rng.standard_normal((count, len(sizes))) * values.std(ddof=1) / np.sqrt(sizes)
        return _gaps(z - (z @ sizes / sizes.sum())[:, None])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    parts = []
    for size in _blocks(count, len(values)):
        drawn = rng.permuted(np.tile(values, (size, 1)), axis=1)
        parts.append(_gaps(np.add.reduceat(drawn, starts, axis=1) / sizes))
    return np.concatenate(parts)


def _several_in_most(parts: Sequence[tuple[Part, Ints]]) -> bool:
    """Whether most samples are in a cluster that holds samples of several groups."""
    groups = np.concatenate([part.groups for part, _ in parts])
    clusters = np.unique(np.concatenate([codes for _, codes in parts]), return_inverse=True)[1]
    width = int(groups.max()) + 1
    blocks = np.unique(clusters * width + groups)
    several = np.bincount(blocks // width) > 1
    return bool(several[clusters].mean() >= 0.5)


def _whole(parts: Sequence[tuple[Part, Ints]], count: int, rng: np.random.Generator) -> Floats:
    """Largest gaps where blocks of one cluster and one group keep together and change labels."""
    clusters = np.unique(np.concatenate([codes for _, codes in parts]), return_inverse=True)[1]
    groups = np.concatenate([part.groups for part, _ in parts])
    width = int(groups.max()) + 1
    blocks, block = np.unique(clusters * width + groups, return_inverse=True)
    ends = np.cumsum([len(part.values) for part, _ in parts])[:-1]
    sums, sizes = [], []
    for (part, _), where in zip(parts, np.split(block, ends), strict=True):
        sums.append(np.bincount(where, weights=part.values, minlength=len(blocks)))
        sizes.append(np.bincount(where, minlength=len(blocks)).astype(np.float64))
    labels = blocks % width
    gaps = []
    for size in _blocks(count, len(blocks)):
        drawn = rng.permuted(np.tile(labels, (size, 1)), axis=1)
        largest = np.zeros(size)
        for part_sums, part_sizes in zip(sums, sizes, strict=True):
            with np.errstate(invalid="ignore", divide="ignore"):
                means = np.stack(
                    [
                        ((drawn == group) @ part_sums) / ((drawn == group) @ part_sizes)
                        for group in range(width)
                    ],
                    axis=1,
                )
            # A group that a shuffle leaves without a sample of this part takes no part in the gap.
            high = np.where(np.isnan(means), -np.inf, means).max(axis=1)
            low = np.where(np.isnan(means), np.inf, means).min(axis=1)
            largest = np.maximum(largest, high - low)
        gaps.append(largest)
    return np.concatenate(gaps)


def _within(part: Part, clusters: Ints, count: int, rng: np.random.Generator) -> Floats:
    cluster = np.unique(clusters, return_inverse=True)[1]
    order = np.argsort(cluster, kind="stable")
    values, groups, cluster = part.values[order], part.groups[order], cluster[order]
    by_group = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    parts = []
    for size in _blocks(count, len(values)):
        # Sorting by cluster + noise below 1 shuffles within each cluster.
        places = np.argsort(cluster + rng.random((size, len(values))), axis=1)
        drawn = values[places][:, by_group]
        parts.append(_gaps(np.add.reduceat(drawn, starts, axis=1) / sizes))
    return np.concatenate(parts)


def _blocks(count: int, width: int) -> list[int]:
    size = max(1, min(count, _BLOCK // width))
    return [min(size, count - begin) for begin in range(0, count, size)]
