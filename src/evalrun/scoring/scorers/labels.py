"""Scorers of answers that are labels, and of the confidence in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from evalrun.errors import Problem
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
    check_labels,
    fraction,
    shown,
    target_texts,
)
from evalrun.scoring.functions import scorer
from evalrun.scoring.numerals import whole_number
from evalrun.scoring.text import label_text, unseen_difference
from evalrun.types import JSON, Score

if TYPE_CHECKING:
    from evalrun.scoring.scorers.confusion import Confusion


_MACRO = (
    " Every class that occurs among targets or answers counts alike; a class where the ratio is 0/0 counts "
    "as 0, as in scikit-learn."
)
_COUNTED = " Unparsed and refused answers stay in as answers that name no class; failed samples are left out."


class ClassificationOptions(ScorerOptions):
    """Options of the scorer `classification`."""

    labels: Annotated[list[str], BeforeValidator(check_labels), Field(min_length=2)] | None = Field(
        default=None,
        description="The classes. Default: every label that occurs among targets and answers. An answer that "
        "is none of them is wrong; a sample whose target is none of them is not scored.",
    )
    ignore_case: bool = Field(default=False, description="Whether labels are the same in either case.")

    @field_validator("parse")
    @classmethod
    def _no_chain(cls, chain: Any) -> Any:
        if chain:
            raise ValueError(
                "classification counts the answers that are stored, which are those of the suite's own parse"
            )
        return chain


@scorer(
    "classification",
    summary="Accuracy, macro and per-class precision, recall and F1, and the confusion matrix, where "
    "unparsed and refused answers have columns of their own.",
    metric=(
        fraction(
            "accuracy",
            "Share of samples whose answer is the target's label. Unparsed and refused answers count as "
            "wrong; failed samples are left out.",
        ),
        fraction("f1_macro", "Mean over the classes of F1 = 2 TP / (2 TP + FP + FN)." + _MACRO + _COUNTED),
        fraction(
            "precision_macro", "Mean over the classes of precision = TP / (TP + FP)." + _MACRO + _COUNTED
        ),
        fraction("recall_macro", "Mean over the classes of recall = TP / (TP + FN)." + _MACRO + _COUNTED),
        fraction(
            "f1_micro",
            "F1 over all classes together: 2 hits / (answers that name a class + samples). Where every "
            "answer names a class it equals the accuracy; answers that name none lower it less." + _COUNTED,
        ),
        MetricInfo(
            "mcc",
            "correlation",
            "higher",
            "Matthews correlation coefficient for several classes (Gorodkin 2004): (c s - sum p t) / "
            "sqrt((s² - sum p²)(s² - sum t²)), with c hits among s samples, and p answers and t targets "
            "of each class; 1 is perfect, 0 is chance, and 0 where all answers or all targets are alike. "
            "Unparsed, refused and unknown answers are a class each.",
            (-1.0, 1.0),
        ),
        fraction(
            "f1.<label>",
            "F1 of one class: 2 TP / (2 TP + FP + FN), the harmonic mean of its precision and recall. "
            "n is the number of samples whose target is the class." + _COUNTED,
        ),
        fraction(
            "precision.<label>",
            "Precision of one class: TP / (TP + FP), the share of the answers naming it that are right. "
            "n is the number of answers that name it; there is no value where none does.",
        ),
        fraction(
            "recall.<label>",
            "Recall of one class: TP / (TP + FN), the share of its samples that were answered with it. "
            "n is the number of samples whose target is the class; there is no value where none is."
            + _COUNTED,
        ),
    ),
    example=Example("{classification: [billing, bug, other]}", "bug", "bug", 1),
)
class Classification(Scorer[ClassificationOptions]):
    """1 where the answer is the right label; precision, recall and F1 over all samples."""

    shorthand = "labels"
    needs_target = True

    def __init__(self, options: ClassificationOptions) -> None:
        super().__init__(options)
        self._fold = options.ignore_case
        labels = options.labels or []
        self._classes = {self._key(label): label for label in labels}

    def _key(self, text: str, target: str = "") -> str:
        label = label_text(text, target)
        return label.casefold() if self._fold else label

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0; None where the target is missing or is none of the labels."""
        target, answer = sample.target, sample.answer
        if isinstance(target, list) or target is None:
            if target is None or len(alternatives(target)) != 1:
                given = shown(target) if target else "none"
                return Score(None, f"{NOT_APPLICABLE}: a target must be one label, and this is {given}")
            target = target[0]
        key = self._key(target if isinstance(target, str) else as_text(target))
        if not key:
            return Score(None, "the target is empty")
        if self._classes and key not in self._classes:
            return Score(None, f"{NOT_APPLICABLE}: the target {shown(target)} is none of the labels")
        answer_key = self._key(answer if isinstance(answer, str) else as_text(answer), key)
        if answer_key == key:
            return Score(1.0, f"answer {shown(answer)} is the target")
        if self._classes and answer_key not in self._classes:
            return Score(0.0, f"answer {shown(answer)} is none of the labels; the target is {shown(target)}")
        unseen = unseen_difference(as_text(answer), as_text(target))
        return Score(
            0.0, f"answer {shown(answer)} is not the target {shown(target)}" + (unseen and f": {unseen}")
        )

    def confusion(self, columns: ScoreColumns) -> Confusion:
        """Counts of (target, answer) pairs over the samples that count."""
        from evalrun.scoring.scorers.confusion import Confusion

        answers, targets = columns.texts()
        return Confusion.of(targets, answers, columns.status, self._key, list(self._classes.values()))

    def aggregate(self, columns: ScoreColumns) -> Corpus | None:
        """Macro and per-class figures from the confusion counts."""
        infos = {name.removeprefix(f"{self.name}."): info for name, info in self.metrics_by_name().items()}
        return self.confusion(columns).corpus(self.name, infos)


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


