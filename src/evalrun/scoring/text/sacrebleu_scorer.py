"""What BLEU, chrF and TER share: counts from sacrebleu, its signature, one score a sample."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evalrun.scoring.base import NO_TARGET, MetricInfo, ScoreColumns, ScoringInput, alternatives, as_text
from evalrun.scoring.text.counted import CountedScorer
from evalrun.types import Score

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

TARGETS = "targets"
"""The part that holds how many targets a sample has: the signature says it."""


class SacrebleuScorer(CountedScorer):
    """A metric of sacrebleu. Subclasses say which, and name its counts."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._metric = self.make_metric()
        self.parts = (*self.count_names(), TARGETS)

    @abstractmethod
    def make_metric(self) -> Metric:
        """The metric of sacrebleu, which is imported here and only here."""

    @abstractmethod
    def count_names(self) -> tuple[str, ...]:
        """Names of the counts that sacrebleu keeps of a sample, in its order."""

    @abstractmethod
    def sample_value(self, counts: list[Any]) -> float:
        """The score of one sample from its counts."""

    def counts(self) -> tuple[str, ...]:
        """The parts that are counts."""
        return self.parts[:-1]

    def score(self, sample: ScoringInput) -> Score:
        """On sacrebleu's scale of 0 to 100; None where there is no target."""
        targets = [as_text(each) for each in alternatives(sample.target) if each is not None]
        if not targets:
            return Score(None, NO_TARGET)
        answer = as_text(sample.answer)
        # The same call that sacrebleu's own significance tests begin with.
        counts = self._metric._extract_corpus_statistics([answer], [[each] for each in targets])[0]
        value = self.sample_value(list(counts))
        parts = dict(zip(self.parts, (*map(float, counts), float(len(targets))), strict=True))
        many = f"the best of {len(targets)} targets" if len(targets) > 1 else "the target"
        return Score(value, f"{type(self._metric).__name__} {value:.4g} against {many}", parts)

    def signature(self, columns: ScoreColumns) -> str:
        """sacrebleu's signature of the figure: nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0."""
        numbers = set(columns.parts[TARGETS].tolist())
        return self._signature(int(numbers.pop()) if len(numbers) == 1 else -1)

    def _signature(self, targets: int) -> str:
        self._metric.num_refs = targets
        return str(self._metric.get_signature())

    def metrics(self) -> tuple[MetricInfo, ...]:
        """The same as `describe`, with the signature."""
        plain = "|".join(each for each in self._signature(1).split("|") if not each.startswith("nrefs:"))
        return tuple(
            replace(info, definition=f"{info.definition} sacrebleu {plain}.")
            if info.name == f"{self.name}.corpus"
            else info
            for info in self.describe(self.name)
        )
