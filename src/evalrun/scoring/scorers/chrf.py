"""chrF and chrF++, as sacrebleu computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from evalrun.scoring.base import MetricInfo, ScorerOptions
from evalrun.scoring.text.counted import AVERAGED, COUNTED
from evalrun.scoring.text.sacrebleu_scorer import SacrebleuScorer

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

    from evalrun.scoring.text.translation import Formula


class ChrfOptions(ScorerOptions):
    """Options of the scorer `chrf`."""

    char_order: int = Field(default=6, ge=1, le=12, description="Longest character n-grams.")
    word_order: int = Field(
        default=0, ge=0, le=4, description="Longest word n-grams; 2 makes it chrF++, 0 leaves words out."
    )
    beta: int = Field(default=2, ge=1, le=10, description="How much more recall weighs than precision.")
    ignore_case: bool = Field(default=False, description="Compare in lower case.")
    whitespace: bool = Field(default=False, description="Whether spaces are characters.")


class Chrf(SacrebleuScorer):
    """Shared n-grams of characters, 0 to 100."""

    Options: ClassVar[type[ChrfOptions]] = ChrfOptions
    shorthand = "word_order"
    registered = "chrf"
    summary = (
        "chrF as sacrebleu computes it, 0 to 100: F-measure over character n-grams, good for languages with "
        "many word forms; word_order: 2 is chrF++. Of several targets the best counts."
    )

    def make_metric(self) -> Metric:
        """sacrebleu's CHRF."""
        from sacrebleu.metrics.chrf import CHRF

        options: ChrfOptions = self.options
        return CHRF(
            char_order=options.char_order,
            word_order=options.word_order,
            beta=options.beta,
            lowercase=options.ignore_case,
            whitespace=options.whitespace,
        )

    def count_names(self) -> tuple[str, ...]:
        """By order, characters before words: n-grams of the answer, of the target, and common ones."""
        options: ChrfOptions = self.options
        orders = [f"char_{n}" for n in range(1, options.char_order + 1)]
        orders += [f"word_{n}" for n in range(1, options.word_order + 1)]
        return tuple(f"{order}_{what}" for order in orders for what in ("answer", "target", "common"))

    def sample_value(self, counts: list[Any]) -> float:
        """chrF of one sample."""
        return float(self._metric._compute_f_score(counts))  # type: ignore[attr-defined]

    def formula(self) -> Formula:
        """Corpus chrF from summed counts."""
        from evalrun.scoring.text.translation import chrf_formula

        return chrf_formula(self.options.char_order + self.options.word_order, self.options.beta)

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The mean over samples, then the figure of the whole run."""
        return (
            MetricInfo(
                f"{name}.sample_mean",
                "points",
                "higher",
                "Mean over samples of the chrF of each alone, 0 to 100. The chrF of the run is "
                f"{name}.corpus; paired tests go by this one." + AVERAGED,
                (0.0, 100.0),
            ),
            MetricInfo(
                f"{name}.corpus",
                "points",
                "higher",
                "chrF of all samples together (Popović 2015), 0 to 100: 100 (1 + b²) P R / (b² P + R), with "
                "P and R the precision and recall of character n-grams, averaged over n = 1 to 6, from "
                "counts summed over the samples; b = 2 unless the suite says otherwise." + COUNTED,
                (0.0, 100.0),
            ),
        )
