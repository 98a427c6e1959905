"""Metrics of texts for the library `evaluate`: BLEU, chrF, TER, ROUGE, error rates, SQuAD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import datasets

from evalrun.scoring.evaluate_base import TEXT, TEXTS, LocalMetric


class _Sacrebleu(LocalMetric):
    """A metric of sacrebleu. References are one text each, or a list of texts each."""

    reference = TEXTS
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
    reference = TEXTS
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
    prediction = {"id": TEXT, "prediction_text": TEXT}
    reference = {
        "id": TEXT,
        "answers": datasets.Sequence({"text": TEXT, "answer_start": datasets.Value("int32")}),
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
