"""Scorers that compare numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import Annotated

from pydantic import Field

from evalrun.scoring.base import (
    NO_TARGET,
    NOT_APPLICABLE,
    Corpus,
    Example,
    MetricInfo,
    ScoreColumns,
    Scorer,
    ScorerOptions,
    ScoringInput,
    alternatives,
    as_text,
    shown,
    target_texts,
)
from evalrun.scoring.functions import scorer
from evalrun.scoring.mathematics import boxed, engine, same
from evalrun.scoring.numerals import NUMBER, Number, near, number_of, plain_signs
from evalrun.types import JSON, Score

MAX_CHARACTERS = 100_000


class NumericOptions(ScorerOptions):
    """Options of the scorer `numeric`."""

    abs_tolerance: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Greatest difference that still counts as equal."
    )
    rel_tolerance: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="The same as a share of the target's size. Default: none; whole numbers must be equal "
        "exactly, and of decimals only rounding is forgiven, by at most half of the last place written and a "
        "billionth of the size.",
    )
    units: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default_factory=dict,
        description="Units that may follow a number, and what one of each is worth: {km: 1000, m: 1}. "
        "A number without any of them counts as it stands.",
    )


@scorer(
    "numeric",
    summary="1 where the last number in the answer equals the last number in the target, exactly or within a "
    "tolerance: |answer - target| <= max(abs_tolerance, rel_tolerance x |target|). Numbers are read as the "
    "parser last_number reads them.",
    metric="Share of samples whose number is the target's: the last number in the answer and in the target "
    "agree when |answer - target| is at most the greater of the absolute tolerance and the relative "
    "tolerance times |target|; without tolerances whole numbers must be equal and decimals equal but for "
    "rounding. Answers without a number, unparsed and refused ones count as 0; failed samples are left out.",
    example=Example("{numeric: {units: {km: 1000, m: 1}}}", "about 3 km", "3000 m", 1),
    shorthand="abs_tolerance",
    needs_target=True,
)
def numeric(answer: JSON, target: JSON, options: NumericOptions) -> Score:
    """1 or 0; None where the target holds no number."""
    known = [
        number
        for alternative in alternatives(target)
        if (number := _with_unit(alternative, options.units)) is not None
    ]
    if not known:
        return Score(None, f"{NOT_APPLICABLE}: there is no number in the target {shown(target)}")
    given = _with_unit(answer, options.units)
    if given is None:
        return Score(0.0, f"there is no number in the answer {shown(answer)}")
    for wanted in known:
        if _near(given, wanted, options):
            return Score(1.0, f"answer {as_text(given.plain)} equals the target {as_text(wanted.plain)}")
    listed = " or ".join(as_text(number.plain) for number in known[:5])
    margins = [f"{options.abs_tolerance:g}"] if options.abs_tolerance else []
    if options.rel_tolerance:
        margins.append(f"{options.rel_tolerance:.3g} of its size")
    within = f" within {' or '.join(margins)}" if margins else ""
    return Score(0.0, f"answer {as_text(given.plain)} is not the target {listed}{within}")


def _with_unit(value: JSON, units: Mapping[str, float]) -> Number | None:
    """The last number with its unit, in the unit that is worth 1; else the last number."""
    if isinstance(value, str):
        value = value[-MAX_CHARACTERS:]
        last = None
        for last in _unit_pattern(tuple(units)).finditer(plain_signs(value)) if units else ():  # noqa: B007
            pass
        number = number_of(last["number"]) if last is not None else None
        if last is not None and number is not None:
            return number.times(Fraction(repr(units[last["unit"]])))
    return number_of(value if isinstance(value, int | float | str) else as_text(value))


@cache
def _unit_pattern(units: Sequence[str]) -> re.Pattern[str]:
    """A number and one of the units after it, the longest first."""
    body = "|".join(re.escape(unit) for unit in sorted(units, key=len, reverse=True))
    return re.compile(rf"(?<![\d.,])(?P<number>{NUMBER.pattern})\s?(?P<unit>{body})(?!\w)")


def _near(answer: Number, target: Number, options: NumericOptions) -> bool:
    if answer.value == target.value:
        return True
    if options.abs_tolerance or options.rel_tolerance is not None:
        share = Fraction(repr(options.rel_tolerance or 0.0)) * abs(target.value)
        return abs(answer.value - target.value) <= max(Fraction(repr(options.abs_tolerance)), share)
    return near(answer, target, 1e-9)


class MathOptions(ScorerOptions):
    """Options of the scorer `math`."""

    rel_tolerance: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Greatest relative difference of equal numbers. Default: none; numbers must be equal "
        "exactly, but for the rounding of decimals beside irrational numbers (3.14159265359 beside pi), and "
        "of those with 15 digits or more.",
    )


@scorer(
    "math",
    summary=r"1 where the answer is the target as mathematics, however it is written: 1/2, 0.5, 50 %, "
    r"\frac{1}{2}, \boxed{…}, 3\sqrt{2}, 2^{10}, 1,234; x+1 and 1+x; x \le 3 and 3 >= x; equations, systems, "
    r"sets, tuples, intervals, matrices; a unit that only one of them has is left out. Words are compared as "
    "text. Worked out by math-verify.",
    metric="Share of samples whose answer is the target as mathematics: plain numbers are compared exactly, "
    "or within the relative tolerance where the suite gives one; expressions, equations, inequalities, sets, "
    "tuples, intervals and matrices by math-verify (sympy); anything else as text without spaces. Unparsed "
    "and refused answers count as 0; failed samples are left out.",
    example=Example("math", r"\boxed{\frac{1}{2}}", "50 %", 1),
    shorthand="rel_tolerance",
)
class MathEqual(Scorer[MathOptions]):
    """1 where answer and target are the same mathematics."""

    needs_target = True

    def __init__(self, options: MathOptions) -> None:
        super().__init__(options)
        engine()  # here, and not while answers arrive: the import takes seconds

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0; None where there is no target."""
        given = boxed(as_text(sample.answer)[-MAX_CHARACTERS:])
        targets = [boxed(text) for text in target_texts(sample.target) if text.strip()]
        if not targets:
            return Score(None, NO_TARGET)
        for wanted in targets:
            if how := same(given, wanted, self.options.rel_tolerance):
                return Score(1.0, f"{shown(given)} {how} {shown(wanted)}")
        return Score(0.0, f"{shown(given)} is not {' or '.join(map(shown, targets[:5]))}")


