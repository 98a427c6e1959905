"""What chance alone does to groups: their labels are permuted, and differences of means are studentised.

A difference is divided by its own standard error before it is compared, in the data as in every permutation,
so that a small group whose values spread widely is not taken for one that differs (Janssen 1997, Statistics
and Probability Letters 36, 9; Chung and Romano 2013, Annals of Statistics 41, 484: the test is exact where
groups have the same distribution, and holds its level in the limit where they only have the same mean).

What keeps together is permuted together: the samples of one cluster and one group are a block. Where a
cluster holds several groups, its blocks swap labels among themselves; blocks that are a whole cluster swap
labels with one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.distributions import t_quantile
from evalrun.frozen import frozen
from evalrun.results import ByChance

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PERMUTATIONS = 1_000
_LEAST = 200
_BLOCK = 1_000_000
_WORK = 40_000_000
"""Numbers permuted for one test at most; larger data get fewer permutations."""

_SHUFFLED = 4_000
"""Up to so many samples labels are permuted; with more, each group's values are drawn from all of them."""
_NORMAL = 1_000
"""From this group size on the mean of a group is drawn from its normal limit."""
_PRIOR = 2.0
"""The variance of a difference counts as if so many of its fewer units came from all groups together. Without
it a small group whose values happen to be all equal would be infinitely far from any other."""
_PAIRS = 4_000_000
_UNEQUAL = 1.5
"""From this ratio on of a difference's own variance to that under permuted labels, spreads are unequal."""

AMONG = "labels shuffled among samples"
WITHIN = "labels swapped between the groups of a cluster"
WHOLE = "labels shuffled among whole clusters"


@frozen
class Part:
    """Values and the group of each; every code 0 … k-1 occurs. `clusters` is None where all are apart."""

    values: Floats
    groups: Ints
    clusters: Ints | None

    @property
    def binary(self) -> bool:
        """Whether the values are 0 and 1 and apart from one another: their spread follows from their mean."""
        return self.clusters is None and bool(((self.values == 0) | (self.values == 1)).all())


@frozen
class Stacks:
    """Means and variances of their differences, row by row: the data first, then each permutation.

    `means` has shape (B + 1, k), `pair_variances` gives (rows, k, k) of a slice of rows. `contrasts` and
    `contrast_variances`, (B + 1, k), are of each group minus its counterpart. `units` and
    `counterpart_units`, (k,), are how many independent units each has in the data.
    """

    means: Floats
    pair_variances: Callable[[slice], Floats]
    contrasts: Floats
    contrast_variances: Floats
    units: Floats
    counterpart_units: Floats


@frozen
class Family:
    """The contrasts of one measure and column: how far apart by chance, for all of them at once.

    `t` and `se`, shape (k,), are of the data; `drawn`, shape (B, k), the same statistic under permutation.
    """

    t: Floats
    se: Floats
    drawn: Floats

    def p(self, at: int) -> float:
        """p of one contrast alone."""
        return _share(self.drawn[:, at], float(self.t[at]))

    def adjusted(self, members: Sequence[int]) -> list[float]:
        """p of the members, corrected for all of them: step-down by the greatest statistic (Westfall and
        Young 1993, algorithm 2.8), so that even one false alarm is rare whatever the sizes and spreads."""
        order = sorted(members, key=lambda at: -self.t[at])
        result: dict[int, float] = {}
        least = 0.0
        for rank, at in enumerate(order):
            greatest = self.drawn[:, order[rank:]].max(axis=1)
            least = max(least, _share(greatest, float(self.t[at])))
            result[at] = least
        return [result[at] for at in members]

    def half_width(self, at: int, members: Sequence[int], alpha: float) -> float:
        """Half the width of an interval for one contrast that holds for all members at once."""
        greatest = np.sort(self.drawn[:, list(members)].max(axis=1))
        # So many may be as large before p is above alpha: the interval excludes 0 just where p <= alpha.
        allowed = max(0, int(alpha * (1 + len(greatest)) + 1e-9) - 1)
        limit = float(greatest[len(greatest) - 1 - min(allowed, len(greatest) - 1)])
        return float(limit * (1 + 1e-9) * self.se[at])


