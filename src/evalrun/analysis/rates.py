"""The rates of the endings that are not scores (failed, unparsed, refused); what a gap between groups is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evalrun.scoring.base import MetricInfo, fraction
from evalrun.types import Status

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from evalrun.analysis.table import SampleTable


@dataclass(frozen=True, slots=True)
class Rate:
    """The share of samples that ended in one way, among all or among those that were answered."""

    info: MetricInfo
    status: Status
    of_answered: bool

    def hits(self, table: SampleTable) -> NDArray[np.bool_]:
        """The samples that ended so."""
        return table.is_status(self.status)

    def within(self, table: SampleTable) -> NDArray[np.bool_]:
        """The samples that the share is of."""
        return table.answered if self.of_answered else table.answered | table.is_status(Status.FAILED)


RATES = (
    Rate(
        fraction(
            "error_rate",
            "Share of all samples that failed: the model gave no answer (timeout, HTTP error, crash). Failed "
            "samples are left out of every score.",
            "lower",
        ),
        Status.FAILED,
        of_answered=False,
    ),
    Rate(
        fraction(
            "unparsed_rate",
            "Share of the answered samples whose answer no parser could read. Scores of correctness count "
            "them as 0, unless the suite says `unparsed: exclude`.",
            "lower",
        ),
        Status.UNPARSED,
        of_answered=True,
    ),
    Rate(
        fraction(
            "refused_rate",
            "Share of the answered samples that the model, or a filter before it, declined to answer. Scores "
            "of correctness count them as 0, unless the suite says `unparsed: exclude`.",
            "lower",
        ),
        Status.REFUSED,
        of_answered=True,
    ),
)


def gap_info(column: str, of: MetricInfo) -> MetricInfo:
    """What the gap of a metric between the groups of a column means."""
    return MetricInfo(
        f"fairness.{column}.{of.name}.gap",
        of.unit,
        "lower",
        f"Greatest minus least value of {of.name} among the groups of {column} that are large enough "
        "(fairness.min_group); samples without a group are left out. Such a gap is above zero by chance "
        "alone, so its note gives the 95th percentile of the gap under shuffled group labels, and p, the "
        "share of shuffles with a gap at least as large.",
        (0.0, None),
    )
