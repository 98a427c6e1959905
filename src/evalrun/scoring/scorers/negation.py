"""The opposite of another check."""

from __future__ import annotations

from typing import ClassVar

from evalrun.scoring.base import MetricInfo, ScoringInput, fraction
from evalrun.scoring.scorers.wrapping import Wrapping, WrappingOptions
from evalrun.types import Score


class NotOptions(WrappingOptions):
    """Options of the scorer `not`."""

    prefix: ClassVar[str] = "not"


class Not(Wrapping):
    """1 minus the score of another scorer."""

    Options: ClassVar[type[NotOptions]] = NotOptions
    registered = "not"
    summary = (
        "The opposite of another check, 1 - score: {not: {includes: sorry}}. It is called not_<its name> "
        "unless a name is given."
    )

    def score(self, sample: ScoringInput) -> Score:
        """1 - score; None where the other has none, or one outside 0 to 1."""
        return self._opposite(self.inner.score(sample))

    def unanswered(self, sample: ScoringInput, reason: str) -> Score:
        """0 like any check of correctness: no answer passes no check. Else the opposite."""
        if self.inner.correctness and not (self.needs_target and sample.target is None):
            return Score(0.0, reason)
        return self._opposite(self.inner.unanswered(sample, reason))

    @staticmethod
    def _opposite(verdict: Score) -> Score:
        if verdict.value is None:
            return Score(None, verdict.reason)
        if not 0 <= verdict.value <= 1:
            return Score(None, f"a score of {verdict.value:g} has no opposite; {verdict.reason}")
        return Score(1 - verdict.value, f"not: {verdict.reason}")

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The mean of the opposite."""
        text = (
            "Mean over samples of 1 - the score of the check that is negated. Unparsed and refused answers "
            "count as 0 where that check is one of correctness; failed samples are left out."
        )
        return (fraction(name, text),)

    def metrics(self) -> tuple[MetricInfo, ...]:
        """The same, with the definition of what is negated."""
        inner = self.inner.metrics()[0]
        text = f"{self.describe(self.name)[0].definition} The check: {inner.name}. {inner.definition}"
        return (fraction(self.name, text),)
