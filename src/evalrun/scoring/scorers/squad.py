"""Exact match and F1 of the SQuAD task."""

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

_STAY = " Unparsed and refused answers count as 0; failed samples are left out."


class SquadOptions(ScorerOptions):
    """Options of the scorer `squad`."""


class Squad(Scorer):
    """The two figures of SQuAD's evaluation script."""

    Options: ClassVar[type[SquadOptions]] = SquadOptions
    registered = "squad"
    needs_target = True
    parts = ("exact_match", "f1")
    summary = (
        "Exact match and word F1 of SQuAD (lower case, no ASCII punctuation, no articles); of several "
        "targets the best counts. A question without an answer has an empty list of targets, and wants an "
        "empty answer."
    )

    def score(self, sample: ScoringInput) -> Score:
        """F1, with both as parts. An empty list of targets means that there is no answer to give."""
        if sample.target is None:
            return Score(None, NO_TARGET)
        answer = squad_tokens(as_text(sample.answer))
        targets = [squad_tokens(as_text(each)) for each in alternatives(sample.target)] or [[]]
        exact = float(any(answer == words for words in targets))
        f1 = max(squad_f1(answer, words) for words in targets)
        reason = f"answer {shown(sample.answer)}: exact match {exact:g}, F1 {f1:.4g}"
        return Score(f1, reason, {"exact_match": exact, "f1": f1})

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """F1 first."""
        return (
            fraction(
                f"{name}.f1",
                "Mean over samples of the F1 between the words of answer and target, as SQuAD's evaluation "
                "script has it (Rajpurkar et al. 2016): 2PR / (P + R) over words counted as often as they "
                "stand, in lower case without ASCII punctuation and articles; of several targets the best. "
                "Where either has no words it is 1 if both have none, else 0." + _STAY,
            ),
            fraction(
                f"{name}.exact_match",
                "Share of samples whose answer has exactly the words of a target, in order, after SQuAD's "
                "normalisation (lower case, no ASCII punctuation, no articles)." + _STAY,
            ),
        )


def squad_f1(answer: list[str], target: list[str]) -> float:
    """F1 over words; where either has none, 1 if both have none, else 0 (SQuAD 2.0)."""
    if not answer or not target:
        return float(answer == target)
    common = sum((Counter(answer) & Counter(target)).values())
    if not common:
        return 0.0
    precision, recall = common / len(answer), common / len(target)
    return 2 * precision * recall / (precision + recall)
