"""Scorers that compare numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from evalrun.scoring.base import (
    NO_TARGET,
    Corpus,
    MetricInfo,
    ScoreColumns,
    Scorer,
    ScorerOptions,
    ScoringInput,
    alternatives,
    as_text,
    fraction,
    shown,
)
from evalrun.scoring.mathematics import boxed, comparable, equal, value_of
from evalrun.scoring.text import last_number
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


class MathOptions(ScorerOptions):
    """Options of the scorer `math`."""

    rel_tolerance: float = Field(
        default=1e-9,
        ge=0,
        lt=1,
        description="Greatest relative difference of equal numbers; exact fractions need none.",
    )


class Math(Scorer):
    """1 where answer and target are the same number, or the same formula as text."""

    Options: ClassVar[type[MathOptions]] = MathOptions
    shorthand = "rel_tolerance"
    registered = "math"
    needs_target = True
    summary = (
        r"1 where the answer is the target's number however it is written: 1/2, 0.5, 50 %, \frac{1}{2}, "
        r"\boxed{…}, 3\sqrt{2}, 2^{10}, 1,234; what is no number is compared as text without spaces. "
        "No algebra: x+1 is not 1+x."
    )

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0; None where there is no target."""
        answer = boxed(as_text(sample.answer)[-MAX_CHARACTERS:])
        targets = [boxed(as_text(each)) for each in alternatives(sample.target) if each is not None]
        if not targets:
            return Score(None, NO_TARGET)
        number, text = value_of(answer), None
        for target in targets:
            wanted = value_of(target)
            if number is not None and wanted is not None:
                if equal(number, wanted, self.options.rel_tolerance):
                    return Score(1.0, f"{shown(answer)} equals {shown(target)}")
                continue
            text = comparable(answer[:MAX_CHARACTERS]) if text is None else text
            if text and text == comparable(target):
                return Score(1.0, f"{shown(answer)} reads like {shown(target)}")
        return Score(0.0, f"{shown(answer)} is not {' or '.join(shown(each) for each in targets[:5])}")

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The share of right answers."""
        text = (
            "Share of samples whose answer is the target as mathematics: numbers are worked out from "
            "fractions, percentages, powers, roots and LaTeX and compared (exactly where both are fractions, "
            "else within the relative tolerance); anything else is compared as text without spaces. Unparsed "
            "and refused answers count as 0; failed samples are left out."
        )
        return (fraction(name, text),)


_LEFT_OUT = " Samples without a number, unparsed, refused and failed ones are left out."


class CorrelationOptions(ScorerOptions):
    """Options of the scorer `correlation`."""

    max_pairs: int = Field(
        default=20_000,
        ge=3,
        description="With more samples than this, Kendall's tau is left out: it compares every pair.",
    )


class CorrelationScorer(Scorer):
    """The distance of answer and target, and their correlation over all samples."""

    Options: ClassVar[type[CorrelationOptions]] = CorrelationOptions
    registered = "correlation"
    needs_target = True
    correctness = False
    parts = ("answer", "target")
    summary = (
        "Pearson, Spearman and Kendall correlation of numeric answers with numeric targets (the last number "
        "in each), and the mean absolute error."
    )

    def score(self, sample: ScoringInput) -> Score:
        """|answer - target|; None where either has no number."""
        answer, target = _correlation_number(sample.answer), _correlation_number(sample.target)
        if answer is None or target is None:
            which = "answer" if answer is None else "target"
            return Score(None, f"there is no number in the {which} {shown(getattr(sample, which))}")
        reason = f"answer {answer:g}, target {target:g}"
        if not math.isfinite(answer - target):
            return Score(None, f"{reason}: too far apart for a number")
        return Score(abs(answer - target), reason, {"answer": answer, "target": target})

    def aggregate(self, columns: ScoreColumns) -> Corpus | None:
        """Pearson from sums; the two rank correlations with intervals of their own."""
        from evalrun.scoring.figures import correlation_corpus

        if len(columns.value) == 0:
            return None
        infos = {info.name: info for info in self.metrics()}
        answers, targets = columns.parts["answer"], columns.parts["target"]
        return correlation_corpus(self.name, answers, targets, infos, self.options.max_pairs)

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The mean absolute error first."""
        bounds = (-1.0, 1.0)
        return (
            MetricInfo(
                f"{name}.mae",
                "score",
                "lower",
                "Mean over samples of |answer - target|, in the unit of the numbers." + _LEFT_OUT,
                (0.0, None),
            ),
            MetricInfo(
                f"{name}.pearson",
                "correlation",
                "higher",
                "Pearson's correlation of answers and targets: their covariance divided by the product of "
                "their standard deviations. Interval: percentile bootstrap." + _LEFT_OUT,
                bounds,
            ),
            MetricInfo(
                f"{name}.spearman",
                "correlation",
                "higher",
                "Spearman's rank correlation: Pearson's of the ranks, equal values sharing their mean rank. "
                "Interval: Fisher's z with variance (1 + r²/2) / (n - 3) (Bonett and Wright 2000)."
                + _LEFT_OUT,
                bounds,
            ),
            MetricInfo(
                f"{name}.kendall",
                "correlation",
                "higher",
                "Kendall's tau-b: (concordant - discordant pairs) / sqrt((pairs not tied in the answers) x "
                "(pairs not tied in the targets)). Interval: Fisher's z with variance 0.437 / (n - 4) "
                "(Fieller et al. 1957)." + _LEFT_OUT,
                bounds,
            ),
        )


def _correlation_number(value: JSON) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    number = value if isinstance(value, int | float) else last_number(as_text(value)[-MAX_CHARACTERS:])
    try:
        return float(number) if number is not None and math.isfinite(number) else None
    except OverflowError:  # an integer beyond every float
        return None