CHANCE = (
    "It is biased upwards, the more the fewer samples there are, and has no interval: none is known that "
    "covers it where confidences are right. Its note says what perfect confidences would give by chance."
)
AUROC = (
    "How well confidence tells right answers from wrong ones: the chance that a right answer has the greater "
    "confidence than a wrong one, ties counting half; 0.5 is none. Interval: DeLong et al. (1988) on the "
    "logit scale."
)
AURC = (
    "Area under the risk-coverage curve: the mean over samples of the share of wrong answers among those "
    "whose confidence is at least as high (Geifman and El-Yaniv 2017). It is what errors would be left, on "
    "average, if one kept only the more confident answers, at any point; the error rate itself where "
    "confidence says nothing. Interval: influence of each sample, on the log scale."
)
_LEFT_OUT = " Samples without a stated confidence, unparsed, refused and failed ones are left out."


@scorer(
    "calibration",
    summary="Brier score, expected calibration error, AUROC and risk-coverage area of a confidence that the "
    'model states, from an answer parsed as JSON: {"answer": …, "confidence": …}.',
    metric=(
        fraction(
            "brier",
            "Brier score (Brier 1950): mean over samples of (confidence - hit)², where hit is 1 for a "
            "right answer and 0 for a wrong one." + _LEFT_OUT,
            "lower",
        ),
        fraction(
            "ece",
            "Expected calibration error (Guo et al. 2017): confidences are put into bins of equal width, "
            "(0, 0.1], (0.1, 0.2] and so on; the sum over bins of the share of samples in the bin times "
            "the distance of their mean confidence from their accuracy. " + CHANCE + _LEFT_OUT,
            "lower",
        ),
        fraction("auroc", AUROC + _LEFT_OUT),
        fraction("aurc", AURC + _LEFT_OUT, "lower"),
        fraction("confidence", "Mean of the confidences." + _LEFT_OUT, "none"),
        fraction("accuracy", "Share of right answers among those with a confidence." + _LEFT_OUT),
    ),
    example=Example("calibration", {"answer": "yes", "confidence": 0.9}, "no", 0.81),
)
class Calibration(Scorer[CalibrationOptions]):
    """Squared error of the confidence, and how far confidence and accuracy lie apart."""

    correctness = False
    parts = ("confidence", "accuracy")

    def check(self, columns: Sequence[str], where: str) -> list[Problem]:
        """The column of the confidence must be there."""
        column = self.options.column
        if column is None or column in columns:
            return []
        return [Problem(f"the scorer {self.name} reads '{column}', which is no column of the data", where)]

    def score(self, sample: ScoringInput) -> Score:
        """The squared difference of confidence and correctness; None without a confidence or a target."""
        options = self.options
        answer = sample.answer
        given = isinstance(answer, dict) and options.answer in answer
        if not given and options.column is None:
            return Score(None, f"the answer {shown(answer)} has no '{options.answer}'")
        place, key = (answer, options.confidence) if options.column is None else (sample.row, options.column)
        confidence = _confidence(place.get(key), options.scale)
        if confidence is None:
            what = f"the answer {shown(answer)}" if options.column is None else "the row"
            return Score(None, f"{what} has no '{key}' from 0 to {options.scale:g}")
        targets = [self._key(text) for text in target_texts(sample.target)]
        if not targets:
            return Score(None, NO_TARGET)
        said = answer[options.answer] if given else answer
        right = float(any(self._key(said, target) == target for target in targets))
        reason = f"confidence {confidence:g}, and the answer is {'right' if right else 'wrong'}"
        return Score((confidence - right) ** 2, reason, {"confidence": confidence, "accuracy": right})

    def _key(self, value: JSON, target: str = "") -> str:
        label = label_text(as_text(value), target)
        return label.casefold() if self.options.ignore_case else label

    def aggregate(self, columns: ScoreColumns) -> Corpus | None:
        """Expected calibration error from sums of confidence and hits by bin; AUROC and AURC."""
        from evalrun.scoring.figures import calibration_corpus

        confidence, right = columns.parts["confidence"], columns.parts["accuracy"]
        return calibration_corpus(self.name, confidence, right, self.options.bins, self.metrics_by_name())


def _confidence(value: JSON, scale: float) -> float | None:
    if isinstance(value, str):
        number = whole_number(value)
        value = None if number is None else number.plain
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    share = float(value) / scale if abs(value) <= scale else -1.0
    return share if 0 <= share <= 1 else None
