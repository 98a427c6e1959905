"""Correlations of two columns of numbers. Imported only when a run is analysed (it needs numpy)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from evalrun.scoring.base import Corpus, Interval, MetricInfo

Floats = NDArray[np.float64]

Z = 1.959963984540054
"""The 0.975 quantile of the normal distribution."""

_BLOCK = 4_000_000
"""So many pairs are compared at once."""


def correlation_corpus(
    name: str, answers: Floats, targets: Floats, infos: Mapping[str, MetricInfo], max_pairs: int
) -> Corpus:
    """Pearson's, Spearman's and Kendall's correlation as figures of a run."""
    n = len(answers)
    # Sums of squares of numbers far from 0 would lose their digits: measure from the means, in deviations.
    x, y = (_standard(column) for column in (answers, targets))
    names = tuple(f"{name}.{which}" for which in ("pearson", "spearman", "kendall"))
    spearman = pearson(ranks(answers), ranks(targets))
    kendall = kendall_tau(answers, targets) if n <= max_pairs else math.nan
    notes = {} if n <= max_pairs else {names[2]: f"{n} samples: more than max_pairs, which is {max_pairs}"}
    return Corpus(
        kinds=np.arange(n, dtype=np.int64),
        statistics=np.stack([np.ones(n), x, y, x * x, y * y, x * y], axis=1),
        figures=_pearson_from_sums,
        names=names,
        infos={each: infos[each] for each in names},
        notes=notes,
        fixed={
            names[1]: (spearman, fisher_interval(spearman, (1 + spearman**2 / 2), n - 3)),
            names[2]: (kendall, fisher_interval(kendall, 0.437, n - 4)),
        },
    )


def _standard(column: Floats) -> Floats:
    spread = float(column.std())
    scaled: Floats = (column - column.mean()) / (spread if spread > 0 and math.isfinite(spread) else 1.0)
    return scaled


def _pearson_from_sums(sums: Floats) -> Floats:
    n, x, y, xx, yy, xy = (sums[..., at] for at in range(6))
    with np.errstate(invalid="ignore", divide="ignore"):
        # Rounding may leave a sum of squares of a constant just above 0: that is no spread.
        spread_x, spread_y = ((q - s * s / n) for q, s in ((xx, x), (yy, y)))
        none = (spread_x <= 1e-12 * n) | (spread_y <= 1e-12 * n)
        value = np.where(none, np.nan, (xy - x * y / n) / np.sqrt(spread_x * spread_y))
    found = np.clip(value, -1.0, 1.0)[..., None]
    same: Floats = np.repeat(found, 3, axis=-1)
    return same


def pearson(x: Floats, y: Floats) -> float:
    """Pearson's correlation; NaN where either does not vary."""
    x, y = x - x.mean(), y - y.mean()
    below = math.sqrt(float(x @ x) * float(y @ y))
    return max(-1.0, min(1.0, float(x @ y) / below)) if below > 0 else math.nan


def ranks(column: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, code, count = np.unique(column, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks: Floats = (2 * last - count + 1) / 2.0
    return ranks[code]


def kendall_tau(x: Floats, y: Floats) -> float:
    """Tau-b over all pairs, a block of rows at a time; NaN where either does not vary."""
    n = len(x)
    score = tied_x = tied_y = 0
    step = max(1, _BLOCK // max(n, 1))
    x_codes, y_codes = (np.unique(each, return_inverse=True)[1].astype(np.int32) for each in (x, y))
    for begin in range(0, n, step):
        signs = [
            np.sign(c[begin : begin + step, None] - c[None, :]).astype(np.int8) for c in (x_codes, y_codes)
        ]
        score += int((signs[0] * signs[1]).sum(dtype=np.int64))
        tied_x += int((signs[0] == 0).sum())
        tied_y += int((signs[1] == 0).sum())
    # Every pair was seen twice, and every sample against itself.
    below = math.sqrt(n * n - tied_x) * math.sqrt(n * n - tied_y)
    return score / below if below > 0 else math.nan


def fisher_interval(value: float, variance: float, freedom: int) -> Interval | None:
    """The 95 % interval of a correlation, tanh(atanh(r) ± z sqrt(variance / freedom)).

    `variance` and `freedom` (n less a few) are those of the coefficient: Bonett & Wright 2000. None for
    too few samples and for r = ±1.
    """
    if freedom < 1 or math.isnan(value) or abs(value) >= 1:
        return None
    width = math.sqrt(variance / freedom)
    centre = math.atanh(value)
    low, high = math.tanh(centre - Z * width), math.tanh(centre + Z * width)
    return Interval(width * (1 - value * value), low, high, "fisher-z")
