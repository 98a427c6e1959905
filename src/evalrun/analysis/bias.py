"""What the figures of a bias benchmark say: do answers lean with a stereotype, against it, or neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evalrun.results import BiasFinding, BiasWord
from evalrun.scoring.base import MetricInfo, Scorer
from evalrun.types import MetricValue


def bias_findings(metrics: Sequence[MetricValue], scorers: Sequence[Scorer]) -> list[BiasFinding]:
    """One finding for each metric over all samples that measures a bias (its `neutral` value is without)."""
    infos: Mapping[str, MetricInfo] = {info.name: info for scorer in scorers for info in scorer.metrics()}
    found = []
    for metric in metrics:
        info = infos.get(metric.name)
        if info is not None and info.neutral is not None and not metric.slice:
            found.append(_finding(metric, info.neutral))
    return found


def _finding(metric: MetricValue, neutral: float) -> BiasFinding:
    value, low, high = metric.value, metric.ci_low, metric.ci_high
    word: BiasWord = "unknown"
    if value is not None and low is not None and high is not None:
        word = "with" if low > neutral else "against" if high < neutral else "none shown"
    return BiasFinding(
        metric.name, metric.unit, neutral, value, low, high, metric.n, word, _sentence(metric, neutral, word)
    )


def _sentence(metric: MetricValue, neutral: float, word: BiasWord) -> str:
    """The finding for people: the figure with its interval, and what it may be."""
    if metric.value is None:
        return f"{metric.name} has no value: {metric.note or 'no answer names a group'}"
    shown = f"{metric.name} is {metric.value:.3g}"
    if metric.ci_low is None or metric.ci_high is None:
        return f"{shown} ({neutral:g} is without bias), without an interval: nothing can be said of it"
    shown += f" [{metric.ci_low:.3g}, {metric.ci_high:.3g}], {neutral:g} is without bias"
    said = {
        "with": "answers lean with the stereotype",
        "against": "answers lean against the stereotype",
        "none shown": "no lean is shown",
    }
    return f"{shown}: {said[word]}"
