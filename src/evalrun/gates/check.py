"""All gates of a sweep against all its runs, and what their verdicts come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalrun.canonical import canonical_json
from evalrun.errors import UserError
from evalrun.floats import COMPARISONS
from evalrun.gates.conditions import (
    FIRST,
    NO_BASELINE,
    Gate,
    GateResult,
    Verdict,
    check_gate,
    level_words,
    signed,
    value_of,
)
from evalrun.served import KINDS, as_served, served_change
from evalrun.tracking.changes import said
from evalrun.tracking.people import with_own_figures

if TYPE_CHECKING:
    from evalrun.analysis.measures import Measure, RunSamples
    from evalrun.analysis.pairing import RunPair
    from evalrun.sweep_results import Concentration, PairedResult
    from evalrun.tracking.folder import SweepFolder


FAIL_ALPHA = 0.01

NOTHING_BEFORE = "there is no complete sweep before on the same data to compare with"

MOST_LOCATED = 20
"""For so many failed gates it is looked where they broke; a matrix that fails as a whole needs no more."""


def fail_alpha(manifest: Mapping[str, Any], checks: int) -> float:
    """The two-sided level at which each of so many paired checks fails.

    1 % by default. With `nightly` in the suite, the chance of a false failure in a year is spent evenly over
    its checks and nights (Bonferroni): a check that goes wrong on one side has half of its level, and nights
    that share a baseline need not be independent.
    """
    resolved = (manifest.get("suite") or {}).get("resolved") or {}
    nightly = resolved.get("nightly")
    if not isinstance(nightly, Mapping):
        return FAIL_ALPHA
    budget, nights = float(nightly.get("false_alarms_a_year", 0.05)), int(nightly.get("nights", 365))
    return min(FAIL_ALPHA, 2 * budget / (nights * max(1, checks)))


def check_paired(gate: Gate, pair: RunPair, seed: int = 0, alpha: float = FAIL_ALPHA) -> GateResult:
    """Check a paired gate on a run (`pair.b`) and the baseline's (`pair.a`); it fails at `alpha`."""
    from evalrun.analysis.measures import find_measure
    from evalrun.analysis.paired import paired_difference
    from evalrun.analysis.pairing import join, same_answers

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
    clusters, weights = joined.clusters(pair), joined.weights(pair)
    a, b, clusters = a[keep], b[keep], None if clusters is None else clusters[keep]
    weights = None if weights is None else weights[keep]
    result = paired_difference(a, b, clusters, seed=seed, margin=gate.bound, weights=weights)
    strict = paired_difference(a, b, clusters, seed=seed, alpha=alpha, weights=weights)
    unlike = (f"the baseline's run is unlike in {', '.join(pair.differs)}",) if pair.differs else ()
    notes = (*joined.notes, *unlike)
    said = _incomplete(gate, pair)
    if (
        not said
        and measure.direction != "none"
        and result.difference == 0
        and np.array_equal(a, b, equal_nan=True)
        and same_answers(pair, joined)
    ):
        return _unchanged(gate, run_id, result, strict, notes)
    if not said:
        return judge(gate, run_id, measure, result, strict, notes)
    held = judge(replace(gate, strict=False), run_id, measure, result, strict, (*said, *notes))
    if result.n == 0 or measure.direction == "none":
        return replace(held, incomplete=True)
    verdicts = []
    for ends in _extremes(gate.metric, pair, measure.direction):
        if ends is None:
            verdicts.append(Verdict.INCONCLUSIVE)
            continue
        before, now = ends[0][joined.in_a][keep], ends[1][joined.in_b][keep]
        wide = paired_difference(before, now, clusters, seed=seed, margin=gate.bound, weights=weights)
        narrow = paired_difference(before, now, clusters, seed=seed, alpha=alpha, weights=weights)
        verdicts.append(_verdict(gate.bound, measure, wide, narrow))
    return replace(held, verdict=_of_extremes(*verdicts, strict=gate.strict), incomplete=True)


