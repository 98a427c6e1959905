"""`METRIC no worse than baseline by MARGIN`: a test on the differences, sample by sample.

Pass: the 95 % interval of the difference lies wholly within the margin, so that it is shown to be no worse.
Fail: it is shown to be worse (a 99 % interval of the difference leaves zero out), by more than the margin as
measured. Else inconclusive: the samples cannot tell, and how many could is said. The level of failing is the
stricter one because a nightly job asks every night: of twenty unchanged nights at 2.5 % each, two in five
series would turn red once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evalrun.errors import UserError
from evalrun.gates.conditions import Gate, GateResult, Verdict

if TYPE_CHECKING:
    from evalrun.analysis.measures import Measure, RunSamples
    from evalrun.analysis.paired import PairedResult
    from evalrun.analysis.pairing import RunPair

FAIL_ALPHA = 0.01


def check_paired(gate: Gate, pair: RunPair, seed: int = 0) -> GateResult:
    """Hold a paired gate against a run (`pair.b`) and the baseline's (`pair.a`)."""
    from evalrun.analysis.measures import find_measure
    from evalrun.analysis.paired import paired_difference
    from evalrun.analysis.pairing import join

    run_id = pair.b.run.run
    for side in (pair.a, pair.b):
        _ = side.table  # a file that is missing or broken is an error of its own
    try:
        measure = find_measure(gate.metric, [pair.a, pair.b])
    except UserError as error:
        what = (
            f"{error.problems[0].what}; write '{gate.metric} {_by_value(gate, pair)}' to compare the values"
        )
        return GateResult(gate.text, run_id, Verdict.FAIL, None, what)
    joined = join(pair)
    a, b = measure.values(pair.a)[joined.in_a], measure.values(pair.b)[joined.in_b]
    keep = in_slice(pair.b, gate.slice)[joined.in_b] & in_slice(pair.a, gate.slice)[joined.in_a]
    clusters = joined.clusters(pair)
    a, b, clusters = a[keep], b[keep], None if clusters is None else clusters[keep]
    result = paired_difference(a, b, clusters, seed=seed, margin=gate.bound)
    strict = paired_difference(a, b, clusters, seed=seed, alpha=FAIL_ALPHA)
    unlike = (f"the baseline's run is unlike in {', '.join(pair.differs)}",) if pair.differs else ()
    return _judge(gate, run_id, measure, result, strict, (*joined.notes, *unlike))


def _by_value(gate: Gate, pair: RunPair) -> str:
    """The condition on the values that says no worse, as the metric has a better end."""
    direction = next((each.direction for each in pair.b.run.metrics if each.name == gate.metric), "higher")
    return "<= baseline + MARGIN" if direction == "lower" else ">= baseline - MARGIN"


def _judge(
    gate: Gate,
    run_id: str,
    measure: Measure,
    result: PairedResult,
    strict: PairedResult,
    notes: tuple[str, ...],
) -> GateResult:
    facts: dict[str, Any] = {
        "gate": gate.text, "run": run_id, "value": result.mean_b, "baseline": result.mean_a,
        "difference": result.difference, "ci_low": result.ci_low, "ci_high": result.ci_high,
        "n": result.n, "detectable": result.mde,
    }  # fmt: skip
    if result.n == 0 or result.difference is None:
        reason = "; ".join(["no sample of both runs has a value", *notes])
        return GateResult(verdict=Verdict.FAIL, reason=reason, **facts)
    if measure.direction == "none":
        reason = f"'{gate.metric}' has no better or worse: hold its value against bounds instead"
        return GateResult(verdict=Verdict.FAIL, reason=reason, **facts)
    verdict = _verdict(gate.bound, measure, result, strict)
    reason = "; ".join([_sentence(result), *_power(gate, result, verdict), *notes])
    if verdict is Verdict.INCONCLUSIVE and gate.strict:
        verdict = Verdict.FAIL
    return GateResult(verdict=verdict, reason=reason, **facts)


def _verdict(margin: float, measure: Measure, result: PairedResult, strict: PairedResult) -> Verdict:
    from evalrun.analysis.paired import non_inferiority

    if non_inferiority(result, margin, measure.direction):
        return Verdict.PASS
    if result.difference is None or strict.ci_low is None or strict.ci_high is None:
        return Verdict.INCONCLUSIVE
    higher = measure.direction == "higher"
    worse_by = -result.difference if higher else result.difference
    shown = strict.ci_high < 0 if higher else strict.ci_low > 0
    return Verdict.FAIL if shown and worse_by > margin else Verdict.INCONCLUSIVE


def _sentence(result: PairedResult) -> str:
    interval = ""
    if result.ci_low is not None and result.ci_high is not None:
        interval = f" (95 % interval {result.ci_low:+.4g} to {result.ci_high:+.4g})"
    return f"difference {result.difference:+.4g}{interval} over {result.n:,} pairs"


def _power(gate: Gate, result: PairedResult, verdict: Verdict) -> list[str]:
    """What so many pairs can see, and how many would be needed."""
    from evalrun.analysis.paired import samples_needed

    if result.mde is None:
        return ["too few pairs to find any difference"]
    said = [f"n = {result.n:,} sees {result.mde:.3g} at 80 %"]
    if verdict is Verdict.INCONCLUSIVE and gate.bound > 0:
        needed = samples_needed(result, gate.bound)
        if needed is not None and needed > result.n:
            said.append(f"to see {gate.bound:g}, about {needed:,} samples are needed")
    return said


def in_slice(run: RunSamples, slice_: Mapping[str, str]) -> NDArray[np.bool_]:
    """Which sample ids of a run (in the order of its ids) belong to the groups."""
    table = run.table
    inside = np.ones(len(table), np.bool_)
    for column, label in slice_.items():
        groups = table.sensitive.get(column)
        if groups is None or label not in groups.labels:
            return np.zeros(table.distinct, np.bool_)
        inside &= groups.codes == groups.labels.index(label)
    found = np.zeros(table.distinct, np.bool_)
    found[table.ids[inside]] = True
    return found
