"""Tests and intervals that hold however often one looks: by bets on the rows as they come.

A bet that chance cannot win in the long run grows only where the hypothesis is wrong. Its wealth is an
e-value: at most 1 on average under the hypothesis, so it passes 1/alpha at any time with probability alpha at
most (Ville 1939), whenever one stops and for whatever reason. All of it supposes that rows come in random
order; rows that belong together are one unit, their mean.

Sources: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting (JRSS B 86, 2024;
arXiv 2010.09686), and Confidence sequences for sampling without replacement (arXiv 2006.04347); Vovk and
Wang, E-values: calibration, combination and applications (Annals of Statistics 49, 2021), for averages of
e-values; Wang and Ramdas, False discovery rate control with e-values (JRSS B 84, 2022), for e-BH.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]

BETS: Floats = np.arange(1, 20) / 20
"""Shares of the wealth that are bet, side by side: 0.05 to 0.95. They are fixed before the first row."""

ALPHA = 0.05
_CHUNK = 128
"""Values taken at once: the product of so many bets is still a float."""
_MOST = 1_000_000
"""Bets held in memory at once."""
_CELLS = 1000
"""Means between 0 and 1 that a confidence sequence looks at."""
_LOOK = 32
"""Values after which a confidence sequence looks, at the latest after all that it was given."""


class EProcess:
    """The wealth of bets that the mean of values in [-1, 1] is above 0, one after another.

    Under the hypothesis that it is not, given the values before, `value` passes 1/alpha with a probability of
    at most alpha, whenever one looks.
    """

    def __init__(self) -> None:
        self._wealth: Floats = np.zeros(len(BETS))
        self._greatest = 0.0
        self.n = 0

    def update(self, values: ArrayLike) -> float:
        """Take further values (1-D, each in [-1, 1]); the logarithm of the e-value after them.

        Raises ValueError for a value outside, which would break the guarantee.
        """
        given = np.atleast_1d(np.asarray(values, dtype=np.float64))
        if not (np.abs(given) <= 1).all():  # NaN too
            raise ValueError("an e-process takes values between -1 and 1")
        for start in range(0, len(given), _CHUNK):
            paths = np.cumprod(1 + np.multiply.outer(given[start : start + _CHUNK], BETS), 0)
            scale = self._wealth.max()
            best = float((paths @ np.exp(self._wealth - scale)).max()) / len(BETS)
            self._greatest = max(self._greatest, float(scale) + math.log(best))
            self._wealth = self._wealth + np.log(paths[-1])
        self.n += len(given)
        return self.log_value

    @property
    def log_value(self) -> float:
        """The natural logarithm of the e-value."""
        return float(log_mean(self._wealth))

    @property
    def value(self) -> float:
        """The e-value; infinite where it is beyond what a float holds."""
        return _exp(self.log_value)

    @property
    def p(self) -> float:
        """The always-valid p-value: one over the greatest e-value so far, at most 1."""
        return min(1.0, math.exp(-self._greatest))


def e_value(values: ArrayLike) -> float:
    """The e-value against "the mean of these values in [-1, 1] is not above 0"."""
    process = EProcess()
    process.update(values)
    return process.value


def e_value_two_sided(values: ArrayLike) -> float:
    """The e-value against "their mean is 0": the average of those of either side."""
    given = np.asarray(values, dtype=np.float64)
    return (e_value(given) + e_value(-given)) / 2


class Equivalence:
    """Whether a mean of differences in [-1, 1] lies within `margin` of 0, looked at as often as one likes."""

    def __init__(self, margin: float) -> None:
        if not 0 < margin < 1:
            raise ValueError("the margin lies between 0 and 1")
        self._margin = margin
        self._below, self._above = EProcess(), EProcess()

    def update(self, values: ArrayLike) -> None:
        """Take further differences."""
        given = np.asarray(values, dtype=np.float64)
        self._below.update((self._margin - given) / (1 + self._margin))
        self._above.update((self._margin + given) / (1 + self._margin))

    def shown(self, alpha: float = ALPHA) -> bool:
        """Whether both "it is at least the margin" and "it is at most minus the margin" are refuted. Each is
        tested at `alpha`: the union is wrong only if the true one is."""
        limit = -math.log(alpha)
        return self._below.log_value >= limit and self._above.log_value >= limit


@dataclass
class ConfidenceSequence:
    """Intervals of the mean of values in [0, 1] which all hold at once with probability 1 - alpha.

    With `rows`, the mean is that of so many rows of which the values are drawn without replacement; it is
    known exactly after the last. Without, it is that of the population they come from.
    """

    alpha: float = ALPHA
    rows: int | None = None
    n: int = 0
    low: float = 0.0
    high: float = 1.0
    _total: float = 0.0
    _means: Floats = field(default_factory=lambda: (np.arange(_CELLS) + 0.5) / _CELLS)
    _up: Floats = field(default_factory=lambda: np.zeros((_CELLS, len(BETS))))
    _down: Floats = field(default_factory=lambda: np.zeros((_CELLS, len(BETS))))

    def update(self, values: ArrayLike) -> tuple[float, float]:
        """Take further values; the interval after them. Raises ValueError for values outside [0, 1], or more
        of them than there are rows."""
        given = np.atleast_1d(np.asarray(values, dtype=np.float64))
        if not ((given >= 0) & (given <= 1)).all():
            raise ValueError("a confidence sequence takes values between 0 and 1")
        if self.rows is not None and self.n + len(given) > self.rows:
            raise ValueError(f"there are {self.rows} rows, and more values")
        for start in range(0, len(given), _LOOK):
            self._take(given[start : start + _LOOK])
        return self.low, self.high

    def _take(self, values: Floats) -> None:
        means = np.broadcast_to(self._means, (len(values), _CELLS))
        if self.rows is not None:
            before = self._total + np.concatenate(([0.0], np.cumsum(values)[:-1]))
            left = self.rows - self.n - np.arange(len(values))
            means = np.clip((self.rows * self._means - before[:, None]) / left[:, None], 1e-6, 1 - 1e-6)
        up = (values[:, None] - means) / means
        down = (means - values[:, None]) / (1 - means)
        self._up += np.log(np.prod(1 + up[..., None] * BETS, axis=0))
        self._down += np.log(np.prod(1 + down[..., None] * BETS, axis=0))
        self._total += float(values.sum())
        self.n += len(values)
        self._narrow()

    def _narrow(self) -> None:
        against = np.logaddexp(log_mean(self._up), log_mean(self._down)) - math.log(2)
        kept = self._means[against < -math.log(self.alpha)]
        half = 0.5 / _CELLS
        low, high = (kept[0] - half, kept[-1] + half) if len(kept) else (self.low, self.high)
        if self.rows is not None:  # what is left can make it no less and no more
            low = max(low, self._total / self.rows)
            high = min(high, (self._total + self.rows - self.n) / self.rows)
        # The intersection of all so far; the mean of the values where that is empty by rounding.
        self.low, self.high = max(self.low, float(low)), min(self.high, float(high))
        if self.low > self.high:
            self.low = self.high = self._total / (self.rows or self.n)

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


def e_bh(values: Sequence[float], alpha: float = ALPHA) -> list[int]:
    """The hypotheses that are refuted, as indices in order, with a false discovery rate of at most alpha
    under any dependence: the k greatest e-values for the largest k whose least is at least K / (k alpha)."""
    order = sorted(range(len(values)), key=lambda at: -values[at])
    most = 0
    for k, at in enumerate(order, 1):
        if values[at] >= len(values) / (k * alpha):
            most = k
    return sorted(order[:most])


def log_growth(values: Floats) -> Floats:
    """By how much values in [-1, 1] (last axis; NaN: no value) let the wealth of each of `BETS` grow, as a
    logarithm; the bets are the last axis of the result. Raises ValueError for a value outside."""
    if (np.abs(values) > 1).any():
        raise ValueError("an e-process takes values between -1 and 1")
    growth = np.zeros((*values.shape[:-1], len(BETS)))
    known = np.where(np.isnan(values), 0.0, values)[..., None]
    step = max(1, min(_CHUNK, _MOST // growth.size)) if growth.size else 1
    for start in range(0, values.shape[-1], step):
        growth += np.log(np.prod(1 + known[..., start : start + step, :] * BETS, axis=-2))
    return growth


def log_mean(logs: Floats) -> Floats:
    """log of the mean of exp over the last axis."""
    greatest = logs.max(axis=-1)
    shifted = np.exp(logs - greatest[..., None]).mean(axis=-1)
    return np.asarray(greatest + np.log(shifted), dtype=np.float64)


def _exp(log: float) -> float:
    return math.exp(log) if log < 700 else math.inf
