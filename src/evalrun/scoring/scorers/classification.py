"""Accuracy, precision, recall, F1 and the confusion matrix of answers that are labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, field_validator

from evalrun.scoring.base import (
    Corpus,
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
)
from evalrun.types import Score

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


class Classification(Scorer):
    """1 where the answer is the right label; precision, recall and F1 over all samples."""

    Options: ClassVar[type[ClassificationOptions]] = ClassificationOptions
    shorthand = "labels"
    registered = "classification"
    needs_target = True
    summary = (
        "Accuracy, macro and per-class precision, recall and F1, and the confusion matrix, where unparsed "
        "and refused answers have columns of their own."
    )

    def __init__(self, options: ClassificationOptions) -> None:
        super().__init__(options)
        self._fold = options.ignore_case
        labels = options.labels or []
        self._classes = {self._key(label): label for label in labels}

    def _key(self, text: str) -> str:
        return text.strip().casefold() if self._fold else text.strip()

    def score(self, sample: ScoringInput) -> Score:
        """1 or 0; None where the target is missing or is none of the labels."""
        target, answer = sample.target, sample.answer
        if isinstance(target, list) or target is None:
            if target is None or len(alternatives(target)) != 1:
                return Score(
                    None, f"a target must be one label, and this is {shown(target) if target else 'none'}"
                )
            target = target[0]
        key = self._key(target if isinstance(target, str) else as_text(target))
        if self._classes and key not in self._classes:
            return Score(None, f"the target {shown(target)} is none of the labels")
        answer_key = self._key(answer if isinstance(answer, str) else as_text(answer))
        if answer_key == key:
            return Score(1.0, f"answer {shown(answer)} is the target")
        if self._classes and answer_key not in self._classes:
            return Score(0.0, f"answer {shown(answer)} is none of the labels; the target is {shown(target)}")
        return Score(0.0, f"answer {shown(answer)} is not the target {shown(target)}")

    def confusion(self, columns: ScoreColumns) -> Confusion:
        """Counts of (target, answer) pairs over the samples that count."""
        from evalrun.scoring.scorers.confusion import Confusion

        answers, targets = columns.texts()
        return Confusion.of(targets, answers, columns.status, self._key, list(self._classes.values()))

    def aggregate(self, columns: ScoreColumns) -> Corpus | None:
        """Macro and per-class figures from the confusion counts."""
        if len(columns.value) == 0:
            return None
        infos = {info.name.removeprefix(f"{self.name}."): info for info in self.metrics()}
        return self.confusion(columns).corpus(self.name, infos)

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """Accuracy first; `<label>` stands for each class, in lower case."""
        return (
            fraction(
                f"{name}.accuracy",
                "Share of samples whose answer is the target's label. Unparsed and refused answers count as "
                "wrong; failed samples are left out.",
            ),
            fraction(
                f"{name}.f1_macro",
                "Mean over the classes of F1 = 2 TP / (2 TP + FP + FN)." + _MACRO + _COUNTED,
            ),
            fraction(
                f"{name}.precision_macro",
                "Mean over the classes of precision = TP / (TP + FP)." + _MACRO + _COUNTED,
            ),
            fraction(
                f"{name}.recall_macro",
                "Mean over the classes of recall = TP / (TP + FN)." + _MACRO + _COUNTED,
            ),
            fraction(
                f"{name}.f1_micro",
                "F1 over all classes together: 2 hits / (answers that name a class + samples). Where every "
                "answer names a class it equals the accuracy; answers that name none lower it less."
                + _COUNTED,
            ),
            MetricInfo(
                f"{name}.mcc",
                "correlation",
                "higher",
                "Matthews correlation coefficient for several classes (Gorodkin 2004): (c s - sum p t) / "
                "sqrt((s² - sum p²)(s² - sum t²)), with c hits among s samples, and p answers and t targets "
                "of each class; 1 is perfect, 0 is chance, and 0 where all answers or all targets are alike. "
                "Unparsed, refused and unknown answers are a class each.",
                (-1.0, 1.0),
            ),
            fraction(
                f"{name}.f1.<label>",
                "F1 of one class: 2 TP / (2 TP + FP + FN), the harmonic mean of its precision and recall. "
                "n is the number of samples whose target is the class." + _COUNTED,
            ),
            fraction(
                f"{name}.precision.<label>",
                "Precision of one class: TP / (TP + FP), the share of the answers naming it that are right. "
                "n is the number of answers that name it; there is no value where none does.",
            ),
            fraction(
                f"{name}.recall.<label>",
                "Recall of one class: TP / (TP + FN), the share of its samples that were answered with it. "
                "n is the number of samples whose target is the class; there is no value where none is."
                + _COUNTED,
            ),
        )
