"""Whether a model's stated confidence can be believed: Brier score and expected calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from evalrun.errors import Problem
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
from evalrun.scoring.numbers import whole_number
from evalrun.types import JSON, Score


class CalibrationOptions(ScorerOptions):
    """Options of the scorer `calibration`."""

    answer: str = Field(
        default="answer", min_length=1, description="Key of the answer in the JSON object that was parsed."
    )
    confidence: str = Field(
        default="confidence", min_length=1, description="Key of the confidence in the same object."
    )
    column: str | None = Field(
        default=None,
        min_length=1,
        description="Column of the row that holds the confidence instead (of recorded answers). The answer "
        "is then taken whole, or from its key where it is an object.",
    )
    scale: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="The confidence that means certainty: 1 or 100."
    )
    bins: int = Field(default=10, ge=1, le=100, description="Bins of equal width for the calibration error.")
    ignore_case: bool = Field(default=False, description="Whether answers are the same in either case.")


class Calibration(Scorer):
    """Squared error of the confidence, and how far confidence and accuracy lie apart."""

    Options: ClassVar[type[CalibrationOptions]] = CalibrationOptions
    registered = "calibration"
    correctness = False
    parts = ("confidence", "accuracy")
    summary = (
        "Brier score and expected calibration error of a confidence that the model states, from an answer "
        'parsed as JSON: {"answer": …, "confidence": …}.'
    )

    def check(self, columns: Sequence[str], where: str) -> list[Problem]:
        """The column of the confidence must be there."""
        column = self.options.column
        if column is None or column in columns:
            return []
        return [Problem(f"the scorer {self.name} reads '{column}', which is no column of the data", where)]

    def score(self, sample: ScoringInput) -> Score:
        """The squared difference of confidence and correctness; None without a confidence or a target."""
        options: CalibrationOptions = self.options
        answer = sample.answer
        given = isinstance(answer, dict) and options.answer in answer
        if not given and options.column is None:
            return Score(None, f"the answer {shown(answer)} has no '{options.answer}'")
        place, key = (answer, options.confidence) if options.column is None else (sample.row, options.column)
        confidence = _confidence(place.get(key), options.scale)
        if confidence is None:
            what = f"the answer {shown(answer)}" if options.column is None else "the row"
            return Score(None, f"{what} has no '{key}' from 0 to {options.scale:g}")
        targets = [self._key(each) for each in alternatives(sample.target) if each is not None]
        if not targets:
            return Score(None, NO_TARGET)
        right = float(self._key(answer[options.answer] if given else answer) in targets)
        reason = f"confidence {confidence:g}, and the answer is {'right' if right else 'wrong'}"
        return Score((confidence - right) ** 2, reason, {"confidence": confidence, "accuracy": right})

    def _key(self, value: JSON) -> str:
        text = as_text(value).strip()
        return text.casefold() if self.options.ignore_case else text

    def aggregate(self, columns: ScoreColumns) -> Corpus | None:
        """Expected calibration error from sums of confidence and hits by bin."""
        from evalrun.scoring.scorers.calibration_figures import calibration_error

        info = next(each for each in self.metrics() if each.name == f"{self.name}.ece")
        parts = columns.parts
        return calibration_error(parts["confidence"], parts["accuracy"], self.options.bins, info)

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """Brier score first."""
        left_out = " Samples without a stated confidence, unparsed, refused and failed ones are left out."
        return (
            fraction(
                f"{name}.brier",
                "Brier score (Brier 1950): mean over samples of (confidence - hit)², where hit is 1 for a "
                "right answer and 0 for a wrong one." + left_out,
                "lower",
            ),
            fraction(
                f"{name}.ece",
                "Expected calibration error (Guo et al. 2017): confidences are put into bins of equal width, "
                "(0, 0.1], (0.1, 0.2] and so on; the sum over bins of the share of samples in the bin times "
                "the distance of their mean confidence from their accuracy. It is biased upwards for few "
                "samples, as every estimate of it is." + left_out,
                "lower",
            ),
            fraction(f"{name}.confidence", "Mean of the confidences." + left_out, "none"),
            fraction(f"{name}.accuracy", "Share of right answers among those with a confidence." + left_out),
        )


def _confidence(value: JSON, scale: float) -> float | None:
    if isinstance(value, str):
        value = whole_number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    share = float(value) / scale if abs(value) <= scale else -1.0
    return share if 0 <= share <= 1 else None
