"""How many words the answer shares with the target."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

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
from evalrun.scoring.normalise import squad_tokens
from evalrun.types import Score


class TokenF1Options(ScorerOptions):
    """Options of the scorer `token_f1`."""


class TokenF1(Scorer):
    """F1 over the words of answer and target."""

    Options: ClassVar[type[TokenF1Options]] = TokenF1Options
    registered = "token_f1"
    needs_target = True
    summary = (
        "F1 over the words that answer and target share, after SQuAD's normalisation (lower case, no ASCII "
        "punctuation, no articles); of several targets the best counts."
    )

    def score(self, sample: ScoringInput) -> Score:
        """Between 0 and 1. Where either has no words, 1 if both have none, else 0, as SQuAD 2.0 has it."""
        if sample.target is None:
            return Score(None, NO_TARGET)
        answer = squad_tokens(as_text(sample.answer))
        best, best_common, best_words = -1.0, 0, 0
        for target in alternatives(sample.target):
            words = squad_tokens(as_text(target))
            common = sum((Counter(answer) & Counter(words)).values())
            value = _f1(common, len(answer), len(words))
            if value > best:
                best, best_common, best_words = value, common, len(words)
        if best < 0:
            return Score(None, "the list of targets is empty")
        if not answer or not best_words:
            what = "answer and target have no words" if best == 1.0 else "answer or target has no words"
            return Score(best, what)
        return Score(
            best,
            f"{best_common} of the answer's {len(answer)} words are among the {best_words} of the target; "
            f"answer {shown(sample.answer)}",
        )

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The mean F1 over words."""
        text = (
            "Mean over samples of the F1 between the words of the answer and of the target, each word "
            "counted as often as it stands: 2PR / (P + R), with P the share of the answer's words that are "
            "in the target and R the share of the target's words that are in the answer. Words are lower "
            "case without ASCII punctuation and articles (SQuAD). Of several targets the best counts. "
            "Unparsed and refused answers count as 0; failed samples are left out."
        )
        return (fraction(name, text),)


def _f1(common: int, answer: int, target: int) -> float:
    if not answer or not target:
        return float(answer == target)
    if not common:
        return 0.0
    precision, recall = common / answer, common / target
    return 2 * precision * recall / (precision + recall)
