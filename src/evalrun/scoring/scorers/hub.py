"""Metrics of the library `evaluate`, fetched from the Hub and run because the suite says so."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from evalrun.scoring.functions import scorer
from evalrun.types import JSON, Score


class EvaluateOptions(ScorerOptions):
    """Which metric, and what of it."""

    metric: str = Field(
        min_length=1,
        description="Name of the metric (accuracy, owner/name), or the path of its script or folder on this "
        "machine: ./my_metric, /metrics/my_metric.py.",
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


_METRICS = (
    MetricInfo(
        "",
        "score",
        "higher",
        "Mean over samples of what a metric of the library evaluate says of the one answer. What it means, "
        "and which way it is better, stands with the metric.",
    ),
    MetricInfo(
        "corpus",
        "score",
        "higher",
        "What the same metric says of all answers together; without an interval.",
    ),
)


@scorer(
    "evaluate",
    summary="Any metric of the library evaluate, by name or from this machine: {evaluate: rouge}. A name is "
    "loaded from the Hugging Face Hub with evaluate.load, which downloads code and runs it; where evalrun "
    "has a scorer of that name, its own needs no network. It is called evaluate_<metric> unless a name is "
    "given.",
    metric=_METRICS,
)
class EvaluateMetric(Scorer[EvaluateOptions]):
    """What a metric of the library `evaluate` says of each answer, and of all together."""

    shorthand = "metric"
    correctness = False
    late = True

    def __init__(self, options: EvaluateOptions) -> None:
        super().__init__(options)
        if options.name is None:
            plain = "".join(each if each.isalnum() else "_" for each in self._called.lower())
            self.name = f"{self.registered}_{plain}"[:60]
        self._lock = threading.Lock()
        self._loaded: Any = None

    @property
    def _called(self) -> str:
        """The last part of the metric's name."""
        return Path(self.options.metric).name.removesuffix(".py")

    def check(self, columns: Sequence[str], where: str) -> list[Problem]:
        """Load it, before anything is sent."""
        metric, place = self.options.metric, f"scorer {self.name}"
        local = metric.startswith((".", "/")) or metric.endswith(".py") or Path(metric).is_absolute()
        if not local and Path(metric).exists():
            what = f"'{metric}' is a folder here, whose code would be run instead of the Hub's metric"
            return [Problem(what, place, f"Write ./{metric} for the folder, or start evalrun elsewhere.")]
        try:
            self._metric()
        except Exception as error:  # what a script from elsewhere raises is not ours to foresee
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            if local:
                what = f"the metric '{metric}' cannot be loaded: {reason}"
                return [Problem(what, place, "It is a script, or a folder with a script of the same name.")]
            what = f"the metric '{metric}' cannot be loaded from the Hub: {reason}"
            remedy = (
                "It needs the network, or an earlier download in the Hub's cache; evalrun's own scorers need "
                "neither ('evalrun docs scorers')."
            )
            return [Problem(what, place, remedy)]
        return []

    def _metric(self) -> Any:
        with self._lock:
            if self._loaded is None:
                import evaluate

                options = self.options
                self._loaded = evaluate.load(
                    options.metric, options.config, revision=options.revision, keep_in_memory=True
                )
            return self._loaded

    def score(self, sample: ScoringInput) -> Score:
        """What the metric says of this answer alone; None where it cannot say."""
        references = [alternative for alternative in alternatives(sample.target) if alternative is not None]
        if not references:
            return Score(None, NO_TARGET)
        try:
            value = self._compute([sample.answer], [references[0] if len(references) == 1 else references])
        except Exception as error:
            return Score(None, f"the metric gave none: {' '.join(str(error).split())[:200]}")
        return Score(value, f"{self.options.metric} {value:g}")

    def _compute(self, predictions: list[JSON], references: list[JSON]) -> float:
        metric = self._metric()
        with self._lock:  # a metric keeps what it was given until it computes
            features = metric.features[0] if isinstance(metric.features, list) else metric.features
            given = {"predictions": predictions, "references": references, "data": predictions}
            result = metric.compute(
                **{name: [_fitting(each, features[name]) for each in given[name]] for name in features},
                **self.options.args,
            )
        return self._pick(result)

    def _pick(self, result: JSON) -> float:
        if self.options.key is not None:
            return _number(result[self.options.key])
        first = result.get(self._called)
        return _number(first if _is_number(first) else next(filter(_is_number, result.values())))

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
        return Corpus(
            np.zeros(len(columns.value), np.int64),
            np.ones((1, 1)),
            lambda sums: np.full((*sums.shape[:-1], 1), np.nan),
            (name,),
            {name: self.metrics_by_name()[name]},
            fixed={name: (value, None)},
        )


@scorer("hub", summary="The former name of `evaluate`; it is called hub_<metric>.", metric=_METRICS)
class HubMetric(EvaluateMetric):
    """The same under its former name."""


def _is_number(value: JSON) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_is_number, value))
    return isinstance(value, int | float) or getattr(value, "shape", None) == ()


def _number(value: JSON) -> float:
    """A value that a metric gives; of a list with a value for each answer, their mean."""
    return sum(map(_number, value)) / len(value) if isinstance(value, list) else float(value)


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
