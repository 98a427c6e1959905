"""The metrics of published tasks as scorers: lm_eval scored the answers, these say what its values mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalrun.scoring.base import NOT_APPLICABLE, MetricInfo, Scorer, ScorerOptions, ScoringInput
from evalrun.suite.tasks import WRITTEN, TaskDataset, metric_name
from evalrun.types import JSON, Direction, Score

CORPUS = f"{NOT_APPLICABLE}: a figure of all documents together"
"""The reason of a document that has no value of its own for a metric (F1, perplexity, BLEU)."""


class TaskMetric(Scorer[ScorerOptions]):
    """One metric of a task. It never scores: lm_eval did, when a run's answers were all there.

    `entry` has lm_eval's `key` ("exact_match,strict-match"), whether `higher` is better, the name of the
    `aggregation`, and after a run whether every value is a `fraction`.
    """

    correctness = True

    def __init__(self, entry: Mapping[str, JSON]) -> None:
        super().__init__(ScorerOptions())
        self.key = str(entry["key"])
        self.name = metric_name(self.key)
        self.registered = "lm_eval"  # type: ignore[misc]
        self._higher = bool(entry.get("higher", True))
        self._aggregation = str(entry.get("aggregation") or "mean")
        self.is_mean = bool(entry.get("is_mean", True))
        """Whether it is the mean of a number of each document, so that single documents compare by it."""
        self._fraction = bool(entry.get("fraction", self._aggregation == "mean"))

    def score(self, sample: ScoringInput) -> Score:
        """Raises RuntimeError: one document alone tells nothing."""
        raise RuntimeError("lm_eval scores all answers together")

    def metrics(self) -> tuple[MetricInfo, ...]:
        direction: Direction = "higher" if self._higher else "lower"
        metric, _, of = self.key.partition(",")
        answers = f" of the answers that its filter {of} reads" if of not in ("", "none") else ""
        definition = (
            f"{metric}{answers}, scored by lm-evaluation-harness and aggregated by its {self._aggregation}; "
            "value and standard error are its own. The interval is evalrun's, where the metric is a mean "
            "over documents."
        )
        if self.key == f"acc.{WRITTEN}":
            definition = (
                "Share of multiple-choice documents whose answer in words names a right choice's letter. "
                "No number of lm-evaluation-harness, which compares the likelihoods of the choices."
            )
        bounds = (0.0, 1.0) if self._fraction else (None, None)
        return (
            MetricInfo(self.name, "fraction" if self._fraction else "score", direction, definition, bounds),
        )


def task_scorers(dataset: TaskDataset) -> tuple[TaskMetric, ...]:
    """The metrics that a task is expected to have."""
    return tuple(TaskMetric(entry) for entry in dataset.metrics)


def value_of(value: Any) -> tuple[float | None, str]:
    """The score of one document, and its reason: a number as it is, anything else is of no use alone."""
    if isinstance(value, bool | int | float):
        return float(value), ""
    return None, CORPUS
