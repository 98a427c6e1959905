"""All gates of a sweep against all its runs, and what their verdicts come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from evalrun.errors import UserError
from evalrun.gates.conditions import NO_BASELINE, Gate, GateResult, Verdict, check_gate

if TYPE_CHECKING:
    from evalrun.analysis.pairing import RunPair
    from evalrun.tracking.folder import SweepFolder

Inconclusive: TypeAlias = Literal["warn", "fail"]


def check_sweep(
    gates: Sequence[Gate],
    folder: SweepFolder,
    planned: Sequence[Mapping[str, Any]],
    baseline: SweepFolder | None = None,
) -> list[GateResult]:
    """Every gate on every planned run that it speaks of.

    `planned` are the runs of the plan, each with run, model, prompt and dataset. A run that was not finished
    has no metrics and does not pass; neither does a gate that speaks of no run at all.
    """
    runs = {run["run"]: run for run in folder.runs()}
    pairs: dict[str, RunPair] = {}
    problem = ""
    if baseline is not None and any(gate.needs_baseline for gate in gates):
        try:
            pairs = _pairs(folder, baseline)
        except UserError as error:
            problem = f"the baseline cannot be read: {error.problems[0].what}"
    results: list[GateResult] = []
    for gate in gates:
        # Prompts that `ablate` made are there to see what their parts are worth: nobody means to use them.
        named = "prompt" in gate.scope
        covered = [
            str(each["run"]) for each in planned if gate.covers(each) and (named or not each.get("ablates"))
        ]
        if not covered:
            results.append(GateResult(gate.text, "", Verdict.FAIL, None, "it speaks of no run of this sweep"))
        for run_id in covered:
            metrics = runs[run_id]["metrics"] if run_id in runs else None
            results.append(_check(gate, run_id, metrics, baseline is not None, pairs.get(run_id), problem))
    return results


def _check(
    gate: Gate,
    run_id: str,
    metrics: Sequence[Mapping[str, Any]] | None,
    has_baseline: bool,
    pair: RunPair | None,
    problem: str,
) -> GateResult:
    if metrics is None:
        return GateResult(gate.text, run_id, Verdict.FAIL, None, "the run was not finished")
    if not gate.needs_baseline:
        return check_gate(gate, run_id, metrics)
    if pair is None:
        reason = problem or ("the baseline has no run like this one" if has_baseline else NO_BASELINE)
        return GateResult(gate.text, run_id, Verdict.FAIL, None, reason)
    try:
        if gate.kind == "relative":
            held = check_gate(gate, run_id, metrics, [asdict(metric) for metric in pair.a.run.metrics])
            return replace(held, reason="; ".join(filter(None, [held.reason, *_cautions(pair)])))
        from evalrun.gates.paired import check_paired

        return check_paired(gate, pair)
    except UserError as error:
        return GateResult(gate.text, run_id, Verdict.FAIL, None, str(error.problems[0]))


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
