"""Scores that another tool gave, as a scorer: what was imported is shown, compared and gated by its name."""

from __future__ import annotations

from evalrun.scoring.base import MetricInfo, Scorer, ScorerOptions, ScoringInput
from evalrun.types import Direction, Score


class ImportedMetric(Scorer[ScorerOptions]):
    """One score of another tool. It never scores: the source did."""

    def __init__(self, name: str, source: str, *, lower: bool, fraction: bool) -> None:
        super().__init__(ScorerOptions())
        self.name = name
        self._source, self._lower, self._fraction = source, lower, fraction

    def score(self, sample: ScoringInput) -> Score:
        """Raises RuntimeError: the source scored."""
        raise RuntimeError("the scores of imported results are the source's")

    def metrics(self) -> tuple[MetricInfo, ...]:
        direction: Direction = "lower" if self._lower else "higher"
        definition = (
            f"Mean over samples of the score '{self.name}' that {self._source} gave, as its file has it. "
            "Interval by evalrun."
        )
        bounds = (0.0, 1.0) if self._fraction else (None, None)
        return (
            MetricInfo(self.name, "fraction" if self._fraction else "score", direction, definition, bounds),
        )
