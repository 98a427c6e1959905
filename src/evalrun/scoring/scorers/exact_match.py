"""Whether the answer is the target."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from evalrun.scoring.base import (
    NO_TARGET,
    MetricInfo,
    Scorer,
    ScorerOptions,
    ScoringInput,
    alternatives,
    as_text,
    fraction,
    shown,
)
from evalrun.scoring.normalise import Normaliser
from evalrun.scoring.numbers import whole_number
from evalrun.types import JSON, Score


class ExactMatchOptions(ScorerOptions):
    """Options of the scorer `exact_match`."""

    ignore_case: bool = Field(default=False, description="Compare in one case (Unicode case folding).")
    ignore_punctuation: bool = Field(
        default=False, description="Leave out punctuation marks and symbols (Unicode categories P and S)."
    )
    ignore_whitespace: bool = Field(
        default=False, description="Count any run of white space as one space. Ends are always stripped."
    )


class ExactMatch(Scorer):
    """1 where the answer equals the target, else 0."""

    Options: ClassVar[type[ExactMatchOptions]] = ExactMatchOptions
    registered = "exact_match"
    needs_target = True
    summary = (
        "1 where the answer equals the target, or one of a list of targets; white space at the ends does not "
        "count, and a number equals a text that is the same number."
    )

    def __init__(self, options: ExactMatchOptions) -> None:
        super().__init__(options)
        chosen = (options.ignore_case, options.ignore_punctuation, options.ignore_whitespace)
        self._normalise = Normaliser(*chosen) if any(chosen) else str.strip

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0; a list of targets is met by any of them. None where there is no target."""
        answer, target = sample.answer, sample.target
        if target is None:
            return Score(None, NO_TARGET)
        if answer == target and type(answer) is type(target):
            return Score(1.0, f"answer {shown(answer)} is the target")
        for one in alternatives(target):
            if self._equal(answer, one):
                return Score(1.0, f"answer {shown(answer)} is the target {shown(one)}")
        if isinstance(target, list | tuple):
            return Score(0.0, f"answer {shown(answer)} is none of the {len(target)} targets {shown(target)}")
        return Score(0.0, f"answer {shown(answer)} is not the target {shown(target)}")

    def _equal(self, answer: JSON, target: JSON) -> bool:
        if isinstance(answer, str) and isinstance(target, str):
            return self._normalise(answer) == self._normalise(target)
        if _is_number(answer) or _is_number(target):
            return _number(answer) == _number(target) is not None
        if isinstance(answer, dict | list) or isinstance(target, dict | list):
            return bool(answer == target)
        return self._normalise(as_text(answer)) == self._normalise(as_text(target))

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The share of right answers."""
        text = (
            "Share of samples whose answer is the target: mean of 1 where they are equal (ends stripped, "
            "after the normalisation that the suite asks for) and 0 where not. Unparsed and refused answers "
            "count as 0; failed samples are left out."
        )
        return (fraction(name, text),)


def _is_number(value: JSON) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: JSON) -> int | float | None:
    if _is_number(value):
        return value  # type: ignore[no-any-return]
    if not isinstance(value, str):
        return None
    return int(value) if value.isdecimal() and len(value) < 19 else whole_number(value)
