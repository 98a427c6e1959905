"""Whether another score is good enough."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from evalrun.scoring.base import MetricInfo, ScoringInput, fraction
from evalrun.scoring.scorers.wrapping import Wrapping, WrappingOptions
from evalrun.types import Score


class ThresholdOptions(WrappingOptions):
    """Options of the scorer `threshold`."""

    part: str | None = Field(default=None, description="A part of the score to go by: rouge_2 of rouge.")
    at_least: float | None = Field(default=None, allow_inf_nan=False, description="Least score that passes.")
    at_most: float | None = Field(
        default=None, allow_inf_nan=False, description="Greatest score that passes."
    )

    prefix: ClassVar[str] = "pass"

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("give at_least, at_most or both")
        return self


class Threshold(Wrapping):
    """1 where another score is within its bounds."""

    Options: ClassVar[type[ThresholdOptions]] = ThresholdOptions
    shorthand: ClassVar[str | None] = None
    registered = "threshold"
    summary = (
        "1 where another score is at least, or at most, so much: {threshold: {rouge: {}, at_least: 0.3}}. It "
        "is called pass_<its name> unless a name is given."
    )

    def __init__(self, options: ThresholdOptions) -> None:
        super().__init__(options)
        if options.part is not None and options.part not in self.inner.parts:
            from evalrun.errors import UserError

            known = ", ".join(self.inner.parts) or "none"
            raise UserError(
                f"'{self.inner.name}' has no part '{options.part}'",
                where="scorers",
                remedy=f"It has: {known}.",
            )

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0; None where the other has none."""
        return self._judged(self.inner.score(sample))

    def unanswered(self, sample: ScoringInput, reason: str) -> Score:
        """0 like any check of correctness; else as the other score says."""
        if self.inner.correctness and not (self.needs_target and sample.target is None):
            return Score(0.0, reason)
        return self._judged(self.inner.unanswered(sample, reason))

    def _judged(self, verdict: Score) -> Score:
        options: ThresholdOptions = self.options
        value = verdict.value if options.part is None else verdict.parts.get(options.part)
        if value is None:
            return Score(None, verdict.reason)
        if options.at_least is not None and value < options.at_least:
            return Score(0.0, f"{value:.4g} is less than {options.at_least:g}; {verdict.reason}")
        if options.at_most is not None and value > options.at_most:
            return Score(0.0, f"{value:.4g} is more than {options.at_most:g}; {verdict.reason}")
        return Score(1.0, f"{value:.4g} passes; {verdict.reason}")

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The share of samples that pass."""
        text = (
            "Share of samples whose other score is within the bounds that the suite gives: mean of 1 where "
            "it is and 0 where not. Unparsed and refused answers count as 0 where that score is one of "
            "correctness; failed samples are left out."
        )
        return (fraction(name, text),)

    def metrics(self) -> tuple[MetricInfo, ...]:
        """The same, with the bounds and the definition of the score."""
        inner, options = self.inner.metrics()[0], self.options
        bounds = [f"at least {options.at_least:g}"] if options.at_least is not None else []
        bounds += [f"at most {options.at_most:g}"] if options.at_most is not None else []
        which = f"{self.inner.name}.{options.part}" if options.part else inner.name
        text = f"{self.describe(self.name)[0].definition} {which} must be {' and '.join(bounds)}."
        return (fraction(self.name, text),)
