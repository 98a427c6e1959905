"""Alerts on the trainings that a sweep's checkpoints come from: diverged, spike, eval_loss rising and the
like.

What the training logged is looked at as by `evalrun training gate`. A loss that rises is looked at in pairs
as well where the sweep has the likelihoods of the same texts at several steps: means that rise may do so by
chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalrun.analysis.measures import find_measure, joined
from evalrun.analysis.paired import paired_difference
from evalrun.errors import UserError
from evalrun.gates.alerts import Alert, AlertResult
from evalrun.gates.changes import samples_of
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store
from evalrun.tracking.trainings import resolve_training
from evalrun.training.alerts import alerts_of, read_rules
from evalrun.training.ending import series_of

RISING = "eval_loss rising"
NLL = "perplexity.nll_per_token"


def check_training_alert(
    alert: Alert, runs: Sequence[Mapping[str, Any]], folder: SweepFolder, store: Store
) -> list[AlertResult]:
    """The alert on each training that runs (as in run.json) of a sweep come from. Where the sweep shows the
    loss of the same samples to rise, or not to, that decides; else what the training logged."""
    rules = read_rules([alert.text])
    names = dict.fromkeys(str(run["training"]) for run in runs if run.get("training"))
    if not names:
        return [_result(alert, "", None, "no run of this sweep names the training that its model comes from")]
    results = []
    for name in names:
        of = [run for run in runs if run.get("training") == name]
        if RISING in rules and (paired := _rising(alert, of, folder, rules[RISING])) is not None:
            results.append(paired)
            continue
        last = str(of[-1]["run"])
        try:
            training = resolve_training(store, name)
            found = alerts_of(series_of(training), training.training().planned_steps, rules)
        except UserError as error:
            results.append(_result(alert, last, None, error.problems[0].what))
            continue
        results.append(_result(alert, last, bool(found), f"{name}: {found[0]}" if found else ""))
    return results


def _result(alert: Alert, run: str, fired: bool | None, reason: str) -> AlertResult:
    return AlertResult(alert.text, run, bool(fired), None, reason, checked=fired is not None)


def _rising(
    alert: Alert, runs: Sequence[Mapping[str, Any]], folder: SweepFolder, count: int
) -> AlertResult | None:
    """Whether the loss of the same samples rose `count` evaluations in a row, each time by a difference above
    zero at 95 %, in pairs; None where no line of the sweep has so many steps with likelihoods."""
    lines: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        if any(metric["name"] == NLL and metric["value"] is not None for metric in run["metrics"]):
            lines.setdefault((run["prompt"], run["dataset"]), []).append(run)
    checked = None
    for line in lines.values():
        ordered = sorted(line, key=lambda run: int(run["step"]))
        if len(ordered) <= count:
            continue
        try:
            checked = _rise(alert, [str(run["run"]) for run in ordered], folder, count)
        except UserError as error:
            return _result(alert, str(ordered[-1]["run"]), None, error.problems[0].what)
        if checked.fired:
            return checked
    return checked


def _rise(alert: Alert, ids: Sequence[str], folder: SweepFolder, count: int) -> AlertResult:
    samples = [samples_of(folder, run_id) for run_id in ids]
    measure = find_measure(NLL, samples)
    data = joined(samples, measure)
    if not len(data.values):
        return _result(alert, ids[-1], None, "the steps share no sample")
    rises = 0
    for at in range(1, len(ids)):
        result = paired_difference(
            data.values[:, at - 1], data.values[:, at], data.clusters, seed=samples[0].seed
        )
        rises = rises + 1 if result.ci_low is not None and result.ci_low > 0 else 0
        if rises >= count:
            reason = (
                f"the loss of the same {result.n:,} samples rose {count} evaluations in a row, each at 95 %"
            )
            return _result(alert, ids[at], True, reason)
    return _result(alert, ids[-1], False, "")
