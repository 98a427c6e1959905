"""Whether the answer is the same number as the target."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar

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
    units: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default_factory=dict,
        description="Units that may follow a number, and what one of each is worth: {km: 1000, m: 1}. "
        "A number without any of them counts as it stands.",
    )


class Numeric(Scorer):
    """1 where the numbers agree within the tolerance, else 0."""

    Options: ClassVar[type[NumericOptions]] = NumericOptions
    shorthand = "abs_tolerance"
    registered = "numeric"
    needs_target = True
    summary = (
        "1 where the last number in the answer equals the last number in the target within a tolerance: "
        "|answer - target| <= max(abs_tolerance, rel_tolerance x |target|)."
    )

    def __init__(self, options: NumericOptions) -> None:
        super().__init__(options)
        self._abs = options.abs_tolerance
        self._rel = options.rel_tolerance
        self._units = dict(options.units)
        self._unit = _unit_pattern(self._units)

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0; None where the target holds no number."""
        answer = self._number(sample.answer)
        targets = [self._number(each) for each in alternatives(sample.target)]
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

    def _number(self, value: JSON) -> int | float | None:
        """The last number with its unit, in the unit that is worth 1; else the last number."""
        if self._unit is not None and isinstance(value, str):
            found = None
            for found in self._unit.finditer(value[-MAX_CHARACTERS:]):  # noqa: B007
                pass
            number = None if found is None else last_number(found[1])
            if found is not None and number is not None:
                return number * self._units[found[2]]
        return _number(value)

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


def _unit_pattern(units: Mapping[str, float]) -> re.Pattern[str] | None:
    """A number and one of the units after it, the longest first."""
    if not units:
        return None
    body = "|".join(re.escape(each) for each in sorted(units, key=len, reverse=True))
    return re.compile(rf"(?<![\d.,])([+\-]?[\d.,]{{0,40}}\d(?:[eE][+-]?\d+)?)\s?({body})(?!\w)")


def _number(value: JSON) -> int | float | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return value
    return last_number(as_text(value)[-MAX_CHARACTERS:])