@frozen
class Chance:
    """A largest difference beside what permuted labels give. `t` is the greatest studentised difference of
    the data, `drawn` that of each permutation; `se` is of the difference seen, in the values' unit."""

    t: float
    drawn: Floats
    se: float
    how: str
    family: Family | None = None

    def of_contrasts(self, members: Sequence[int]) -> Family:
        """The contrasts of these groups alone; without draws where all values are equal."""
        if self.family is None:
            return Family(np.empty(0), np.empty(0), np.empty((0, 0)))
        family, chosen = self.family, list(members)
        return Family(family.t[chosen], family.se[chosen], family.drawn[:, chosen])

    @property
    def result(self) -> ByChance:
        """Mean and 95th percentile in the values' unit, and p."""
        if not len(self.drawn):
            return ByChance(0.0, 0.0, 1.0, 0, self.how)
        mean, p95 = float(self.drawn.mean()), float(np.quantile(self.drawn, 0.95))
        return ByChance(mean * self.se, p95 * self.se, _share(self.drawn, self.t), len(self.drawn), self.how)


def _share(drawn: Floats, limit: float) -> float:
    """(1 + as large) / (1 + all), blind to rounding."""
    as_large = int((drawn >= limit * (1 - 1e-9) - 1e-12).sum())
    return (1 + as_large) / (1 + len(drawn))


def by_chance(parts: Sequence[Part], seed: int, reference: int | None = None) -> Chance:
    """The largest difference between two groups' means in any part, against permuted labels.

    The parts have the same groups and share no sample; labels are permuted within each, so that what they
    differ in (the right answer, for equalized odds) stays as it is. Of a single part the contrasts are tested
    too: of each group with all others, or with the group `reference`.
    """
    if all(part.values.min() == part.values.max() for part in parts):
        return Chance(0.0, np.empty(0), 0.0, "all values are equal")
    rng = np.random.default_rng(seed)
    stacks, how = _stacks(parts, reference, rng)
    studentised = [_studentised(stack, part.binary) for stack, part in zip(stacks, parts, strict=True)]
    greatest = np.max([each.greatest for each in studentised], axis=0)
    gaps = [float(stack.means[0].max() - stack.means[0].min()) for stack in stacks]
    se = studentised[int(np.argmax(gaps))].se_of_gap
    family = studentised[0].family if len(parts) == 1 else None
    return Chance(float(greatest[0]), greatest[1:], se, how, family)


def corrected_together(chances: Sequence[Chance]) -> list[float]:
    """p of each, corrected for all of them: the share of permutations in which any is as large.

    Statistics are brought to one scale by their own 95th percentile. The permutations of different columns
    and metrics are independent here; where they depend on one another in truth, this errs on the safe side.
    """
    tested = [chance for chance in chances if len(chance.drawn)]
    if not tested:
        return [1.0] * len(chances)
    count = max(len(chance.drawn) for chance in tested)
    greatest = np.max([np.resize(chance.drawn, count) / _scale(chance) for chance in tested], axis=0)
    return [
        max(chance.result.p or 0.0, _share(greatest, chance.t / _scale(chance))) if len(chance.drawn) else 1.0
        for chance in chances
    ]


def _scale(chance: Chance) -> float:
    return float(np.quantile(chance.drawn, 0.95)) or float(chance.drawn.max()) or 1.0


def chance_of_largest(parts: Sequence[Part], seed: int) -> ByChance:
    """`by_chance` in the unit of the values."""
    return by_chance(parts, seed).result


@frozen
class _Studentised:
    greatest: Floats
    se_of_gap: float
    family: Family


