"""METEOR: words matched by form, by stem and by WordNet's synonyms, with a penalty for scattered matches."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

from pydantic import Field

from evalrun.errors import Problem
from evalrun.scoring.base import (
    NO_TARGET,
    MetricInfo,
    Scorer,
    ScorerOptions,
    ScoringInput,
    alternatives,
    as_text,
    fraction,
)
from evalrun.types import Score

DATA = {"wordnet": "corpora/wordnet", "punkt_tab": "tokenizers/punkt_tab"}
"""Packages of NLTK's data that are needed, and where they lie."""


class MeteorOptions(ScorerOptions):
    """Options of the scorer `meteor`."""

    alpha: float = Field(default=0.9, gt=0, lt=1, description="Weight of precision against recall.")
    beta: float = Field(default=3.0, ge=0, description="Shape of the penalty for scattered matches.")
    gamma: float = Field(default=0.5, ge=0, le=1, description="Weight of that penalty.")


class Meteor(Scorer):
    """METEOR of the answer against the best of its targets."""

    Options: ClassVar[type[MeteorOptions]] = MeteorOptions
    registered = "meteor"
    needs_target = True
    late = True
    summary = "METEOR (NLTK's). Needs NLTK and its data wordnet and punkt_tab on this machine."

    def check(self, columns: Sequence[str], where: str) -> list[Problem]:
        """NLTK and its data must be here: nothing is downloaded."""
        missing = missing_data()
        if not missing:
            return []
        return [
            Problem(
                f"METEOR needs {', '.join(missing)}, which this machine has not",
                f"scorer {self.name}",
                "pip install 'evalrun[text]', then python -m nltk.downloader wordnet punkt_tab. "
                "Without a network, chrf and rouge need no data.",
            )
        ]

    def score(self, sample: ScoringInput) -> Score:
        """The greatest METEOR of the answer with any of its targets; None without a target."""
        from nltk.translate.meteor_score import single_meteor_score

        targets = [as_text(each) for each in alternatives(sample.target) if each is not None]
        if not targets:
            return Score(None, NO_TARGET)
        options: MeteorOptions = self.options
        answer = _words(as_text(sample.answer))
        wordnet = _wordnet()
        with _LOCK:  # the corpus reader seeks in files that all threads share
            value = max(
                single_meteor_score(
                    _words(target),
                    answer,
                    alpha=options.alpha,
                    beta=options.beta,
                    gamma=options.gamma,
                    wordnet=wordnet,
                )
                for target in targets
            )
        return Score(float(value), f"METEOR {value:.3f}")

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The mean over samples."""
        return (
            fraction(
                name,
                "METEOR (Banerjee and Lavie 2005) as NLTK computes it, with the best of several targets: the "
                "harmonic mean of unigram precision and recall, weighted by alpha, of words matched by form, "
                "by stem and by WordNet synonyms, times 1 - gamma (chunks / matches)^beta. Mean over "
                "samples.",
            ),
        )


_LOCK = threading.Lock()


def missing_data() -> list[str]:
    """What METEOR needs and this machine has not, in words."""
    try:
        import nltk
    except ImportError:
        return ["NLTK"]
    found = []
    for package, place in DATA.items():
        for form in (place, f"{place}.zip"):
            try:
                nltk.data.find(form)
                break
            except (LookupError, OSError):
                continue
        else:
            found.append(f"NLTK's data '{package}'")
    return found


@lru_cache(maxsize=20_000)
def _words(text: str) -> tuple[str, ...]:
    from nltk import word_tokenize

    return tuple(word_tokenize(text))


def _wordnet() -> Any:
    from nltk.corpus import wordnet

    return wordnet
