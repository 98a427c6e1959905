"""Whether the answer is as long as it should be."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from evalrun.scoring.base import MetricInfo, Scorer, ScorerOptions, ScoringInput, as_text, fraction
from evalrun.types import Score


class LengthOptions(ScorerOptions):
    """Options of the scorer `length`."""

    unit: Literal["words", "characters", "lines"] = Field(
        default="words",
        description="What is counted: words (between white space), characters (Unicode code points), "
        "or lines that are not empty.",
    )
    min: int | None = Field(default=None, ge=0, description="Least length that is right.")
    max: int | None = Field(default=None, ge=0, description="Greatest length that is right.")
    of: Literal["answer", "output"] = Field(
        default="answer", description="What is measured: the parsed answer, or the raw output."
    )

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min is {self.min}, which is more than max, {self.max}")
        return self


class Length(Scorer):
    """1 where the length is within the bounds."""

    Options: ClassVar[type[LengthOptions]] = LengthOptions
    shorthand = "max"
    registered = "length"
    parts = ("count",)
    summary = "1 where the answer has at least `min` and at most `max` words, characters or lines."

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0, and the length itself."""
        options: LengthOptions = self.options
        text = sample.output if options.of == "output" else as_text(sample.answer)
        count = self._count(text)
        parts = {"count": float(count)}
        if options.min is not None and count < options.min:
            return Score(0.0, f"{count} {options.unit}, fewer than {options.min}", parts)
        if options.max is not None and count > options.max:
            return Score(0.0, f"{count} {options.unit}, more than {options.max}", parts)
        return Score(1.0, f"{count} {options.unit}", parts)

    def _count(self, text: str) -> int:
        if self.options.unit == "words":
            return len(text.split())
        if self.options.unit == "lines":
            return sum(1 for line in text.splitlines() if line.strip())
        return len(text.strip())

    def unanswered(self, sample: ScoringInput, reason: str) -> Score:
        """0, and no length: there is no answer to measure."""
        return Score(0.0, reason, {"count": None})

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The share of right lengths, and the mean length."""
        return (
            fraction(
                f"{name}.within",
                "Share of samples whose answer is within the bounds of length that the suite gives. Unparsed "
                "and refused answers count as 0; failed samples are left out.",
            ),
            MetricInfo(
                f"{name}.count",
                "count",
                "none",
                "Mean length of the answers, in words, characters or lines as the suite says. Unparsed, "
                "refused and failed samples are left out.",
                (0.0, None),
            ),
        )