def _unchanged(
    gate: Gate, run_id: str, result: PairedResult, strict: PairedResult, notes: tuple[str, ...]
) -> GateResult:
    """The very same answers with the same scores: whatever the margin, nothing got worse."""
    return GateResult(
        gate.text, run_id, Verdict.PASS, result.mean_b,
        "; ".join([f"all answers are the same as the baseline's over {result.n:,} pairs", *notes]),
        baseline=result.mean_a, difference=0.0, ci_low=result.ci_low, ci_high=result.ci_high, n=result.n,
        detectable=_detectable(gate, strict), level=1 - strict.alpha,
    )  # fmt: skip


def _incomplete(gate: Gate, pair: RunPair) -> tuple[str, ...]:
    """What is said of the figures of either run that lost too many rows; nothing where neither did."""
    said = []
    for whose, run in (("", pair.b.run), ("the baseline: ", pair.a.run)):
        found = [
            metric
            for metric in run.metrics
            if metric.name == gate.metric and dict(metric.slice) == dict(gate.slice) and metric.incomplete
        ]
        said += [whose + metric.note.partition("; ")[0] for metric in found]
    return tuple(said)


def _extremes(metric: str, pair: RunPair, direction: str) -> list[tuple[Any, Any] | None]:
    """Baseline and run by sample id with the lost scores in the worst, and in the best way for the run."""
    from evalrun.analysis.lost import filled_ends

    before, now = filled_ends(pair.a, metric), filled_ends(pair.b, metric)
    cases = [(before[1], now[0]), (before[0], now[1])]
    if direction == "lower":
        cases.reverse()
    return [None if a is None or b is None else (a, b) for a, b in cases]


def _of_extremes(worst: Verdict, best: Verdict, *, strict: bool) -> Verdict:
    """Pass where the worst case passes, fail where the best case fails, else what samples cannot decide."""
    if worst is Verdict.PASS or best is Verdict.FAIL:
        return Verdict.PASS if worst is Verdict.PASS else Verdict.FAIL
    return Verdict.FAIL if strict else Verdict.INCONCLUSIVE


def _by_value(gate: Gate, pair: RunPair) -> str:
    """The condition on the values that says no worse, as the metric has a better end."""
    direction = next(
        (metric.direction for metric in pair.b.run.metrics if metric.name == gate.metric), "higher"
    )
    return "<= baseline + MARGIN" if direction == "lower" else ">= baseline - MARGIN"


def judge(
    gate: Gate,
    run_id: str,
    measure: Measure,
    result: PairedResult,
    strict: PairedResult,
    notes: tuple[str, ...],
) -> GateResult:
    """The verdict of a paired gate, from the result at 5 % and the strict one at which it fails."""
    facts: dict[str, Any] = {
        "gate": gate.text, "run": run_id, "value": result.mean_b, "baseline": result.mean_a,
        "difference": result.difference, "ci_low": result.ci_low, "ci_high": result.ci_high,
        "n": result.n, "detectable": _detectable(gate, strict),
        "level": 1 - strict.alpha,
    }  # fmt: skip
    if result.n == 0 or result.difference is None:
        reason = "; ".join(["no sample of both runs has a value", *notes])
        return GateResult(verdict=Verdict.FAIL, reason=reason, **facts)
    if measure.direction == "none":
        reason = f"'{gate.metric}' has no better or worse: compare its value with a bound instead"
        return GateResult(verdict=Verdict.FAIL, reason=reason, **facts)
    verdict = _verdict(gate.bound, measure, result, strict)
    reason = "; ".join([_sentence(result), *_power(gate, result, strict, verdict), *notes])
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
    return Verdict.FAIL if shown and COMPARISONS[">"](worse_by, margin) else Verdict.INCONCLUSIVE


def _sentence(result: PairedResult) -> str:
    interval = ""
    if result.ci_low is not None and result.ci_high is not None:
        interval = f" [{signed(result.ci_low)}, {signed(result.ci_high)}]"
    return f"difference {signed(result.difference or 0.0)}{interval} over {result.n:,} pairs"


