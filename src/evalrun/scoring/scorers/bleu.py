"""BLEU, as sacrebleu computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from evalrun.scoring.base import MetricInfo, ScorerOptions
from evalrun.scoring.text.counted import AVERAGED, COUNTED
from evalrun.scoring.text.sacrebleu_scorer import SacrebleuScorer

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

    from evalrun.scoring.text.translation import Formula


class BleuOptions(ScorerOptions):
    """Options of the scorer `bleu`."""

    tokenize: Literal["13a", "intl", "char", "zh", "none"] = Field(
        default="13a",
        description="How words are told apart: 13a (the standard), intl (all scripts), zh (Chinese), "
        "char (every character), none (at white space).",
    )
    ignore_case: bool = Field(default=False, description="Compare in lower case.")
    smooth: Literal["exp", "floor", "add-k", "none"] = Field(
        default="exp", description="What stands for a precision of 0."
    )
    smooth_value: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="For floor (default 0.1) and add-k (default 1)."
    )
    max_order: int = Field(default=4, ge=1, le=8, description="Longest n-grams that are counted.")


class Bleu(SacrebleuScorer):
    """Shared n-grams of words, 0 to 100."""

    Options: ClassVar[type[BleuOptions]] = BleuOptions
    shorthand = "tokenize"
    registered = "bleu"
    summary = (
        "BLEU as sacrebleu computes it, 0 to 100: over the whole run from summed n-gram counts, and a score "
        "of each sample. A list of targets holds several references."
    )

    def make_metric(self) -> Metric:
        """sacrebleu's BLEU."""
        from sacrebleu.metrics.bleu import BLEU

        options: BleuOptions = self.options
        return BLEU(
            lowercase=options.ignore_case,
            force=True,  # only silences a warning about answers that end in " ."
            tokenize=options.tokenize,
            smooth_method=options.smooth,
            smooth_value=options.smooth_value,
            max_ngram_order=options.max_order,
        )

    def count_names(self) -> tuple[str, ...]:
        """Words of answer and target, then matches and totals by order."""
        orders = range(1, self.options.max_order + 1)
        matches, totals = (tuple(f"{what}_{n}" for n in orders) for what in ("matches", "ngrams"))
        return ("answer_words", "target_words", *matches, *totals)

    def sample_value(self, counts: list[Any]) -> float:
        """Sentence BLEU with effective order, as sacrebleu recommends for single sentences."""
        from sacrebleu.metrics.bleu import BLEU

        options: BleuOptions = self.options
        order = options.max_order
        found = BLEU.compute_bleu(
            correct=counts[2 : 2 + order],
            total=counts[2 + order :],
            sys_len=counts[0],
            ref_len=counts[1],
            smooth_method=options.smooth,
            smooth_value=options.smooth_value,
            effective_order=True,
            max_ngram_order=order,
        )
        return float(found.score)

    def formula(self) -> Formula:
        """Corpus BLEU from summed counts."""
        from evalrun.scoring.text.translation import bleu_formula

        return bleu_formula(self.options.max_order, self.options.smooth, self.options.smooth_value)

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The mean over samples, then the figure of the whole run."""
        return (
            MetricInfo(
                f"{name}.sample_mean",
                "points",
                "higher",
                "Mean over samples of the BLEU of each alone, 0 to 100, with effective order: orders of "
                "n-grams that an answer is too short for are left out. It is not the BLEU of the run, which "
                f"is {name}.corpus; paired tests go by it." + AVERAGED,
                (0.0, 100.0),
            ),
            MetricInfo(
                f"{name}.corpus",
                "points",
                "higher",
                "BLEU of all samples together (Papineni et al. 2002), 0 to 100: brevity penalty times the "
                "geometric mean of the n-gram precisions, n = 1 to 4, from counts summed over the samples."
                + COUNTED,
                (0.0, 100.0),
            ),
        )
