"""Scorers whose figure over all samples is computed from counts, and is no mean over samples."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from evalrun.scoring.base import Corpus, MetricInfo, ScoreColumns, Scorer
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.scoring.text.translation import Formula

COUNTED = (
    " Unparsed and refused answers count as empty answers; failed samples are left out. Interval: percentile "
    "bootstrap over samples from their counts."
)
AVERAGED = " Unparsed and refused answers count as empty answers; failed samples are left out."


class CountedScorer(Scorer):
    """A score of each sample, and one figure of all of them from the sums of their counts.

    The counts are the first of the `parts`, in the order that `formula` wants; they are stored with the
    samples and are no metrics.
    """

    unanswered_as_empty: ClassVar[bool] = True

    @abstractmethod
    def formula(self) -> Formula:
        """Sums of shape (..., k) to values of shape (...). Imports numpy."""

    def counts(self) -> tuple[str, ...]:
        """The parts that are counts."""
        return self.parts

    def signature(self, columns: ScoreColumns) -> str:
        """How the reference library would say that it computed the figure; "" where it has no word for it."""
        return ""

    def aggregate(self, columns: ScoreColumns) -> Corpus | None:
        """The one figure, as a function of sums over the samples."""
        import numpy as np

        if len(columns.value) == 0:
            return None
        formula = self.formula()
        name = f"{self.name}.corpus"
        info: MetricInfo = next(each for each in self.metrics() if each.name == name)
        signature = self.signature(columns)
        details: dict[str, JSON] = {"signature": signature} if signature else {}
        return Corpus(
            kinds=np.arange(len(columns.value), dtype=np.int64),
            statistics=np.stack([columns.parts[part] for part in self.counts()], axis=1),
            figures=lambda sums: formula(sums)[..., None],
            names=(name,),
            infos={name: info},
            notes={name: signature} if signature else {},
            details=details,
        )
