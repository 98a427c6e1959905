"""Gates against the mean of several sweeps before: one unlucky baseline is no longer everybody's."""

from __future__ import annotations

from evalrun.gates.check import FAIL_ALPHA, in_slice, judge
from evalrun.gates.conditions import Gate, GateResult, Verdict
from evalrun.tracking.folder import SweepFolder


def check_pooled(
    gate: Gate, folder: SweepFolder, run_id: str, alpha: float = FAIL_ALPHA
) -> GateResult | None:
    """Check a run against each sample's mean over the last `gate.pool` complete sweeps of its cell on the
    same data; None where there is none. Raises UserError where samples cannot be read, or the metric is no
    mean over samples."""
    import numpy as np

    from evalrun.analysis.measures import find_measure
    from evalrun.analysis.paired import paired_difference
    from evalrun.analysis.pairing import RunPair, join, same_answers
    from evalrun.gates.changes import sample_means, samples_of
    from evalrun.tracking.store import Store
    from evalrun.tracking.trend import earlier_runs

    found = earlier_runs(Store(folder.path.parent.parent), folder, run_id, gate.pool)
    if not found:
        return None
    now = samples_of(folder, run_id)
    before = [samples_of(sweep, run["run"]) for sweep, run in found]
    measure = find_measure(gate.metric, [now, *before])
    mean = sample_means(measure, before, now, gate.slice)
    values = np.where(in_slice(now, gate.slice), measure.values(now), np.nan)
    result = paired_difference(
        mean, values, now.clusters, seed=now.seed, margin=gate.bound, weights=now.weights
    )
    strict = paired_difference(mean, values, now.clusters, seed=now.seed, alpha=alpha, weights=now.weights)
    sweeps = f"the mean of {len(before)} sweeps before" if len(before) > 1 else "the sweep before"
    notes: tuple[str, ...] = (f"against {sweeps}",)
    pairs = [RunPair(run, now, ()) for run in before]
    if (
        measure.direction != "none"
        and result.difference == 0
        and all(same_answers(pair, join(pair)) for pair in pairs)
    ):
        reason = "; ".join([f"all {result.n:,} answers are the same as before", *notes])
        return GateResult(
            gate.text, run_id, Verdict.PASS, result.mean_b, reason, baseline=result.mean_a,
            difference=0.0, ci_low=result.ci_low, ci_high=result.ci_high, n=result.n, level=1 - alpha,
        )  # fmt: skip
    return judge(gate, run_id, measure, result, strict, notes)
