"""One figure over several datasets, with its standard error: each dataset counts alike, or each sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evalrun.analysis.distributions import normal_quantile, t_quantile
from evalrun.analysis.intervals import LEVEL
from evalrun.canonical import canonical_json
from evalrun.results import Estimate, RunResults
from evalrun.sweep_results import PooledEstimate
from evalrun.types import MetricValue


def pooled_estimates(runs: Sequence[RunResults], metric: str) -> list[PooledEstimate]:
    """For every model, prompt and parameters with several datasets, in the order of the runs."""
    cells: dict[tuple[str, str, bytes], list[RunResults]] = {}
    for run in runs:
        cells.setdefault((run.model, run.prompt, canonical_json(dict(run.params))), []).append(run)
    return [_pooled(cell, metric) for cell in cells.values() if len({run.dataset for run in cell}) > 1]


def _pooled(cell: Sequence[RunResults], name: str) -> PooledEstimate:
    found = [(run.dataset, metric) for run in cell if (metric := run.metric(name)) and _known(metric)]
    missing = [run.dataset for run in cell if run.dataset not in {dataset for dataset, _ in found}]
    metrics = [metric for _, metric in found]
    total = sum(metric.n for metric in metrics)
    macro = weighted(metrics, [1 / len(metrics)] * len(metrics)) if metrics else Estimate(None, 0)
    micro = weighted(metrics, [metric.n / total for metric in metrics]) if total else Estimate(None, 0)
    note = f"without {', '.join(missing)}, which has no value" if missing else ""
    first = cell[0]
    return PooledEstimate(
        metric=name,
        model=first.model,
        prompt=first.prompt,
        params=dict(first.params),
        datasets=tuple(dataset for dataset, _ in found),
        macro=macro,
        micro=micro,
        note=note,
        sentence=_sentence(first, name, len(metrics), macro, micro, note),
    )


def _known(metric: MetricValue) -> bool:
    return metric.value is not None and metric.n > 0


def weighted(metrics: Sequence[MetricValue], weights: Sequence[float]) -> Estimate:
    """Sum of w x with SE^2 = sum of w^2 SE^2 (independent strata, which are the datasets themselves and no
    sample of datasets), t with Satterthwaite's degrees of freedom."""
    value = math.fsum(weight * (metric.value or 0.0) for weight, metric in zip(weights, metrics, strict=True))
    n = sum(metric.n for metric in metrics)
    errors = [_error(metric) for metric in metrics]
    if any(error is None for error in errors):
        return Estimate(value, n, note="a dataset's figure has no standard error, so there is no interval")
    parts = [(weight * (error or 0.0)) ** 2 for weight, error in zip(weights, errors, strict=True)]
    variance = math.fsum(parts)
    if variance == 0:
        return Estimate(value, n, 0.0, note="all values are equal, so there is no interval")
    spread = [
        part**2 / max(1, _units(metric) - 1) for part, metric in zip(parts, metrics, strict=True) if part
    ]
    df = max(1, int(variance**2 / math.fsum(spread)))
    half = t_quantile(0.5 + LEVEL / 2, df) * math.sqrt(variance)
    low, high = value - half, value + half
    if metrics[0].unit == "fraction":
        low, high = max(0.0, low), min(1.0, high)
    return Estimate(value, n, math.sqrt(variance), low, high, "stratified-t")


def _units(metric: MetricValue) -> int:
    """Degrees of freedom and one, by the clusters where there are any."""
    if metric.clusters is None:
        return metric.n
    return metric.clusters.count if metric.clusters.df is None else 1 + max(1, int(metric.clusters.df))


def _error(metric: MetricValue) -> float | None:
    """The standard error; of shares that of Wilson's interval, which is not 0 where all samples are alike."""
    if metric.method == "wilson" and metric.ci_low is not None and metric.ci_high is not None:
        return (metric.ci_high - metric.ci_low) / (2 * normal_quantile(0.5 + LEVEL / 2))
    return metric.se


def _sentence(run: RunResults, name: str, datasets: int, macro: Estimate, micro: Estimate, note: str) -> str:
    if macro.value is None:
        return ""
    who = " · ".join([run.model, run.prompt, *(f"{key}={value}" for key, value in run.params.items())])
    text = (
        f"{who}: {name} {_shown(macro)} over {datasets} datasets that count alike, {_shown(micro)} over "
        f"their {micro.n:,} samples"
    )
    return f"{text} ({note})" if note else text


def _shown(estimate: Estimate) -> str:
    interval = ""
    if estimate.low is not None and estimate.high is not None:
        interval = f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{interval}"
