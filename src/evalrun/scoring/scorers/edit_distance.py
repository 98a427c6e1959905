"""How many edits lie between answer and target, as a share of the longer text."""

from __future__ import annotations

from typing import ClassVar

from evalrun.scoring.base import (
    NO_TARGET,
    MetricInfo,
    Scorer,
    ScoringInput,
    alternatives,
    as_text,
    fraction,
)
from evalrun.scoring.normalise import Normaliser
from evalrun.scoring.scorers.exact_match import ExactMatchOptions
from evalrun.types import Score


class EditDistanceOptions(ExactMatchOptions):
    """Options of the scorer `edit_distance`."""


class EditDistance(Scorer):
    """Levenshtein distance of characters, divided by the length of the longer text."""

    Options: ClassVar[type[EditDistanceOptions]] = EditDistanceOptions
    registered = "edit_distance"
    needs_target = True
    unanswered_as_empty = True
    summary = (
        "Normalised edit distance, 0 (equal) to 1 (nothing in common): characters inserted, deleted and "
        "substituted, divided by the length of the longer text. Of several targets the nearest counts."
    )

    def __init__(self, options: EditDistanceOptions) -> None:
        from rapidfuzz.distance import Levenshtein

        super().__init__(options)
        self._distance = Levenshtein.distance
        chosen = (options.ignore_case, options.ignore_punctuation, options.ignore_whitespace)
        self._normalise = Normaliser(*chosen) if any(chosen) else str.strip

    def score(self, sample: ScoringInput) -> Score:
        """Between 0 and 1; None where there is no target."""
        targets = [self._normalise(as_text(each)) for each in alternatives(sample.target) if each is not None]
        if not targets:
            return Score(None, NO_TARGET)
        answer = self._normalise(as_text(sample.answer))
        found = [(self._distance(answer, each), max(len(answer), len(each))) for each in targets]
        edits, longer = min(found, key=lambda pair: pair[0] / (pair[1] or 1))
        return Score(edits / (longer or 1), f"{edits} edits between texts of up to {longer} characters")

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The mean distance."""
        text = (
            "Mean over samples of the normalised edit distance: the least number of characters inserted, "
            "deleted and substituted to make the answer the target (Levenshtein 1966), divided by the length "
            "of the longer of the two; 0 where both are empty. Of several targets the nearest counts. "
            "Unparsed and refused answers count as empty answers; failed samples are left out."
        )
        return (fraction(name, text, "lower"),)
