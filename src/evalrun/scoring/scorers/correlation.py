"""How numeric answers go along with numeric targets: Pearson, Spearman and Kendall."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from evalrun.scoring.base import (
    Corpus,
    MetricInfo,
    ScoreColumns,
    Scorer,
    ScorerOptions,
    ScoringInput,
    as_text,
    shown,
)
from evalrun.scoring.numbers import last_number
from evalrun.types import JSON, Score

_LEFT_OUT = " Samples without a number, unparsed, refused and failed ones are left out."
MAX_CHARACTERS = 100_000


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
        answer, target = _number(sample.answer), _number(sample.target)
        if answer is None or target is None:
            which = "answer" if answer is None else "target"
            return Score(None, f"there is no number in the {which} {shown(getattr(sample, which))}")
        reason = f"answer {answer:g}, target {target:g}"
        if not math.isfinite(answer - target):
            return Score(None, f"{reason}: too far apart for a number")
        return Score(abs(answer - target), reason, {"answer": answer, "target": target})

    def aggregate(self, columns: ScoreColumns) -> Corpus | None:
        """Pearson from sums; the two rank correlations with intervals of their own."""
        from evalrun.scoring.correlations import correlation_corpus

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


def _number(value: JSON) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    number = value if isinstance(value, int | float) else last_number(as_text(value)[-MAX_CHARACTERS:])
    try:
        return float(number) if number is not None and math.isfinite(number) else None
    except OverflowError:  # an integer beyond every float
        return None