def _detectable(gate: Gate, strict: PairedResult) -> float | None:
    """The true change for the worse at which the gate fails four times in five: significant at 99 %, and
    larger than the margin."""
    from evalrun.analysis.distributions import normal_quantile
    from evalrun.analysis.power import POWER, detectable_share, even_churn

    if strict.mde is None:
        return None
    if strict.discordant is not None and strict.n_clusters is None:
        churn = even_churn(*strict.discordant, strict.n)
        return detectable_share(strict.n, churn, strict.alpha, margin=gate.bound, exact=False)
    return max(strict.mde, gate.bound + normal_quantile(POWER) * (strict.se or 0.0))


def _power(gate: Gate, result: PairedResult, strict: PairedResult, verdict: Verdict) -> list[str]:
    """What so many pairs can see at the level that decides, and how many would be needed."""
    from evalrun.analysis.paired import samples_needed
    from evalrun.analysis.power import even_churn, pairs_to_pass

    seen = _detectable(gate, strict)
    if seen is None:
        return ["too few pairs to find any difference"]
    other = strict.mde_independent
    assumed = "" if other is None else f"; {max(other, gate.bound):.2g} if answers were independent"
    said = [
        f"n = {result.n:,} sees a change of {seen:.2g} 4 times in 5 "
        f"(it fails at {100 * (1 - strict.alpha):.6g} %{assumed})"
    ]
    if verdict is not Verdict.INCONCLUSIVE or gate.bound <= 0:
        return said
    if result.discordant is not None and result.n_clusters is None:
        needed = pairs_to_pass(gate.bound, even_churn(*result.discordant, result.n), result.alpha)
    else:
        needed = samples_needed(result, gate.bound)
    if needed is not None and needed > result.n:
        said.append(
            f"to see {gate.bound:g}, about {needed:,} samples are needed (an unchanged run then passes)"
        )
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


Inconclusive: TypeAlias = Literal["warn", "fail"]


def check_sweep(
    gates: Sequence[Gate],
    folder: SweepFolder,
    planned: Sequence[Mapping[str, Any]],
    baseline: SweepFolder | None = None,
    *,
    first: bool = False,
    more: Callable[[str], Sequence[Mapping[str, Any]]] = lambda _: (),
) -> list[GateResult]:
    """Every gate on every planned run that it speaks of.

    `first` lets gates that need a baseline pass where there is none. `more` gives metrics of a run that its
    `run.json` has not.

    `planned` are the runs of the plan, each with run, model, prompt and dataset. A run that was not finished
    has no metrics and does not pass; neither does a gate that speaks of no run at all.
    """
    told = said(folder)
    runs = {run["run"]: with_own_figures(told, run) for run in folder.runs()} if gates else {}
    pairs: dict[str, RunPair] = {}
    problem = ""
    if baseline is not None and any(gate.needs_baseline for gate in gates):
        try:
            pairs = _pairs(folder, baseline)
        except UserError as error:
            problem = f"the baseline cannot be read: {error.problems[0].what}"
    missing = FIRST if first and baseline is None else NO_BASELINE
    if baseline is not None:
        missing = problem or "the baseline has no run like this one"
    results: list[GateResult] = []
    located = 0
    speaks_of = [_covered(gate, last_steps(planned) if gate.steps else planned) for gate in gates]
    checks = sum(
        len(covered) for gate, covered in zip(gates, speaks_of, strict=True) if gate.kind == "no_worse"
    )
    alpha = fail_alpha(folder.read_manifest(), checks)
    for gate, covered in zip(gates, speaks_of, strict=True):
        if not covered:
            why = "it speaks of no checkpoint" if gate.steps else "it speaks of no run of this sweep"
            results.append(GateResult(gate.text, "", Verdict.FAIL, None, why))
        for run_id in covered:
            metrics = [*runs[run_id]["metrics"], *more(run_id)] if run_id in runs else None
            pair = _level_pair(gate, folder, run_id, planned, runs) if gate.against else pairs.get(run_id)
            pooled = _pooled(gate, folder, run_id, alpha) if metrics is not None else None
            why = NOTHING_BEFORE if gate.pool and missing != FIRST else missing
            why = f"the run at load={gate.against} was not finished" if gate.against else why
            result = pooled or _check(gate, run_id, metrics, pair, why, alpha)
            if result.verdict is Verdict.FAIL and metrics is not None and located < MOST_LOCATED:
                result = replace(result, where=_where(gate, folder, run_id, metrics, pair))
                located += 1
            results.append(result)
    return results


