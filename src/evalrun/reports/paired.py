"""Paired differences between two runs of one dataset: the same sample ids, subtracted sample by sample.

Two intervals that overlap say little about a difference; the interval of the difference does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evalrun.reports.columns import RunColumns

SURE_PAIRS = 6
"""When so many pairs all differ by the same amount, that is no chance (2 * 0.5^6 < 0.05)."""

POWER_FACTOR = 2.80
"""z(0.975) + z(0.80): a true difference of so many standard errors is found four times in five."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of (a - b) over the `n` sample ids that both runs scored, with its 95 % interval.

    `method` is "paired t" or "paired clustered t"; `low` and `high` are None where there is no interval.
    """

    mean: float
    n: int
    se: float | None
    low: float | None
    high: float | None
    method: str

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves zero out; without an interval, whether every pair differs alike."""
        if self.low is None or self.high is None:
            return self.mean != 0 and self.se == 0 and self.n >= SURE_PAIRS
        return not self.low <= 0 <= self.high

    @property
    def detectable(self) -> float | None:
        """The smallest true difference that this many pairs find four times in five; None where unknown."""
        return POWER_FACTOR * self.se if self.se else None


def paired_difference(first: RunColumns, second: RunColumns) -> Difference | None:
    """first - second, paired by sample id; None where they share no scored sample.

    Repeats are averaged within a sample id first; where the dataset names a cluster, the standard error is
    clustered (`evalrun.analysis.intervals.mean_clustered`).
    """
    import numpy as np

    from evalrun.analysis.intervals import mean_clustered, mean_t

    ids_a, means_a, clusters_a = first.by_sample()
    ids_b, means_b, _ = second.by_sample()
    _, in_a, in_b = np.intersect1d(ids_a, ids_b, assume_unique=True, return_indices=True)
    if len(in_a) == 0:
        return None
    differences = means_a[in_a] - means_b[in_b]
    if clusters_a is None:
        found, method = mean_t(differences), "paired t"
    else:
        codes = np.unique(clusters_a[in_a], return_inverse=True)[1]
        found, method = mean_clustered(differences, codes), "paired clustered t"
    assert found.value is not None
    return Difference(found.value, found.n, found.se, found.low, found.high, method)