def _studentised(stack: Stacks, binary: bool) -> _Studentised:
    """Greatest |difference| / se over the pairs, row by row, and the contrasts likewise.

    The variance is that of the row's own groups, with a little of the variance over all permutations; of 0/1
    values it is the latter alone.
    """
    means, rows, k = stack.means, *stack.means.shape
    centred = means[1:] - means[1:].mean(axis=0)
    covariance = centred.T @ centred / len(centred)
    spread = np.diag(covariance)
    null = np.maximum(spread[:, None] + spread[None, :] - 2 * covariance, 0.0)
    prior = np.ones_like(null) if binary else _prior(np.minimum.outer(stack.units, stack.units))
    own = 0.0 if binary else 1.0
    fewer = np.minimum.outer(stack.units, stack.units)
    first = prior * null + (0.0 if binary else stack.pair_variances(slice(0, 1))[0])
    unequal = np.triu(first > _UNEQUAL * null, 1) & ~np.array(binary)
    unequal_t = np.zeros((rows, int(unequal.sum())))
    greatest = np.zeros(rows)
    step = max(1, _PAIRS // (k * k))
    for begin in range(0, rows, step):
        at = slice(begin, min(rows, begin + step))
        differences = np.abs(means[at, :, None] - means[at, None, :])
        variance = np.broadcast_to(prior * null, differences.shape)
        variance = variance if binary else variance + stack.pair_variances(at)
        t = _ratio(differences, variance)
        unequal_t[at] = t[:, unequal]
        greatest[at] = np.where(unequal | unequal.T, 0.0, t).max(axis=(1, 2))
    unequal_t[1:] = _at_least_t(unequal_t[1:], fewer[unequal] - 1)
    greatest = np.maximum(greatest, unequal_t.max(axis=1, initial=0.0))
    high, low = int(means[0].argmax()), int(means[0].argmin())
    high = high if high != low else (low + 1) % k
    drawn = stack.contrasts[1:]
    null_contrast = np.square(drawn).mean(axis=0)
    fewest = np.minimum(stack.units, stack.counterpart_units)
    prior_contrast = 1.0 if binary else _prior(fewest)
    variances = prior_contrast * null_contrast + own * stack.contrast_variances
    t = _ratio(np.abs(stack.contrasts), np.broadcast_to(variances, stack.contrasts.shape))
    wide = (np.broadcast_to(variances, t.shape)[0] > _UNEQUAL * null_contrast) & ~np.array(binary)
    t[1:, wide] = _at_least_t(t[1:, wide], fewest[wide] - 1)
    se = np.sqrt(np.broadcast_to(variances, stack.contrasts.shape)[0])
    return _Studentised(greatest, float(np.sqrt(first[high, low])), Family(t[0], se, t[1:]))


def _at_least_t(drawn: Floats, df: Floats) -> Floats:
    """Permuted statistics, one column a difference, none smaller than |t| with df would be at its rank.

    Where the smaller group spreads more, permuting gives it values of both spreads: a mixture, whose
    studentised mean has shorter tails than the t that the mean of so few values has. What differences have
    in common stays, since ranks do.
    """
    count = len(drawn)
    tails = np.geomspace(1, 1 / (count + 1), 40)
    rank = np.argsort(np.argsort(drawn, axis=0), axis=0)
    tail = np.log((count - rank) / (count + 1))
    result = drawn.copy()
    for freedom in np.unique(df):
        quantiles = [t_quantile(1 - share / 2, max(1.0, float(freedom))) for share in tails]
        columns = df == freedom
        limits = np.interp(-tail[:, columns], -np.log(tails), quantiles)
        result[:, columns] = np.maximum(drawn[:, columns], limits)
    return result


def _prior(units: Floats) -> Floats:
    return np.asarray(_PRIOR / (_PRIOR + np.maximum(units - 1, 0)))


def _ratio(difference: Floats, variance: Floats) -> Floats:
    return np.divide(difference, np.sqrt(variance), out=np.zeros_like(difference), where=variance > 0)


def _stacks(
    parts: Sequence[Part], reference: int | None, rng: np.random.Generator
) -> tuple[list[Stacks], str]:
    clustered = [(part, part.clusters) for part in parts if part.clusters is not None]
    if len(clustered) < len(parts):
        return [_apart(part, reference, rng) for part in parts], AMONG
    return _together(clustered, reference, rng)


def _count(width: int) -> int:
    return int(max(_LEAST, min(PERMUTATIONS, _WORK // max(1, width))))


# Samples that are apart

Moments: TypeAlias = tuple[Floats, ...]
"""Of the units of each group, one row an arrangement of labels: their number, and the sums of n, S, S^2, S n
and n^2, where S is the sum of a unit's values and n how many they are."""


def _apart(part: Part, reference: int | None, rng: np.random.Generator) -> Stacks:
    """Moments of groups whose samples are permuted one by one, or drawn where they are many."""
    values, sizes = part.values, np.bincount(part.groups)
    seen = np.bincount(part.groups, values), np.bincount(part.groups, np.square(values))
    total, squares = (
        np.concatenate([[own], drawn]) for own, drawn in zip(seen, _drawn(part, rng), strict=True)
    )
    n = np.broadcast_to(sizes.astype(np.float64), total.shape)
    return _of_moments((n, n, total, squares, total, n), reference)


def _drawn(part: Part, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Sums of the values and of their squares by group, shape (B, k), under permuted labels."""
    values, sizes = part.values, np.bincount(part.groups)
    count = _count(len(values))
    if part.binary:
        # Where the hits fall among the groups is hypergeometric: the whole distribution at once.
        hits = rng.multivariate_hypergeometric(sizes, int(values.sum()), size=count, method="marginals")
        return hits.astype(np.float64), hits.astype(np.float64)
    if len(values) > _SHUFFLED:
        return _drawn_apart(values, sizes, rng)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    parts = []
    for size in _blocks(count, len(values)):
        drawn = rng.permuted(np.tile(values, (size, 1)), axis=1)
        parts.append([np.add.reduceat(each, starts, axis=1) for each in (drawn, np.square(drawn))])
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _drawn_apart(values: Floats, sizes: Ints, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The same for many samples: the values of small groups are drawn from all, the means of large ones from
    their normal limit."""
    small = sizes < _NORMAL
    count = _count(int(sizes[small].sum()))
    mean, variance = float(values.mean()), float(values.var(ddof=1))
    total, squares = np.empty((count, len(sizes))), np.empty((count, len(sizes)))
    for group, size in enumerate(sizes.tolist()):
        if not small[group]:
            means = mean + rng.standard_normal(count) * np.sqrt(variance / size)
            total[:, group] = means * size
            squares[:, group] = (size - 1) * variance + size * np.square(means)
            continue
        begin = 0
        for rows in _blocks(count, size):
            drawn = values[rng.integers(len(values), size=(rows, size))]
            total[begin : begin + rows, group] = drawn.sum(axis=1)
            squares[begin : begin + rows, group] = np.square(drawn).sum(axis=1)
            begin += rows
    return total, squares


def _of_moments(moments: Moments, reference: int | None) -> Stacks:
    """Differences and variances of groups that share no unit."""
    if reference is None:
        against: Moments = tuple(each.sum(axis=1, keepdims=True) - each for each in moments)
    else:
        against = tuple(np.broadcast_to(each[:, [reference]], each.shape) for each in moments)
    means, variances = _mean_and_variance(moments)
    other_means, other_variances = _mean_and_variance(against)
    return Stacks(
        means=means,
        pair_variances=lambda at: variances[at, :, None] + variances[at, None, :],
        contrasts=means - other_means,
        contrast_variances=variances + other_variances,
        units=moments[0][0],
        counterpart_units=against[0][0],
    )


def _mean_and_variance(moments: Moments) -> tuple[Floats, Floats]:
    """Means and their variances C/(C-1) sum (S - m n)^2 / (sum n)^2; of no sample the mean of all."""
    units, n, total, squares, products, sizes = moments
    overall = total.sum(axis=1, keepdims=True) / np.maximum(n.sum(axis=1, keepdims=True), 1)
    means = np.divide(total, n, out=np.broadcast_to(overall, n.shape).copy(), where=n > 0)
    residual = np.maximum(squares - 2 * means * products + np.square(means) * sizes, 0.0)
    # A residual that is only the rounding of its terms is none.
    residual[residual <= 1e-12 * squares] = 0.0
    factor = np.divide(units, units - 1, out=np.zeros_like(residual), where=units > 1)
    return means, np.divide(factor * residual, np.square(n), out=np.zeros_like(residual), where=n > 0)


# Clusters


def _together(
    parts: Sequence[tuple[Part, Ints]], reference: int | None, rng: np.random.Generator
) -> tuple[list[Stacks], str]:
    clusters = np.unique(np.concatenate([codes for _, codes in parts]), return_inverse=True)[1]
    groups = np.concatenate([part.groups for part, _ in parts])
    k = int(groups.max()) + 1
    blocks, block = np.unique(clusters * k + groups, return_inverse=True)
    cluster, labels = blocks // k, blocks % k
    shared = np.bincount(cluster)[cluster] > 1
    how = "; ".join(name for name, where in ((WITHIN, shared), (WHOLE, ~shared)) if where.any())
    ends = np.cumsum([len(part.values) for part, _ in parts])[:-1]
    sums: list[tuple[Floats, Floats]] = [
        (
            np.bincount(where, part.values, len(blocks)).astype(np.float64),
            np.bincount(where, minlength=len(blocks)).astype(np.float64),
        )
        for (part, _), where in zip(parts, np.split(block, ends), strict=True)
    ]
    count = _count(len(blocks) * (k if shared.any() else 1))
    chunks: list[list[Any]] = [[] for _ in sums]
    for arranged in _arrangements(labels, cluster, shared, count, rng):
        for chunk, (S, n) in zip(chunks, sums, strict=True):
            if shared.any():
                chunk.append(_crossed(S, n, cluster, arranged, k, reference))
            else:
                chunk.append(_moments(S, n, arranged, k))
    joined: list[tuple[Floats, ...]] = [
        tuple(np.concatenate(each) for each in zip(*chunk, strict=True)) for chunk in chunks
    ]
    if not shared.any():
        return [_of_moments(moments, reference) for moments in joined], how
    units = [np.bincount(labels, n > 0, k).astype(np.float64) for _, n in sums]
    return [_of_crossed(each, own, reference) for each, own in zip(joined, units, strict=True)], how


def _arrangements(
    labels: Ints, cluster: Ints, shared: NDArray[np.bool_], count: int, rng: np.random.Generator
) -> Iterator[Ints]:
    """Labels of the blocks (in the order of their clusters) as they are, then permuted; one row each."""
    alone, crossed = np.flatnonzero(~shared), np.flatnonzero(shared)
    yield labels[None, :]
    for rows in _blocks(count, len(labels) * int(labels.max() + 1)):
        drawn = np.tile(labels, (rows, 1))
        drawn[:, alone] = rng.permuted(drawn[:, alone], axis=1)
        # Sorting by cluster + noise below 1 permutes within each cluster.
        places = np.argsort(cluster[crossed] + rng.random((rows, len(crossed))), axis=1)
        drawn[:, crossed] = labels[crossed[places]]
        yield drawn


def _summed(weights: Floats, cells: Ints, width: int) -> Floats:
    """Sums of the weights by cell, one row a row of cells."""
    rows = len(cells)
    flat = cells + width * np.arange(rows)[:, None]
    sums = np.bincount(flat.ravel(), np.tile(weights, rows), rows * width).astype(np.float64)
    return sums.reshape(rows, width)


def _moments(S: Floats, n: Floats, arranged: Ints, k: int) -> Moments:
    columns = ((n > 0).astype(float), n, S, np.square(S), S * n, np.square(n))
    return tuple(_summed(each, arranged, k) for each in columns)


Crossed: TypeAlias = tuple[Floats, ...]
"""Row by row: means (k), covariances of them (k, k), contrasts (k), variances of those (k)."""


def _crossed(S: Floats, n: Floats, cluster: Ints, arranged: Ints, k: int, reference: int | None) -> Crossed:
    """Differences and variances where a cluster may hold several groups: u_c is the sum over a cluster of the
    residuals of one group, over its size, less that of the other, and the variance C/(C-1) sum u_c^2."""
    clusters = int(cluster[-1]) + 1
    shape = (len(arranged), clusters, k)
    factor = clusters / (clusters - 1) if clusters > 1 else 0.0
    cells = cluster * k + arranged
    sums = _summed(S, cells, clusters * k).reshape(shape)
    sizes = _summed(n, cells, clusters * k).reshape(shape)
    means, own = _influence(sums, sizes)
    if reference is None:
        other_means, other = _influence(
            sums.sum(axis=2, keepdims=True) - sums, sizes.sum(axis=2, keepdims=True) - sizes
        )
    else:
        other_means, other = means[:, [reference]], own[:, :, [reference]]
    variances = factor * np.square(own - other).sum(axis=1)
    return means, factor * (own.swapaxes(1, 2) @ own), means - other_means, variances


def _of_crossed(rows: Crossed, units: Floats, reference: int | None) -> Stacks:
    means, covariances, contrasts, variances = rows

    def pair_variances(at: slice) -> Floats:
        chosen = covariances[at]
        spread = np.einsum("bii->bi", chosen)
        return np.asarray(np.maximum(spread[:, :, None] + spread[:, None, :] - 2 * chosen, 0.0))

    others = units.sum() - units if reference is None else np.full(len(units), units[reference])
    return Stacks(means, pair_variances, contrasts, variances, units, others)


def _influence(sums: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """Means by group, and each cluster's part in them: shapes (B, k) and (B, C, k). A group without a sample
    has the mean of all."""
    n = sizes.sum(axis=1)
    total = sums.sum(axis=1)
    overall = total.sum(axis=1, keepdims=True) / np.maximum(n.sum(axis=1, keepdims=True), 1)
    means = np.where(n > 0, total / np.maximum(n, 1), overall)
    return means, (sums - means[:, None, :] * sizes) / np.maximum(n, 1)[:, None, :]


def _blocks(count: int, width: int) -> list[int]:
    size = max(1, min(count, _BLOCK // max(1, width)))
    return [min(size, count - begin) for begin in range(0, count, size)]