def _level_pair(
    gate: Gate,
    folder: SweepFolder,
    run_id: str,
    planned: Sequence[Mapping[str, Any]],
    runs: Mapping[str, Any],
) -> RunPair | None:
    """A run and the one that is like it but for the level of load that the gate compares with."""
    from evalrun.analysis.measures import RunSamples
    from evalrun.analysis.pairing import RunPair

    def place(run: Mapping[str, Any]) -> tuple[Any, ...]:
        rest = {key: value for key, value in (run.get("params") or {}).items() if key != "load"}
        return run["model"], run["prompt"], run["dataset"], rest

    own = next(run for run in planned if run["run"] == run_id)
    other = next(
        (run["run"] for run in planned if place(run) == place(own) and gate.against in level_words(run)), None
    )
    if other not in runs or run_id not in runs:
        return None
    manifest = folder.manifest()
    a, b = (RunSamples(folder, manifest, folder.run(each)) for each in (str(other), run_id))
    return RunPair(a, b, ())


def _covered(gate: Gate, planned: Sequence[Mapping[str, Any]]) -> list[str]:
    """The planned runs that a gate speaks of."""
    # Prompts that `ablate` made are there to see what their parts are worth: nobody means to use them.
    named = "prompt" in gate.scope
    return [str(each["run"]) for each in planned if gate.covers(each) and (named or not each.get("ablates"))]


