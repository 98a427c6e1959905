"""How large the gap between the best and the worst of several groups is by chance alone.

The greatest of several differences is never zero, even where the groups are treated alike, and a bootstrap
interval of it never contains zero. So the gap is compared with gaps under shuffled group labels.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Chance:
    """The 95th percentile of the gap under shuffled labels, and p = (1 + as large) / (1 + permutations)."""

    gap_p95: float
    p: float
    permutations: int
    how: str


def gap_of(values: Floats, groups: Ints) -> float:
    """Greatest minus least group mean; every code 0 … k-1 occurs."""
    means = np.bincount(groups, weights=values) / np.bincount(groups)
    return float(means.max() - means.min())


def chance_of_gap(values: Floats, groups: Ints, clusters: Ints | None, seed: int) -> Chance:
    """Compare the gap with those under shuffled labels (`groups` has every code 0 … k-1 at least once).

    With clusters, labels are shuffled within them where most samples are in a cluster of several groups (the
    same template with different names), else whole blocks of one cluster and group are shuffled.
    """
    rng = np.random.default_rng(seed)
    observed = gap_of(values, groups)
    if values.min() == values.max():
        return Chance(0.0, 1.0, 0, "all values are equal")
    count = int(max(_LEAST, min(PERMUTATIONS, _WORK // len(values))))
    if clusters is None:
        gaps = _shuffled(values, groups, count, rng)
        how = "labels shuffled among samples"
    else:
        gaps, how = _shuffled_in_clusters(values, groups, clusters, count, rng)
    as_large = int((gaps >= observed - 1e-12).sum())
    return Chance(float(np.quantile(gaps, 0.95)), (1 + as_large) / (1 + count), count, how)


def _gaps(means: Floats) -> Floats:
    return np.asarray(means.max(axis=1) - means.min(axis=1))


def _shuffled(values: Floats, groups: Ints, count: int, rng: np.random.Generator) -> Floats:
    sizes = np.bincount(groups)
    if ((values == 0) | (values == 1)).all():
        # Where the hits fall among the groups is hypergeometric: the whole distribution at once.
        hits = rng.multivariate_hypergeometric(sizes, int(values.sum()), size=count, method="marginals")
        return _gaps(hits / sizes)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    parts = []
    for size in _blocks(count, len(values)):
        drawn = rng.permuted(np.tile(values, (size, 1)), axis=1)
        parts.append(_gaps(np.add.reduceat(drawn, starts, axis=1) / sizes))
    return np.concatenate(parts)


def _shuffled_in_clusters(
    values: Floats, groups: Ints, clusters: Ints, count: int, rng: np.random.Generator
) -> tuple[Floats, str]:
    cluster = np.unique(clusters, return_inverse=True)[1]
    width = int(groups.max()) + 1
    blocks, block = np.unique(cluster * width + groups, return_inverse=True)
    several = np.bincount(blocks // width) > 1
    if several[cluster].mean() >= 0.5:
        return _within(values, groups, cluster, count, rng), "labels shuffled within clusters"
    sums, sizes = np.bincount(block, weights=values), np.bincount(block).astype(np.float64)
    labels = blocks % width
    parts = []
    for size in _blocks(count, len(blocks)):
        drawn = rng.permuted(np.tile(labels, (size, 1)), axis=1)
        means = [((drawn == group) @ sums) / ((drawn == group) @ sizes) for group in range(width)]
        parts.append(_gaps(np.stack(means, axis=1)))
    return np.concatenate(parts), "labels shuffled among whole clusters"


def _within(values: Floats, groups: Ints, cluster: Ints, count: int, rng: np.random.Generator) -> Floats:
    order = np.argsort(cluster, kind="stable")
    values, groups, cluster = values[order], groups[order], cluster[order]
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
