"""ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from evalrun.errors import UserError
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
from evalrun.scoring.text.rouge import KINDS, Stem, porter_stemmer, rouge
from evalrun.types import Score

_WHAT = {
    "rouge_1": "single words",
    "rouge_2": "pairs of neighbouring words",
    "rouge_l": "the words of the longest common subsequence",
    "rouge_lsum": "the words of the longest common subsequences of their lines, joined line by line",
}


class RougeOptions(ScorerOptions):
    """Options of the scorer `rouge`."""

    stemmer: bool = Field(
        default=False,
        description="Compare word stems (Porter, English). Needs the extra `text`; loading it takes seconds.",
    )


class Rouge(Scorer):
    """F-measures of the words that answer and target share."""

    Options: ClassVar[type[RougeOptions]] = RougeOptions
    registered = "rouge"
    needs_target = True
    parts = KINDS
    summary = (
        "ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum as rouge-score computes them: F-measures, averaged over "
        "samples. Only a to z and 0 to 9 make words, so other scripts score 0: use chrf for those."
    )

    def __init__(self, options: RougeOptions) -> None:
        super().__init__(options)
        self._stem: Stem | None = None
        if options.stemmer:
            try:
                self._stem = porter_stemmer()
            except ImportError:
                raise UserError(
                    "the stemmer of 'rouge' needs the package nltk",
                    where="scorers",
                    remedy='Install it: pip install "evalrun[text]". Or leave stemmer out.',
                ) from None

    def score(self, sample: ScoringInput) -> Score:
        """ROUGE-L, with all four as parts; of several targets the best counts for each. None without one."""
        targets = [as_text(each) for each in alternatives(sample.target) if each is not None]
        if not targets:
            return Score(None, NO_TARGET)
        answer = as_text(sample.answer)
        each = [rouge(target, answer, self._stem) for target in targets]
        parts = {kind: max(found[kind] for found in each) for kind in KINDS}
        reason = ", ".join(f"{kind} {value:.4g}" for kind, value in parts.items())
        return Score(parts["rouge_l"], reason, dict(parts))

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """ROUGE-L first, then the others."""
        return tuple(
            fraction(
                f"{name}.{kind}",
                f"Mean over samples of the {kind.upper().replace('_', '-').replace('LSUM', 'Lsum')} "
                f"F-measure (Lin 2004), 2PR / (P + R), over {_WHAT[kind]} in answer and target. Words are "
                "runs of a to z and 0 to 9 in lower case. Of several targets the best counts. A plain mean, "
                "never the resampled median of rouge-score's aggregator. Unparsed and refused answers count "
                "as 0; failed samples are left out.",
            )
            for kind in ("rouge_l", "rouge_1", "rouge_2", "rouge_lsum")
        )
