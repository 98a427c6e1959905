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

import datasets
import evaluate

from evalrun.errors import UserError
from evalrun.registry import nearest

_TEXT = datasets.Value("string")
_LABEL = datasets.Value("int64")
_TEXTS = datasets.Sequence(_TEXT)


class LocalMetric(evaluate.Metric):  # type: ignore[misc]
    """An `evaluate.Metric` whose data stay in memory. Subclasses say what they take, and compute."""

    title: ClassVar[str]
    text: ClassVar[str]
    prediction: ClassVar[Any] = _TEXT
    reference: ClassVar[Any] = _TEXT
    also_one_reference: ClassVar[bool] = False
    """Whether a reference may be one text as well as a list of them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"keep_in_memory": True, "seed": 0, **options})

    def _info(self) -> Any:
        features = datasets.Features({"predictions": self.prediction, "references": self.reference})
        single = datasets.Features({"predictions": self.prediction, "references": _TEXT})
        return evaluate.MetricInfo(
            description=self.text,
            citation="",
            features=[features, single] if self.also_one_reference else features,
        )


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

    prediction = _LABEL
    reference = _LABEL
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


class _Sacrebleu(LocalMetric):
    """A metric of sacrebleu. References are one text each, or a list of texts each."""

    reference = _TEXTS
    also_one_reference = True

    def _score(self, metric: Any, predictions: Sequence[str], references: Sequence[Any]) -> Any:
        lists = [[each] if isinstance(each, str) else list(each) for each in references]
        longest = max((len(each) for each in lists), default=0)
        streams = [[each[at] if at < len(each) else None for each in lists] for at in range(longest)]
        return metric.corpus_score(list(predictions), streams)


class Sacrebleu(_Sacrebleu):
    """BLEU from 0 to 100, as sacrebleu gives it."""

    title = "sacrebleu"
    text = "Corpus BLEU from 0 to 100, with counts, totals, precisions and lengths."

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[Any],
        smooth_method: str = "exp",
        smooth_value: float | None = None,
        force: bool = False,
        lowercase: bool = False,
        tokenize: str | None = None,
        use_effective_order: bool = False,
    ) -> dict[str, Any]:
        from sacrebleu.metrics.bleu import BLEU

        metric = BLEU(
            lowercase=lowercase,
            force=force,
            tokenize=tokenize,
            smooth_method=smooth_method,
            smooth_value=smooth_value,
            effective_order=use_effective_order,
        )
        found = self._score(metric, predictions, references)
        names = ("score", "counts", "totals", "precisions", "bp", "sys_len", "ref_len")
        return {name: getattr(found, name) for name in names}


class Bleu(_Sacrebleu):
    """BLEU from 0 to 1, computed by sacrebleu without smoothing."""

    title = "bleu"
    text = (
        "Corpus BLEU from 0 to 1. Of several references the nearest length counts, as in sacrebleu; the "
        "Hub's metric takes the shortest."
    )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[Any],
        max_order: int = 4,
        smooth: bool = False,
    ) -> dict[str, Any]:
        from sacrebleu.metrics.bleu import BLEU

        method = "add-k" if smooth else "none"
        metric = BLEU(smooth_method=method, max_ngram_order=max_order, tokenize="13a", force=True)
        found = self._score(metric, predictions, references)
        return {
            "bleu": found.score / 100,
            "precisions": [each / 100 for each in found.precisions],
            "brevity_penalty": found.bp,
            "length_ratio": found.ratio,
            "translation_length": found.sys_len,
            "reference_length": found.ref_len,
        }


class Chrf(_Sacrebleu):
    """chrF from 0 to 100."""

    title = "chrf"
    text = "Corpus chrF, or chrF++ with word_order=2, from 0 to 100."

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[Any],
        char_order: int = 6,
        word_order: int = 0,
        beta: int = 2,
        lowercase: bool = False,
        whitespace: bool = False,
        eps_smoothing: bool = False,
    ) -> dict[str, Any]:
        from sacrebleu.metrics.chrf import CHRF

        metric = CHRF(char_order, word_order, beta, lowercase, whitespace, eps_smoothing)
        found = self._score(metric, predictions, references)
        names = ("score", "char_order", "word_order", "beta")
        return {name: getattr(found, name) for name in names}


class Ter(_Sacrebleu):
    """Translation edit rate, in edits per 100 words."""

    title = "ter"
    text = "Corpus translation edit rate: edits per 100 words of the references."

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[Any],
        normalized: bool = False,
        ignore_punct: bool = False,
        support_zh_ja_chars: bool = False,
        case_sensitive: bool = False,
    ) -> dict[str, Any]:
        from sacrebleu.metrics.ter import TER

        metric = TER(normalized, ignore_punct, support_zh_ja_chars, case_sensitive)
        found = self._score(metric, predictions, references)
        return {"score": found.score, "num_edits": found.num_edits, "ref_length": found.ref_length}


class Rouge(LocalMetric):
    """Means of the ROUGE F-measures."""

    title = "rouge"
    text = (
        "Mean F-measures rouge1, rouge2, rougeL and rougeLsum. The Hub's metric by default gives the median "
        "of 1,000 random resamples instead: use_aggregator=False there gives the values whose mean this is."
    )
    reference = _TEXTS
    also_one_reference = True

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[Any],
        use_stemmer: bool = False,
        use_aggregator: bool = True,
    ) -> dict[str, Any]:
        from evalrun.scoring.text.rouge import KINDS, porter_stemmer, rouge

        stem = porter_stemmer() if use_stemmer else None
        values: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for answer, targets in zip(predictions, references, strict=True):
            found = [
                rouge(each, answer, stem) for each in ([targets] if isinstance(targets, str) else targets)
            ]
            for kind in KINDS:
                values[kind].append(max(each[kind] for each in found))
        names = dict(zip(KINDS, ("rouge1", "rouge2", "rougeL", "rougeLsum"), strict=True))
        if not use_aggregator:
            return {names[kind]: each for kind, each in values.items()}
        return {names[kind]: sum(each) / len(each) for kind, each in values.items()}


class _ErrorRate(LocalMetric):
    """Edits of all predictions divided by the units of all references."""

    unit: ClassVar[Any]

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> float:
        from evalrun.scoring.text.error_rates import edit_counter, rate

        count = edit_counter(self.unit)
        counted = [count(target, answer) for answer, target in zip(predictions, references, strict=True)]
        return rate(sum(edits for edits, _ in counted), sum(size for _, size in counted))


class Wer(_ErrorRate):
    """Word error rate."""

    title = "wer"
    text = "Word error rate over all texts together, as jiwer has it."
    unit = "words"


class Cer(_ErrorRate):
    """Character error rate."""

    title = "cer"
    text = "Character error rate over all texts together, as jiwer has it."
    unit = "characters"


class Squad(LocalMetric):
    """Exact match and F1 of SQuAD, from 0 to 100."""

    title = "squad"
    text = "Exact match and word F1 of SQuAD v1, both from 0 to 100 as its evaluation script gives them."
    prediction = {"id": _TEXT, "prediction_text": _TEXT}
    reference = {
        "id": _TEXT,
        "answers": datasets.Sequence({"text": _TEXT, "answer_start": datasets.Value("int32")}),
    }

    def _compute(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        from evalrun.scoring.normalise import squad_tokens
        from evalrun.scoring.scorers.squad import squad_f1

        answers = {each["id"]: each["prediction_text"] for each in predictions}
        exact = f1 = 0.0
        for reference in references:
            answer = answers.get(reference["id"])
            if answer is None:  # not answered: wrong
                continue
            words = squad_tokens(answer)
            targets = [squad_tokens(each) for each in reference["answers"]["text"]]
            exact += any(words == each for each in targets)
            # Unlike version 2, version 1 knows no empty answer: its F1 is 0.
            f1 += max(squad_f1(words, each) if words else 0.0 for each in targets)
        return {"exact_match": 100 * exact / len(references), "f1": 100 * f1 / len(references)}


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