_LEFT_OUT = " Samples without a number, unparsed, refused and failed ones are left out."


class CorrelationOptions(ScorerOptions):
    """Options of the scorer `correlation`."""

    max_pairs: int = Field(
        default=20_000,
        ge=3,
        description="With more samples than this, Kendall's tau is left out: it compares every pair.",
    )


@scorer(
    "correlation",
    summary="Pearson, Spearman and Kendall correlation of numeric answers with numeric targets (the last "
    "number in each), and the mean absolute error.",
    metric=(
        MetricInfo(
            "mae",
            "score",
            "lower",
            "Mean over samples of |answer - target|, in the unit of the numbers." + _LEFT_OUT,
            (0.0, None),
        ),
        MetricInfo(
            "pearson",
            "correlation",
            "higher",
            "Pearson's correlation of answers and targets: their covariance divided by the product of "
            "their standard deviations. Interval: percentile bootstrap." + _LEFT_OUT,
            (-1.0, 1.0),
        ),
        MetricInfo(
            "spearman",
            "correlation",
            "higher",
            "Spearman's rank correlation: Pearson's of the ranks, equal values sharing their mean rank. "
            "Interval: the influence of each sample on Fisher's z, which holds for ties and skewed numbers."
            + _LEFT_OUT,
            (-1.0, 1.0),
        ),
        MetricInfo(
            "kendall",
            "correlation",
            "higher",
            "Kendall's tau-b: (concordant - discordant pairs) / sqrt((pairs not tied in the answers) x "
            "(pairs not tied in the targets)). Interval: the influence of each sample on Fisher's z, which "
            "holds for ties." + _LEFT_OUT,
            (-1.0, 1.0),
        ),
    ),
    example=Example("correlation", "I would give it 7 of 10", 8, 2),
)
class CorrelationScorer(Scorer[CorrelationOptions]):
    """The distance of answer and target, and their correlation over all samples."""

    needs_target = True
    correctness = False
    parts = ("answer", "target")

    def score(self, sample: ScoringInput) -> Score:
        """|answer - target|; None where either has no number."""
        answer, target = _finite(sample.answer), _finite(sample.target)
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

        answers, targets = columns.parts["answer"], columns.parts["target"]
        return correlation_corpus(self.name, answers, targets, self.metrics_by_name(), self.options.max_pairs)


def _finite(value: JSON) -> float | None:
    number = _with_unit(value, {})
    try:
        return float(number.value) if number is not None else None
    except OverflowError:  # an integer beyond every float
        return None
