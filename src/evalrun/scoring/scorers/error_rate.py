"""Word error rate and character error rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from evalrun.scoring.base import NO_TARGET, MetricInfo, ScorerOptions, ScoringInput, alternatives, as_text
from evalrun.scoring.normalise import Normaliser
from evalrun.scoring.text.counted import AVERAGED, COUNTED, CountedScorer
from evalrun.scoring.text.error_rates import Unit, edit_counter, rate
from evalrun.types import Score

if TYPE_CHECKING:
    from evalrun.scoring.text.translation import Formula


class ErrorRateOptions(ScorerOptions):
    """Options of the scorers `wer` and `cer`."""

    ignore_case: bool = Field(default=False, description="Compare in one case (Unicode case folding).")
    ignore_punctuation: bool = Field(
        default=False, description="Leave out punctuation marks and symbols (Unicode categories P and S)."
    )
    ignore_whitespace: bool = Field(
        default=False,
        description="Make every run of white space one space first. Without it words are told apart at "
        "spaces only, as in jiwer: a single line break joins two words.",
    )


class ErrorRate(CountedScorer):
    """Edits per unit of the target."""

    Options: ClassVar[type[ErrorRateOptions]] = ErrorRateOptions
    unit: ClassVar[Unit]
    long_name: ClassVar[str]

    def __init__(self, options: ErrorRateOptions) -> None:
        super().__init__(options)
        self.parts = ("edits", f"target_{self.unit}")
        self._count = edit_counter(self.unit)
        chosen = (options.ignore_case, options.ignore_punctuation, options.ignore_whitespace)
        self._normalise = Normaliser(*chosen) if any(chosen) else None

    def score(self, sample: ScoringInput) -> Score:
        """Edits per unit of the nearest target; None where there is no target."""
        targets = [self._text(each) for each in alternatives(sample.target) if each is not None]
        if not targets:
            return Score(None, NO_TARGET)
        answer = self._text(sample.answer)
        counted = [self._count(each, answer) for each in targets]
        edits, size = min(counted, key=lambda pair: rate(*pair))
        parts = dict(zip(self.parts, (float(edits), float(size)), strict=True))
        return Score(rate(edits, size), f"{edits} edits on the target's {size} {self.unit}", parts)

    def _text(self, value: object) -> str:
        text = as_text(value)
        return text if self._normalise is None else self._normalise(text)

    def formula(self) -> Formula:
        """Edits divided by units, both summed."""
        from evalrun.scoring.text.translation import error_rate

        return error_rate

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The mean over samples, then the figure of the whole run."""
        what = (
            f"the least number of {cls.unit} substituted, deleted and inserted to make the answer the target"
        )
        return (
            MetricInfo(
                f"{name}.sample_mean",
                "fraction",
                "lower",
                f"Mean over samples of the {cls.long_name} error rate of each alone: {what}, divided by the "
                f"{cls.unit} of the target. It may exceed 1. Of several targets the nearest counts. The rate "
                f"of the run is {name}.corpus; paired tests go by this one." + AVERAGED,
                (0.0, None),
            ),
            MetricInfo(
                f"{name}.corpus",
                "fraction",
                "lower",
                f"{cls.long_name.capitalize()} error rate of all samples together: {what}, divided by the "
                f"{cls.unit} of the targets, both summed over the samples, as jiwer has it." + COUNTED,
                (0.0, None),
            ),
        )


class WordErrorRate(ErrorRate):
    """Edits of words per word of the target."""

    registered = "wer"
    unit = "words"
    long_name = "word"
    summary = (
        "Word error rate as jiwer computes it: edits of words per word of the target; less is better, and "
        "more than 1 is possible."
    )


class CharacterErrorRate(ErrorRate):
    """Edits of characters per character of the target."""

    registered = "cer"
    unit = "characters"
    long_name = "character"
    summary = (
        "Character error rate as jiwer computes it: edits of characters, spaces included, per character of "
        "the target; less is better."
    )
