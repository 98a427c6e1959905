"""How far judges agree with each other, and with people. All from tables of counts, so that a bootstrap over
samples costs nothing but sums. Every function takes arrays with any number of leading axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalrun.scoring.base import Corpus, ScoreColumns, Smooth

if TYPE_CHECKING:
    from evalrun.scoring.scorers.judge import Judge


Floats = NDArray[np.float64]
Level: TypeAlias = Literal["nominal", "ordinal", "interval"]


def coincidences(counts: Floats) -> Floats:
    """What one unit adds to the coincidence matrix: shape (..., V, V) from counts of grades (..., V).

    A unit with fewer than two ratings adds nothing (Krippendorff 2011, "Computing Krippendorff's
    alpha-reliability").
    """
    m = counts.sum(-1)[..., None, None]
    pairs = counts[..., :, None] * counts[..., None, :] - np.eye(counts.shape[-1]) * counts[..., :, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(m > 1, pairs / (m - 1), 0.0))


def alpha(o: Floats, level: Level, values: Floats) -> Floats:
    """Krippendorff's alpha from coincidences (..., V, V): 1 - (n - 1) sum(o d) / sum(n_c n_k d).

    d is 1 for different grades (nominal), the squared difference of their values (interval) or of their mid
    ranks among all ratings (ordinal). NaN where there is nothing to compare, or only one grade was given.
    """
    marginal = o.sum(-1)
    n = marginal.sum(-1)
    if level == "nominal":
        delta = np.broadcast_to(1.0 - np.eye(o.shape[-1]), o.shape)
    else:
        place = np.broadcast_to(values, marginal.shape)
        if level == "ordinal":
            place = np.cumsum(marginal, axis=-1) - marginal / 2
        delta = (place[..., :, None] - place[..., None, :]) ** 2
    observed = (o * delta).sum((-1, -2))
    expected = (marginal[..., :, None] * marginal[..., None, :] * delta).sum((-1, -2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(expected > 0, 1 - (n - 1) * observed / expected, np.nan))


def kappa(table: Floats, *, quadratic: bool) -> Floats:
    """Cohen's kappa from a table (..., V, V) of people by judges: 1 - sum(w o) / sum(w e).

    w is 1 off the diagonal, or the squared distance of the steps (Cohen 1968). NaN where both only ever gave
    one and the same grade.
    """
    size = table.shape[-1]
    steps = np.arange(size, dtype=np.float64)
    weights = (steps[:, None] - steps[None, :]) ** 2 if quadratic else 1.0 - np.eye(size)
    n = table.sum((-1, -2))
    chance = table.sum(-1)[..., :, None] * table.sum(-2)[..., None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = (weights * chance).sum((-1, -2)) / n
        observed = (weights * table).sum((-1, -2))
        return np.asarray(np.where(expected > 0, 1 - observed / expected, np.nan))


def spearman(table: Floats) -> Floats:
    """Spearman's rank correlation of rows and columns of a table whose grades are in order."""
    rows, columns = table.sum(-1), table.sum(-2)
    n = rows.sum(-1)[..., None]
    x = np.cumsum(rows, -1) - rows / 2 - n / 2
    y = np.cumsum(columns, -1) - columns / 2 - n / 2
    both = (table * x[..., :, None] * y[..., None, :]).sum((-1, -2))
    spread = (rows * x * x).sum(-1) * (columns * y * y).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(spread > 1e-12, both / np.sqrt(spread), np.nan))


def kendall(table: Floats) -> Floats:
    """Kendall's tau-b of rows and columns of a table whose grades are in order."""
    below = _after(_after(table, -1), -2)  # sums over later rows and later columns
    left = _after(np.flip(table, -1), -1)  # over earlier columns
    above = np.flip(_after(left, -2), -1)
    score = (table * (below - above)).sum((-1, -2))
    n = table.sum((-1, -2))
    pairs = n * n
    free_x = pairs - (table.sum(-1) ** 2).sum(-1)
    free_y = pairs - (table.sum(-2) ** 2).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        product = np.where((free_x > 1e-9) & (free_y > 1e-9), free_x * free_y, np.nan)
        return np.asarray(2 * score / np.sqrt(product))


def _after(table: Floats, axis: int) -> Floats:
    """At each place the sum of what comes after it."""
    return np.asarray(table.sum(axis, keepdims=True) - np.cumsum(table, axis))


def agreement_corpus(judge: Judge, columns: ScoreColumns) -> Corpus:
    """The figures of a judge. A sample's kind is the grades that it got; sums are those of its tables."""
    size = len(judge.menu.labels)
    several = [part for part in judge.parts if part.startswith("by.")]
    grades = np.stack([columns.parts[part] for part in ("human", "grade", *several)], axis=1)
    codes = np.where(np.isnan(grades), -1, grades).astype(np.int64)
    rows, kinds = np.unique(codes, axis=0, return_inverse=True)
    human = rows[:, 0] >= 0
    paired = human & (rows[:, 1] >= 0)
    table = np.zeros((len(rows), size, size))
    at = np.flatnonzero(paired)
    table[at, rows[at, 0], rows[at, 1]] = 1.0
    counts = np.stack([(rows[:, 2:] == code).sum(1) for code in range(size)], axis=1).astype(np.float64)
    several_graded = counts.sum(1) > 1
    same = paired & (rows[:, 0] == rows[:, 1])
    ends = np.stack([paired, same, several_graded], axis=1).astype(np.float64)
    together = coincidences(counts)
    statistics = np.concatenate([ends, table.reshape(len(rows), -1), together.reshape(len(rows), -1)], axis=1)
    names = tuple(info.name for info in judge.metrics() if _is_agreement(judge.name, info.name))
    of_people = {name: 0 for name in names if ".human." in name}
    accuracy = f"{judge.name}.human.accuracy"
    kinds, figures = kinds.reshape(-1).astype(np.int64), _Figures(judge, names, size)
    return Corpus(
        kinds=kinds,
        statistics=statistics,
        figures=figures,
        names=names,
        infos=judge.metrics_by_name(),
        shares={accuracy: (1, 0)} if accuracy in names else {},
        sizes={**of_people, **({f"{judge.name}.alpha": 2} if several else {})},
        smooth={
            name: agreement_smooth(
                figures, at, statistics, kinds, _even(size, counts), 2 if ".alpha" in name else 0
            )
            for at, name in enumerate(names)
            if name != accuracy
        },
    )


