"""How large the gap between the best and the worst of several groups is by chance alone.

The greatest of several differences is never zero, even where the groups are treated alike, and a bootstrap
interval of it never contains zero. So the gap is compared with gaps under shuffled group labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

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
class Chance:
    """Mean and 95th percentile of the gap under shuffled labels, p = (1 + as large) / (1 + permutations)."""

    gap_p95: float
    p: float
    permutations: int
    how: str
    gap_mean: float = 0.0


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


def chance_of_gap(values: Floats, groups: Ints, clusters: Ints | None, seed: int) -> Chance:
    """Compare the gap with those under shuffled labels (`groups` has every code 0 … k-1 at least once).

    With clusters, labels are shuffled within them where most samples are in a cluster of several groups (the
    same template with different names), else whole blocks of one cluster and group are shuffled.
    """
    return chance_of_largest([Part(values, groups, clusters)], seed)


def chance_of_largest(parts: Sequence[Part], seed: int) -> Chance:
    """The same for the largest of the gaps of several parts that share no sample and have the same groups.

    Labels are shuffled within each part, so that what the parts differ in (the right answer, for equalized
    odds) stays as it is. Clusters that are shuffled as wholes take their samples of every part along.
    """
    rng = np.random.default_rng(seed)
    observed = max(gap_of(part.values, part.groups) for part in parts)
    if all(part.values.min() == part.values.max() for part in parts):
        return Chance(0.0, 1.0, 0, "all values are equal")
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
    return Chance(
        float(np.quantile(largest, 0.95)), (1 + as_large) / (1 + count), count, how, float(largest.mean())
    )


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
    clusters = np.unique(np.concatenate([each for _, each in parts]), return_inverse=True)[1]
    width = int(groups.max()) + 1
    blocks = np.unique(clusters * width + groups)
    several = np.bincount(blocks // width) > 1
    return bool(several[clusters].mean() >= 0.5)


def _whole(parts: Sequence[tuple[Part, Ints]], count: int, rng: np.random.Generator) -> Floats:
    """Largest gaps where blocks of one cluster and one group keep together and change labels."""
    clusters = np.unique(np.concatenate([each for _, each in parts]), return_inverse=True)[1]
    groups = np.concatenate([part.groups for part, _ in parts])
    width = int(groups.max()) + 1
    blocks, block = np.unique(clusters * width + groups, return_inverse=True)
    ends = np.cumsum([len(part.values) for part, _ in parts])[:-1]
    sums, sizes = [], []
    for (part, _), where in zip(parts, np.split(block, ends), strict=True):
        sums.append(np.bincount(where, weights=part.values, minlength=len(blocks)))
        sizes.append(np.bincount(where, minlength=len(blocks)).astype(np.float64))
    labels = blocks % width
    found = []
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
        found.append(largest)
    return np.concatenate(found)


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
