"""Gates and alerts on the last checkpoint of a training against the best of its steps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from evalrun.analysis.correction import ALPHA
from evalrun.canonical import canonical_json
from evalrun.gates.check import FAIL_ALPHA, in_slice
from evalrun.gates.conditions import Gate, GateResult, Verdict, signed
from evalrun.tracking.folder import SweepFolder

if TYPE_CHECKING:
    from evalrun.analysis.measures import RunSamples
    from evalrun.sweep_results import StepPoint


def check_steps(gate: Gate, folder: SweepFolder, run_id: str, alpha: float = FAIL_ALPHA) -> GateResult:
    """Check a run against the step that looks best, sample by sample, with bounds for all pairs of steps.

    It passes where the 95 % bounds leave no room for more than the margin, fails where it is shown at
    1 - alpha to be worse and is worse by more than the margin. Raises UserError where samples cannot be read,
    or the metric is no mean over samples.
    """
    import numpy as np

    from evalrun.analysis.checkpoints import step_curve
    from evalrun.analysis.measures import find_measure

    runs = _line(folder, run_id)
    measure = find_measure(gate.metric, runs)
    inner = measure.values
    if gate.slice:
        measure = replace(measure, values=lambda run: np.where(in_slice(run, gate.slice), inner(run), np.nan))
    curves = [step_curve(runs, measure, margin=gate.bound, alpha=level) for level in (ALPHA, alpha)]
    wide, strict = (next(point for point in curve.points if point.run == run_id) for curve in curves)
    best = next((point for point in curves[0].points if point.step == curves[0].looks_best), None)
    if measure.direction == "none" or wide.value is None or best is None:
        why = wide.note or curves[0].note or f"'{gate.metric}' has no better or worse"
        return GateResult(gate.text, run_id, Verdict.FAIL, wide.value, why)
    return _result(gate, run_id, wide, strict, best, measure.direction == "lower", 1 - alpha)


def _line(folder: SweepFolder, run_id: str) -> list[RunSamples]:
    """The finished runs of the training that a run is of, in step order."""
    from evalrun.analysis.measures import RunSamples

    manifest = folder.manifest()
    runs = [folder.run(each) for each in folder.run_ids()]
    own = next(run for run in runs if run.run == run_id)

    def line(run: object) -> bytes:
        return canonical_json([run.checkpoint.of, run.prompt, run.dataset, dict(run.params)])  # type: ignore[attr-defined]

    same = [run for run in runs if run.checkpoint is not None and line(run) == line(own)]
    same.sort(key=lambda run: run.step or 0)
    return [RunSamples(folder, manifest, run) for run in same]


def _result(
    gate: Gate, run_id: str, wide: StepPoint, strict: StepPoint, best: StepPoint, lower: bool, level: float
) -> GateResult:
    sign = 1.0 if lower else -1.0
    plain = GateResult(
        gate.text, run_id, Verdict.PASS, wide.value, baseline=best.value, n=wide.n, level=level
    )
    if wide.behind is None:
        return replace(plain, reason=f"step {wide.step} looks best itself", difference=0.0)
    ends = sorted(sign * end for end in (wide.behind_low, wide.behind_high) if end is not None)
    verdict = Verdict.FAIL if gate.strict else Verdict.INCONCLUSIVE
    if wide.behind_high is not None and wide.behind_high <= gate.bound:
        verdict = Verdict.PASS
    elif strict.behind_low is not None and strict.behind_low > 0 and wide.behind > gate.bound:
        verdict = Verdict.FAIL
    shown = f" [{signed(ends[0])}, {signed(ends[-1])}, for all pairs of steps]" if ends else ""
    return replace(
        plain,
        verdict=verdict,
        reason=f"step {wide.step} against step {best.step}, which looks best: "
        f"difference {signed(sign * wide.behind)}{shown} over {wide.n:,} samples",
        difference=sign * wide.behind,
        ci_low=ends[0] if ends else None,
        ci_high=ends[-1] if ends else None,
    )
