"""A metric from the Hugging Face Hub, fetched and run because the suite says so."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from evalrun.errors import Problem
from evalrun.scoring.base import (
    NO_TARGET,
    Corpus,
    MetricInfo,
    ScoreColumns,
    Scorer,
    ScorerOptions,
    ScoringInput,
    alternatives,
    as_text,
)
from evalrun.types import JSON, Score


class HubOptions(ScorerOptions):
    """Options of the scorer `hub`."""

    metric: str = Field(
        min_length=1,
        description="Name of the metric on the Hub (accuracy, owner/name), or the path of a script (.py).",
    )
    revision: str | None = Field(
        default=None, description="Commit, tag or branch of the metric. Name a commit: its code is run."
    )
    config: str | None = Field(default=None, description="Configuration of the metric, where it has several.")
    key: str | None = Field(
        default=None,
        description="Which of the values that it gives is the score. Default: the one called like the "
        "metric, else the first number.",
    )
    args: dict[str, JSON] = Field(default_factory=dict, description="Further arguments of its `compute`.")


class HubMetric(Scorer):
    """What an `evaluate` metric of the Hub says of each answer, and of all together."""

    Options: ClassVar[type[HubOptions]] = HubOptions
    shorthand = "metric"
    registered = "hub"
    correctness = False
    late = True
    summary = (
        "A metric of the Hugging Face Hub, loaded with evaluate.load: it downloads code and runs it. Of the "
        "metrics that evalrun has itself, its own need no network."
    )

    def __init__(self, options: HubOptions) -> None:
        super().__init__(options)
        if options.name is None:
            words = Path(options.metric).stem if options.metric.endswith(".py") else options.metric
            plain = "".join(each if each.isalnum() else "_" for each in words.rpartition("/")[2].lower())
            self.name = f"hub_{plain}"[:60]
        self._lock = threading.Lock()
        self._loaded: Any = None

    def check(self, columns: Sequence[str], where: str) -> list[Problem]:
        """Load it, before anything is sent."""
        options: HubOptions = self.options
        if not options.metric.endswith(".py") and Path(options.metric).exists():
            what = f"'{options.metric}' is a folder here, whose code would be run instead of the Hub's metric"
            return [Problem(what, f"scorer {self.name}", "Start evalrun in another folder.")]
        try:
            self._metric()
        except Exception as error:  # what a script from elsewhere raises is not ours to foresee
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            return [
                Problem(
                    f"the metric '{options.metric}' cannot be loaded from the Hub: {reason}",
                    f"scorer {self.name}",
                    "It needs the network, or an earlier download in the Hub's cache; evalrun's own scorers "
                    "need neither ('evalrun docs scorers').",
                )
            ]
        return []

    def _metric(self) -> Any:
        with self._lock:
            if self._loaded is None:
                import evaluate

                options: HubOptions = self.options
                self._loaded = evaluate.load(
                    options.metric, options.config, revision=options.revision, keep_in_memory=True
                )
            return self._loaded

    def score(self, sample: ScoringInput) -> Score:
        """What the metric says of this answer alone; None where it cannot say."""
        return self._scored(sample.answer, sample.target)

    def _scored(self, answer: JSON, target: JSON) -> Score:
        references = [each for each in alternatives(target) if each is not None]
        if not references:
            return Score(None, NO_TARGET)
        try:
            value = self._compute([answer], [references[0] if len(references) == 1 else references])
        except Exception as error:
            return Score(None, f"the metric gave none: {' '.join(str(error).split())[:200]}")
        return Score(value, f"{self.options.metric} {value:g}")

    def _compute(self, predictions: list[JSON], references: list[JSON]) -> float:
        metric = self._metric()
        with self._lock:  # a metric keeps what it was given until it computes
            features = metric.features[0] if isinstance(metric.features, list) else metric.features
            found = metric.compute(
                predictions=[_fitting(each, features["predictions"]) for each in predictions],
                references=[_fitting(each, features["references"]) for each in references],
                **self.options.args,
            )
        return self._pick(found)

    def _pick(self, found: JSON) -> float:
        options: HubOptions = self.options
        if options.key is not None:
            return float(found[options.key])
        name = Path(options.metric).stem.rpartition("/")[2]
        if isinstance(found.get(name), int | float):
            return float(found[name])
        return float(next(value for value in found.values() if isinstance(value, int | float)))

    def aggregate(self, columns: ScoreColumns) -> Corpus | None:
        """The metric over all answers at once."""
        import numpy as np

        answers, targets = columns.texts()
        known = (answers.codes >= 0) & (targets.codes >= 0)
        if not known.any():
            return None
        try:
            value = self._compute(
                [answers.labels[code] for code in answers.codes[known].tolist()],
                [targets.labels[code] for code in targets.codes[known].tolist()],
            )
        except Exception:  # lists of references are kept as text: then there are only the samples' scores
            return None
        name = f"{self.name}.corpus"
        info = next(each for each in self.metrics() if each.name == name)
        return Corpus(
            np.zeros(len(columns.value), np.int64),
            np.ones((1, 1)),
            lambda sums: np.full((*sums.shape[:-1], 1), np.nan),
            (name,),
            {name: info},
            fixed={name: (value, None)},
        )

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The mean over samples first."""
        return (
            MetricInfo(
                name,
                "score",
                "higher",
                "Mean over samples of what a metric of the Hugging Face Hub says of the one answer. What it "
                "means, and which way it is better, stands with the metric.",
            ),
            MetricInfo(
                f"{name}.corpus",
                "score",
                "higher",
                "What the same metric says of all answers together; without an interval.",
            ),
        )


def _fitting(value: JSON, feature: Any) -> JSON:
    """A value as the metric takes it: text, a number, or a list of them."""
    inner = getattr(feature, "feature", None)
    if inner is not None:
        return [_fitting(each, inner) for each in (value if isinstance(value, list) else [value])]
    kind = str(getattr(feature, "dtype", "string"))
    if isinstance(value, list) and value:
        value = value[0]
    if kind.startswith(("int", "uint")):
        return int(value)
    if kind.startswith("float"):
        return float(value)
    return as_text(value)
