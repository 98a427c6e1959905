"""Alerts on a change: a run's metric against the sweeps before it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evalrun.analysis.distributions import t_quantile
from evalrun.analysis.measures import Measure, RunSamples, find_measure, is_mean
from evalrun.analysis.paired import paired_difference
from evalrun.analysis.pairing import RunPair, join
from evalrun.floats import COMPARISONS
from evalrun.gates.alerts import MOST, Alert, AlertResult
from evalrun.gates.check import FAIL_ALPHA, in_slice
from evalrun.gates.conditions import find_metric
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store
from evalrun.tracking.trend import earlier_runs

FEWEST = 3
"""Values before that a prediction interval needs."""


def check_change(
    alert: Alert,
    run_id: str,
    metric: Mapping[str, Any],
    folder: SweepFolder,
    store: Store,
    alpha: float = FAIL_ALPHA,
) -> AlertResult:
    """Compare a run's metric with the sweeps before it. Raises UserError where samples cannot be read."""
    value = float(metric["value"])
    direction = metric["direction"]
    if direction == "none":
        return _undecided(alert, run_id, value, f"'{alert.metric}' has no better or worse", checked=False)
    having = _having(alert, earlier_runs(store, folder, run_id, alert.count or MOST))
    if alert.count is not None and len(having) < alert.count:  # further back for those that are incomplete
        having = _having(alert, earlier_runs(store, folder, run_id, MOST))[: alert.count]
    if not having:
        return _undecided(alert, run_id, value, "no sweep before on the same data", checked=False)
    sign = 1.0 if (direction == "higher") == (alert.way == "better") else -1.0
    now = samples_of(folder, run_id)
    if is_mean(alert.metric, [now]):
        if alert.count is None:
            having = [max(having, key=lambda each: sign * each[2])]
        runs = [samples_of(sweep, run["run"]) for sweep, run, _ in having]
        result = compare_with(alert, now, runs, sign, alpha, _named(alert, len(runs)))
    else:
        before_it = [(sweep.ulid, known) for sweep, _, known in having]
        result = _predicted(alert, run_id, metric, before_it, sign, alpha)
    if result.fired and not all(sign * (value - known) > 0 for *_, known in having):
        # Worse than their mean, and not than each of them: one of them began it.
        return replace(result, fired=False)
    return result


def samples_of(folder: SweepFolder, run_id: str) -> RunSamples:
    """The samples of one run of a sweep."""
    return RunSamples(folder, folder.manifest(), folder.run(run_id))


def _having(
    alert: Alert, runs: Sequence[tuple[SweepFolder, dict[str, Any]]]
) -> list[tuple[SweepFolder, dict[str, Any], float]]:
    """The runs that have the metric, without those that lost too many of its rows, and its values."""
    known = [(sweep, run, find_metric(run["metrics"], alert.metric, alert.slice)) for sweep, run in runs]
    return [
        (sweep, run, float(metric["value"]))
        for sweep, run, metric in known
        if metric is not None and metric["value"] is not None and not metric.get("incomplete")
    ]


def compare_with(
    alert: Alert, now: RunSamples, before: Sequence[RunSamples], sign: float, alpha: float, named: str
) -> AlertResult:
    """A test on the differences, sample by sample, from the mean of each sample over the sweeps before, which
    are called `named`."""
    measure = find_measure(alert.metric, [now, *before])
    mean = sample_means(measure, before, now, alert.slice)
    values = np.where(in_slice(now, alert.slice), measure.values(now), np.nan)
    seed = now.sweep.seeds.get("root") or 0
    result = paired_difference(mean, values, now.clusters, seed=seed, alpha=alpha, weights=now.weights)
    run_id, compared = now.run.run, tuple(each.info.sweep for each in before)
    if result.difference is None or result.ci_low is None or result.ci_high is None:
        return _undecided(alert, run_id, result.mean_b, result.note or "too few pairs", checked=False)
    nearest_to_zero = min(sign * result.ci_low, sign * result.ci_high)
    fired = nearest_to_zero > 0 and COMPARISONS[">"](sign * result.difference, alert.margin)
    reason = (
        f"difference {result.difference:+.4g} ({100 * (1 - alpha):.6g} % interval {result.ci_low:+.4g} to "
        f"{result.ci_high:+.4g}) "
        f"from {named} over {result.n:,} samples"
    )
    return AlertResult(
        alert.text, run_id, fired, result.mean_b, reason, True, result.difference, result.ci_low,
        result.ci_high, compared,
    )  # fmt: skip


def sample_means(
    measure: Measure, before: Sequence[RunSamples], now: RunSamples, slice_: Mapping[str, str]
) -> Any:
    """The mean of each sample of a run over several earlier runs, NaN where none has it."""
    known = np.array([_aligned(measure, each, now, slice_) for each in before])
    counts = (~np.isnan(known)).sum(axis=0)
    return np.divide(np.nansum(known, axis=0), counts, out=np.full(known.shape[1], np.nan), where=counts > 0)


def _aligned(measure: Measure, before: RunSamples, now: RunSamples, slice_: Mapping[str, str]) -> Any:
    """The values of an earlier run at the sample ids of this one, NaN where it has none."""
    joined = join(RunPair(before, now, ()))
    values = np.where(in_slice(before, slice_), measure.values(before), np.nan)
    found = np.full(len(now.ids), np.nan)
    found[joined.in_b] = values[joined.in_a]
    return found


def _predicted(
    alert: Alert,
    run_id: str,
    metric: Mapping[str, Any],
    before: Sequence[tuple[str, float]],
    sign: float,
    alpha: float,
) -> AlertResult:
    """Whether the value lies outside of where the values before say that one more would lie (99 %, Student).

    The mean of those must lie outside of the value's own interval too, where it has one: a few values that
    happen to be equal say nothing of chance.
    """
    value = float(metric["value"])
    values = np.array([known for _, known in before])
    if len(values) < FEWEST:
        count = f"{len(values)} sweep{'' if len(values) == 1 else 's'}"
        why = f"{count} before on the same data; this metric needs {FEWEST}"
        return _undecided(alert, run_id, value, why, checked=False)
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    room = t_quantile(1 - alpha / 2, len(values) - 1) * spread * math.sqrt(1 + 1 / len(values))
    reference = float((sign * values).max() * sign) if alert.count is None else mean
    low, high = metric.get("ci_low"), metric.get("ci_high")
    within = low is not None and high is not None and low <= reference <= high
    by = sign * (value - reference)
    fired = COMPARISONS[">"](by, alert.margin) and by > 0 and sign * (value - mean) > room and not within
    reason = (
        f"{value:.4g} against {reference:.4g}, {_named(alert, len(values))}; "
        f"expected {mean - room:.4g} to {mean + room:.4g}"
    )
    compared = tuple(sweep for sweep, _ in before)
    return AlertResult(
        alert.text, run_id, fired, value, reason, True, value - reference, mean - room, mean + room, compared
    )


def _named(alert: Alert, count: int) -> str:
    if alert.count is None:
        return "the best sweep before"
    return f"the mean of the last {count} sweeps" if count > 1 else "the sweep before"


def _undecided(alert: Alert, run_id: str, value: float | None, why: str, *, checked: bool) -> AlertResult:
    return AlertResult(alert.text, run_id, False, value, why, checked=checked)