FEW = 50
PSEUDO = 2
"""So many samples with their grades spread evenly over all pairs are added before an interval is made."""


def _even(size: int, counts: Floats) -> Floats:
    """What a sample adds to the sums whose grades are one pair of all there are: a row a pair."""
    rated = counts[counts.sum(1) > 1]
    ratings = float(rated.sum(1).mean()) if len(rated) else 2.0
    pairs = np.eye(size * size)
    turned = pairs.reshape(-1, size, size).transpose(0, 2, 1).reshape(size * size, -1)
    same = np.eye(size).reshape(-1, 1)
    one = np.ones((size * size, 1))
    return np.concatenate([one, same, one, pairs, ratings / 2 * (pairs + turned)], axis=1)


def kappa_smooth(
    first: NDArray[np.int64], second: NDArray[np.int64], size: int, *, quadratic: bool
) -> Smooth:
    """Cohen's kappa of two columns of grades (codes 0 … size - 1, each of shape (n,)) with influences."""
    pairs = np.concatenate([np.ones((size * size, 1)), np.eye(size * size)], axis=1)

    def figures(sums: Floats) -> Floats:
        table = sums[..., 1:].reshape(*sums.shape[:-1], size, size)
        return kappa(table, quadratic=quadratic)[..., None]

    cells = np.asarray(first * size + second, np.int64)
    return agreement_smooth(figures, 0, pairs, cells, pairs, 0)


def agreement_smooth(
    figures: Callable[[Floats], Floats], at: int, statistics: Floats, kinds: NDArray[np.int64], even: Floats,
    size_at: int,
) -> Smooth:  # fmt: skip
    """A figure of agreement with what each sample does to it, on Fisher's scale.

    Near full agreement, or where nearly all grades are one and the same, a few samples show no spread at all,
    and both bootstrap and large-sample formulas give intervals that are far too short. So influences are
    taken with PSEUDO samples added, spread over `even`, a row of statistics for each pair of grades (after
    Agresti and Caffo 2000, who add as many to a difference of shares). `size_at` is where the sums count the
    samples that the figure is of.
    """
    from evalrun.scoring.figures import influences

    sums = np.bincount(kinds, minlength=len(statistics)).astype(np.float64) @ statistics
    value = float(figures(sums)[at])
    n, concerned = float(sums[size_at]), statistics[:, size_at] > 0
    influence = np.zeros(len(kinds))
    if not np.isfinite(value) or n < 2:
        return Smooth(value if np.isfinite(value) else float("nan"), influence, float("inf"), "fisher-z")
    weight = PSEUDO / len(even)
    added = sums + weight * even.sum(axis=0)

    def fisher(given: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.arctanh(figures(given)))

    total = n + PSEUDO
    note = "few samples: the interval may be wider than need be" if n < FEW else ""
    by_kind = np.where(concerned, influences(fisher, statistics, added, total, at), 0.0)
    of_even = influences(fisher, even, added, total, at)
    rows = len(kinds)
    # Samples that the figure is not of have no influence; the others share its n.
    return Smooth(
        value, by_kind[kinds] * rows / n, float(fisher(added)[at]), "fisher-z",
        weights=concerned[kinds] / n, pseudo=PSEUDO * rows / n,
        extra=weight * float(of_even @ of_even) * (rows / n) ** 2, note=note,
    )  # fmt: skip


def _is_agreement(judge: str, name: str) -> bool:
    return name.startswith((f"{judge}.human.", f"{judge}.alpha"))


class _Figures:
    """From sums (..., k) to the figures (..., m)."""

    def __init__(self, judge: Judge, names: tuple[str, ...], size: int) -> None:
        self._ordered, self._level = judge.menu.ordered, judge.level
        self._values = np.array(judge.menu.values)
        self._names = [name.removeprefix(f"{judge.name}.") for name in names]
        self._size = size

    def __call__(self, sums: Floats) -> Floats:
        shape, cells = (*sums.shape[:-1], self._size, self._size), self._size**2
        table = sums[..., 3 : 3 + cells].reshape(shape)
        together = sums[..., 3 + cells :].reshape(shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            accuracy = sums[..., 1] / sums[..., 0]
        makers = {
            "alpha": lambda: alpha(together, self._level, self._values),
            "human.accuracy": lambda: accuracy,
            "human.kappa": lambda: kappa(table, quadratic=self._ordered),
            "human.spearman": lambda: spearman(table),
            "human.kendall": lambda: kendall(table),
        }
        return np.stack([makers[name]() for name in self._names], axis=-1)
