"""Whether the answer is the same number as the target."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from evalrun.scoring.base import (
    MetricInfo,
    Scorer,
    ScorerOptions,
    ScoringInput,
    alternatives,
    as_text,
    fraction,
    shown,
)
from evalrun.scoring.numbers import last_number
from evalrun.types import JSON, Score

MAX_CHARACTERS = 100_000


class NumericOptions(ScorerOptions):
    """Options of the scorer `numeric`."""

    abs_tolerance: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Greatest difference that still counts as equal."
    )
    rel_tolerance: float = Field(
        default=1e-9,
        ge=0,
        allow_inf_nan=False,
        description="The same as a share of the target's size; the default only forgives binary rounding.",
    )


class Numeric(Scorer):
    """1 where the numbers agree within the tolerance, else 0."""

    Options: ClassVar[type[NumericOptions]] = NumericOptions
    shorthand = "abs_tolerance"
    registered = "numeric"
    summary = (
        "1 where the last number in the answer equals the last number in the target within a tolerance: "
        "|answer - target| <= max(abs_tolerance, rel_tolerance x |target|)."
    )

    def __init__(self, options: NumericOptions) -> None:
        super().__init__(options)
        self._abs = options.abs_tolerance
        self._rel = options.rel_tolerance

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0; None where the target holds no number."""
        answer = _number(sample.answer)
        targets = [_number(each) for each in alternatives(sample.target)]
        known = [each for each in targets if each is not None]
        if not known:
            return Score(None, f"there is no number in the target {shown(sample.target)}")
        if answer is None:
            return Score(0.0, f"there is no number in the answer {shown(sample.answer)}")
        for target in known:
            if self._equal(answer, target):
                return Score(1.0, f"answer {as_text(answer)} equals the target {as_text(target)}")
        wanted = " or ".join(as_text(each) for each in known[:5])
        return Score(0.0, f"answer {as_text(answer)} is not the target {wanted}{self._margin()}")

    def _equal(self, answer: float, target: float) -> bool:
        if answer == target:
            return True
        try:
            return abs(answer - target) <= max(self._abs, self._rel * abs(target))
        except OverflowError:  # an integer too large for a float
            return False

    def _margin(self) -> str:
        parts = [f"{self._abs:g}"] if self._abs else []
        if self._rel > 1e-9:
            parts.append(f"{self._rel:.3g} of its size")
        return f" within {' or '.join(parts)}" if parts else ""

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The share of answers with the right number."""
        text = (
            "Share of samples whose number is the target's: the last number in the answer and in the target "
            "agree when |answer - target| is at most the greater of the absolute tolerance and the relative "
            "tolerance times |target|. Answers without a number, unparsed and refused ones count as 0; "
            "failed samples are left out."
        )
        return (fraction(name, text),)


def _number(value: JSON) -> int | float | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return value
    return last_number(as_text(value)[-MAX_CHARACTERS:])
