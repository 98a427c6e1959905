"""Translation edit rate, as sacrebleu computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from evalrun.scoring.base import MetricInfo, ScorerOptions, ScoringInput, alternatives, as_text
from evalrun.scoring.text.counted import AVERAGED, COUNTED
from evalrun.scoring.text.sacrebleu_scorer import SacrebleuScorer
from evalrun.types import Score

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

    from evalrun.scoring.text.translation import Formula


class TerOptions(ScorerOptions):
    """Options of the scorer `ter`."""

    normalized: bool = Field(default=False, description="Split punctuation from words, decode entities.")
    ignore_punctuation: bool = Field(default=False, description="Leave punctuation out.")
    asian_support: bool = Field(
        default=False, description="With the two above: also for Chinese, Japanese and Korean text."
    )
    ignore_case: bool = Field(default=True, description="Compare in lower case.")
    max_words: int = Field(
        default=200,
        ge=1,
        description="Samples whose answer or target is longer are not scored: the search for shifts takes "
        "seconds at 200 words in the worst case, and holds up the run meanwhile.",
    )


class Ter(SacrebleuScorer):
    """Edits, block shifts included, per word of the target."""

    Options: ClassVar[type[TerOptions]] = TerOptions
    registered = "ter"
    summary = (
        "Translation edit rate as sacrebleu computes it: insertions, deletions, substitutions and shifts of "
        "blocks per 100 words of the target; less is better. Of several targets the nearest counts."
    )

    def make_metric(self) -> Metric:
        """sacrebleu's TER."""
        from sacrebleu.metrics.ter import TER

        options: TerOptions = self.options
        return TER(
            normalized=options.normalized,
            no_punct=options.ignore_punctuation,
            asian_support=options.asian_support,
            case_sensitive=not options.ignore_case,
        )

    def count_names(self) -> tuple[str, ...]:
        """Edits, and the mean length of the targets."""
        return ("edits", "target_words")

    def score(self, sample: ScoringInput) -> Score:
        """Edits per 100 words; None where there is no target, or where the texts are too long."""
        longest = max(len(as_text(each).split()) for each in (sample.answer, *alternatives(sample.target)))
        if longest > self.options.max_words:
            limit = self.options.max_words
            return Score(None, f"{longest} words are more than max_words, which is {limit}")
        return super().score(sample)

    def sample_value(self, counts: list[Any]) -> float:
        """TER of one sample."""
        return float(self._metric._compute_score_from_stats(counts).score)

    def formula(self) -> Formula:
        """Corpus TER from summed counts."""
        from evalrun.scoring.text.translation import ter

        return ter

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The mean over samples, then the figure of the whole run."""
        return (
            MetricInfo(
                f"{name}.sample_mean",
                "points",
                "lower",
                "Mean over samples of the TER of each alone: edits per 100 words of the target. The TER of "
                f"the run is {name}.corpus; paired tests go by this one." + AVERAGED,
                (0.0, None),
            ),
            MetricInfo(
                f"{name}.corpus",
                "points",
                "lower",
                "Translation edit rate of all samples together (Snover et al. 2006): 100 times the edits "
                "(insertions, deletions, substitutions, shifts of blocks of words) divided by the words of "
                "the targets, both summed over the samples." + COUNTED,
                (0.0, None),
            ),
        )
