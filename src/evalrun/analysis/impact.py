"""Impact ratios: how often each category is selected, beside the one that is selected most (6 RCNY 5-300).

Selection rate: selected / all of a category. Scoring rate, where the tool gives scores: the share of a
category above the median of the whole sample, strictly; ties count as not above. Impact ratio: a rate / the
highest.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FEW = 0.02
"""A category with less than this share of the data may be left out of the ratios; its rate is still said."""
RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Impact:
    """One category. `ratio` is to the highest rate; `low` and `high` are 95 % bounds by a parametric
    bootstrap in which each resample picks its own highest rate. None where the category is left out."""

    category: str
    n: int
    selected: int
    rate: float | None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    left_out: bool = False


def impact_ratios(
    counts: Mapping[str, tuple[int, int]], *, seed: int = 0, leave_out_few: bool = False
) -> list[Impact]:
    """The categories, in the order given; `counts` are (selected, all). With `leave_out_few` those below 2 %
    of all have no ratio, and are not the highest either."""
    total = sum(n for _, n in counts.values())
    few = {name for name, (_, n) in counts.items() if n == 0 or (leave_out_few and n < FEW * total)}
    rates = {name: selected / n for name, (selected, n) in counts.items() if n}
    compared = {name: counts[name] for name in counts if name not in few}
    highest = max((rates[name] for name in compared), default=0.0)
    bounds = _bounds(compared, seed) if highest and len(compared) > 1 else {}
    rows = []
    for name, (selected, n) in counts.items():
        ratio = rates[name] / highest if name in compared and highest else None
        low, high = bounds.get(name, (None, None))
        rows.append(Impact(name, n, selected, rates.get(name), ratio, low, high, name in few))
    return rows


def above_median(scores: Sequence[float]) -> list[bool]:
    """Which scores lie strictly above the median of all of them."""
    middle = statistics.median(scores)
    return [score > middle for score in scores]


def _bounds(counts: Mapping[str, tuple[int, int]], seed: int) -> dict[str, tuple[float, float]]:
    import numpy as np

    n = np.array([size for _, size in counts.values()])
    hits = np.array([selected for selected, _ in counts.values()])
    drawn = np.random.default_rng(seed).binomial(n, hits / n, (RESAMPLES, len(n))) / n
    most = drawn.max(axis=1, keepdims=True)
    ratios = np.divide(drawn, most, out=np.ones_like(drawn), where=most > 0)
    low, high = np.quantile(ratios, [0.025, 0.975], axis=0)
    return {name: (float(low[at]), float(high[at])) for at, name in enumerate(counts)}
