"""Metrics for the library `evaluate` that need no network: subclasses of `evaluate.Metric` of our own.

`evaluate.load` fetches a script from the Hub and runs it; nothing here does either. Each class takes what the
Hub's metric of the same name takes and gives what it gives; the values are those of evalrun's scorers, that
is of scikit-learn, sacrebleu, rouge-score and jiwer. `make("rouge").compute(predictions=…, references=…)`.

Importing this module imports `evaluate`, which takes seconds: it is meant for those who use that library.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from evalrun.errors import UserError
from evalrun.registry import nearest
from evalrun.scoring.evaluate_base import LABEL, LocalMetric
from evalrun.scoring.evaluate_texts import Bleu, Cer, Chrf, Rouge, Sacrebleu, Squad, Ter, Wer


class ExactMatch(LocalMetric):
    """Share of predictions that equal their reference."""

    title = "exact_match"
    text = "Share of predictions that equal their reference, after what is to be ignored."

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        regexes_to_ignore: Sequence[str] | None = None,
        ignore_case: bool = False,
        ignore_punctuation: bool = False,
        ignore_numbers: bool = False,
    ) -> dict[str, float]:
        delete = string.punctuation * ignore_punctuation + string.digits * ignore_numbers
        table = str.maketrans("", "", delete)

        def plain(text: str) -> str:
            for pattern in regexes_to_ignore or ():
                text = re.sub(pattern, "", text)
            return (text.lower() if ignore_case else text).translate(table)

        hits = sum(plain(a) == plain(b) for a, b in zip(predictions, references, strict=True))
        return {"exact_match": hits / len(predictions)}


class _Labels(LocalMetric):
    """A figure of scikit-learn over class numbers; its options are those of the function."""

    prediction = LABEL
    reference = LABEL
    function: ClassVar[str]

    def _compute(
        self, predictions: Sequence[int], references: Sequence[int], **options: Any
    ) -> dict[str, Any]:
        from sklearn import metrics

        value = getattr(metrics, self.function)(references, predictions, **options)
        return {self.title: value if getattr(value, "ndim", 0) else float(value)}


class Accuracy(_Labels):
    """Share of right labels."""

    title = "accuracy"
    text = "Share of predictions that are the right label."
    function = "accuracy_score"


class F1(_Labels):
    """F1 of labels."""

    title = "f1"
    text = "2PR / (P + R) over labels; `average` and `pos_label` as in scikit-learn."
    function = "f1_score"


class Precision(_Labels):
    """Precision of labels."""

    title = "precision"
    text = "TP / (TP + FP) over labels; `average` and `pos_label` as in scikit-learn."
    function = "precision_score"


class Recall(_Labels):
    """Recall of labels."""

    title = "recall"
    text = "TP / (TP + FN) over labels; `average` and `pos_label` as in scikit-learn."
    function = "recall_score"


class Matthews(_Labels):
    """Matthews correlation of labels."""

    title = "matthews_correlation"
    text = "Matthews correlation coefficient over labels, of two classes or more."
    function = "matthews_corrcoef"


METRICS: Mapping[str, type[LocalMetric]] = {
    each.title: each
    for each in (
        *(ExactMatch, Accuracy, F1, Precision, Recall, Matthews, Bleu, Sacrebleu, Chrf, Ter, Rouge),
        *(Wer, Cer, Squad),
    )
}
"""The metrics by the names that `evaluate.load` knows them by."""


def make(name: str, **options: Any) -> LocalMetric:
    """The metric of that name, ready to compute. Raises UserError for a name that is not here."""
    kind: Callable[..., LocalMetric] | None = METRICS.get(name)
    if kind is None:
        near = nearest(name, METRICS)
        remedy = f"Did you mean '{near}'?" if near else f"There are: {', '.join(METRICS)}."
        raise UserError(f"there is no metric '{name}' here", remedy=remedy)
    return kind(**options)