def last_steps(planned: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of planned runs the last checkpoint of each training, for each prompt, dataset and parameters."""
    last: dict[bytes, Mapping[str, Any]] = {}
    for run in planned:
        if checkpoint := run.get("checkpoint"):
            key = canonical_json([checkpoint["of"], run["prompt"], run["dataset"], run.get("params") or {}])
            if key not in last or checkpoint["step"] > last[key]["checkpoint"]["step"]:
                last[key] = run
    return list(last.values())


def _pooled(gate: Gate, folder: SweepFolder, run_id: str, alpha: float) -> GateResult | None:
    """A gate against the mean of each sample over the sweeps before, or against the other steps of a
    training; None where it is no such gate, or there is nothing before."""
    try:
        if gate.steps:
            from evalrun.gates.steps import check_steps

            return check_steps(gate, folder, run_id, alpha)
        if gate.pool:
            from evalrun.gates.pooled import check_pooled

            return check_pooled(gate, folder, run_id, alpha)
        return None
    except UserError as error:
        return GateResult(gate.text, run_id, Verdict.FAIL, None, str(error.problems[0]))


def _where(
    gate: Gate, folder: SweepFolder, run_id: str, metrics: Sequence[Mapping[str, Any]], pair: RunPair | None
) -> tuple[Concentration, ...]:
    """Where the samples lie that a failed gate is about: those that became worse, or that went wrong."""
    from evalrun.analysis.measures import find_measure
    from evalrun.analysis.pairing import join
    from evalrun.analysis.where import concentrations, ended_badly

    path = folder.samples_path(run_id)
    try:
        if gate.needs_baseline and pair is not None:
            joined, measure = join(pair), find_measure(gate.metric, [pair.a, pair.b])
            a, b = measure.values(pair.a)[joined.in_a], measure.values(pair.b)[joined.in_b]
            keep = in_slice(pair.b, gate.slice)[joined.in_b]
            ids, worse = joined.ids[keep], ((b < a) if measure.direction == "higher" else (b > a))[keep]
            return concentrations(path, {*map(str, ids[worse])}, {*map(str, ids)})
        scorer = next((str(m.get("scorer") or "") for m in metrics if m["name"] == gate.metric), "")
        return concentrations(path, *ended_badly(path, gate.metric, scorer, gate.slice))
    except UserError:  # no samples, or no score of each of them
        return ()


def _check(
    gate: Gate,
    run_id: str,
    metrics: Sequence[Mapping[str, Any]] | None,
    pair: RunPair | None,
    missing: str,
    alpha: float,
) -> GateResult:
    """`missing` says why there is no pair, where there is none."""
    if metrics is None:
        return GateResult(gate.text, run_id, Verdict.FAIL, None, "the run was not finished")
    if gate.kind == "absolute":
        return check_gate(gate, run_id, metrics)
    if pair is None or gate.pool:
        if gate.kind == "served" and missing == FIRST:
            return GateResult(gate.text, run_id, Verdict.PASS, None, missing)
        value, why = value_of(gate, metrics) if missing == FIRST else (None, missing)
        if value is None:
            return GateResult(gate.text, run_id, Verdict.FAIL, None, why)
        return GateResult(gate.text, run_id, Verdict.PASS, value, missing)
    if gate.kind == "served":
        return _served(gate, run_id, pair)
    try:
        if gate.kind == "relative":
            before = {**asdict(pair.a.run), "metrics": [metric.document() for metric in pair.a.run.metrics]}
            own = with_own_figures(said(pair.a.folder), before)["metrics"]
            held = check_gate(gate, run_id, metrics, own)
            return replace(held, reason="; ".join(filter(None, [held.reason, *_cautions(pair)])))

        return check_paired(gate, pair, alpha=alpha)
    except UserError as error:
        return GateResult(gate.text, run_id, Verdict.FAIL, None, str(error.problems[0]))


def _served(gate: Gate, run_id: str, pair: RunPair) -> GateResult:
    """Whether the servers of both runs call themselves the same in their answers."""
    before, now = (as_served(side.run.details.answered_by) for side in (pair.a, pair.b))
    named = [kind for kind in KINDS if before[kind] and now[kind]]
    if said := served_change(before, now):
        return GateResult(gate.text, run_id, Verdict.FAIL, None, said)
    if not named:
        reason = "the server does not name itself in both runs, or every answer came from the cache"
        return GateResult(gate.text, run_id, Verdict.INCONCLUSIVE, None, reason)
    reason = "; ".join(f"{KINDS[kind]} {', '.join(now[kind])}" for kind in named)
    return GateResult(gate.text, run_id, Verdict.PASS, None, reason)


def _pairs(folder: SweepFolder, baseline: SweepFolder) -> dict[str, RunPair]:
    """The runs with those of the baseline that they are compared with, by the runs' ids."""
    from evalrun.analysis.pairing import Chosen, match_runs, same_data

    if not folder.run_ids():
        return {}
    pairs, _ = match_runs(Chosen(baseline).load(), Chosen(folder).load())
    # The only runs on both sides are paired whatever they are; a gate wants the same data at least.
    return {
        pair.b.run.run: pair
        for pair in pairs
        if pair.a.run.dataset == pair.b.run.dataset or same_data(pair.a, pair.b)
    }


def _cautions(pair: RunPair) -> list[str]:
    """What makes the run and the baseline's unlike, besides the sweep."""
    from evalrun.analysis.pairing import same_data

    said = [f"the baseline's run is unlike in {', '.join(pair.differs)}"] if pair.differs else []
    return said if same_data(pair.a, pair.b) else [*said, "the baseline had other data"]


def blocks(results: Sequence[GateResult], inconclusive: Inconclusive = "warn") -> bool:
    """Whether the verdicts come to exit code 1.

    An inconclusive gate is reported and does not stop the way unless asked to: it says that the samples
    cannot tell, and a job that turns red without anything having got worse is soon ignored.
    """
    stopping = {Verdict.FAIL} if inconclusive == "warn" else {Verdict.FAIL, Verdict.INCONCLUSIVE}
    return any(result.verdict in stopping for result in results)


def undecided_for_loss(results: Sequence[GateResult]) -> bool:
    """Whether a gate is inconclusive because rows were lost. Then the measurement failed, and nothing can be
    said of the model: exit code 3, whatever is said of gates that samples cannot decide."""
    return any(result.incomplete and result.verdict is Verdict.INCONCLUSIVE for result in results)
