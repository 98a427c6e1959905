"""Alerts: what is reported at the end of a sweep, without changing its exit code.

    exact_match < 0.5                                  a metric against a number
    performance.e2e_s.p95 worse than last 5            against the mean of the sweeps before
    exact_match better than last 5 by 0.02 for model=m
    exact_match better than ever                       against the best sweep there was
    exact_match lastingly worse                        a small change that lasts, over all sweeps before
    diverged; eval_loss rising 3                       of the training that checkpoints come from
    exact_match worse than promoted by 0.05            against what was released, see `gates.released`
    drift(text) auc > 0.6; drift(label) significant
    exact_match worse than best step by 0.02           the last checkpoint of a training, see gates

Only sweeps of the same project are compared, and of them only runs of the same model, prompt, dataset and
parameters whose data has the same digest. The value must lie beyond each of theirs, and the change be shown:
for a metric that is a mean over samples by a paired test on the samples (a 99 % interval leaves zero out),
for any other by a 99 % prediction interval from the values before. The level is the stricter one because
alerts are looked at every night.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from evalrun.errors import Problem, UserError
from evalrun.gates.conditions import (
    METRIC_FORM,
    SCOPE_FORM,
    SCOPES,
    SLICE_FORM,
    Gate,
    check_gate,
    find_metric,
    parse_gate,
    read_pairs,
)
from evalrun.gates.released import DRIFT, SLO, WORSE, check_drift, check_promoted
from evalrun.tracking.changes import said
from evalrun.tracking.people import with_own_figures
from evalrun.webhook import escaped
from evalrun.webhook import post as post

if TYPE_CHECKING:
    from evalrun.drift_results import DriftResults
    from evalrun.tracking.folder import SweepFolder
    from evalrun.tracking.store import Store


MOST = 100
"""So many sweeps before are looked at for `better than ever`."""

_CHANGE = re.compile(
    rf"\s*{METRIC_FORM}{SLICE_FORM}\s+(?P<way>worse|better)\s+than\s+"
    r"(?:(?:the\s+)?last\s+(?P<count>[1-9]\d{0,2})(?:\s+sweeps?)?|(?P<ever>ever))"
    rf"(?:\s+by\s+(?P<margin>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))?{SCOPE_FORM}\s*"
)
_TRAINING = re.compile(
    r"\s*(?:diverged|spike|grad_norm|eval_loss\s+rising(?:\s+[1-9]\d?)?|stalled|lr_zero|throughput\s+fell)\s*"
)
"""The rules of `evalrun.training.alerts`; a test holds the two together."""
_LASTING = re.compile(rf"\s*{METRIC_FORM}{SLICE_FORM}\s+lastingly\s+(?P<way>worse|better){SCOPE_FORM}\s*")
_REMEDY = (
    "Write one of: exact_match < 0.5; exact_match worse than last 5; exact_match better than last 5 by 0.02; "
    "exact_match better than ever; exact_match lastingly worse; exact_match worse than best step; "
    "exact_match worse than promoted by 0.05; drift(text) auc > 0.6; drift(label) significant; slo burn; "
    "each may end in: for model=ID"
)


@dataclass(frozen=True, slots=True)
class Alert:
    """One condition. `gate` holds the threshold of a plain one; the others compare with `count` sweeps before
    (None: with the best of all), and fire from a change of more than `margin` on."""

    text: str
    metric: str
    kind: Literal["threshold", "change", "lasting", "steps", "training", "promoted", "drift", "slo"]
    gate: Gate
    way: Literal["worse", "better"] = "worse"
    count: int | None = None
    margin: float = 0.0

    @property
    def slice(self) -> Mapping[str, str]:
        """The slice of the metric."""
        return self.gate.slice

    def covers(self, run: Mapping[str, Any]) -> bool:
        """Whether it speaks of a run (given with run, model, prompt and dataset)."""
        return self.gate.covers(run)


@dataclass(frozen=True, slots=True)
class AlertResult:
    """An alert on a run. `reason` says what was seen; of one that could not be checked `checked` is False.

    `compared` are the sweeps it was compared with.
    """

    alert: str
    run: str
    fired: bool
    value: float | None
    reason: str
    checked: bool = True
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    compared: tuple[str, ...] = field(default=())


def parse_alert(text: str) -> Alert | Problem:
    """An alert, or what is wrong with its text."""
    if SLO.fullmatch(text):
        return Alert(text.strip(), "", "slo", Gate(text.strip(), "", "", 0.0))
    if (match := DRIFT.fullmatch(text)) is not None:
        scope = read_pairs(match["scope"])
        if scope is None or any(key not in SCOPES for key in scope):
            return Problem(f"cannot read the alert '{text}'", "alerts.when", _REMEDY)
        return Alert(text.strip(), "", "drift", Gate(text.strip(), "", "", 0.0, scope=scope))
    match = _CHANGE.fullmatch(text) or WORSE.fullmatch(text) or _LASTING.fullmatch(text)
    if match is None:
        if _TRAINING.fullmatch(text):
            return Alert(text.strip(), "", "training", Gate(text.strip(), "", "", 0.0))
        gate = parse_gate(text)
        if isinstance(gate, Gate) and gate.steps:
            return Alert(gate.text, gate.metric, "steps", gate, margin=gate.bound)
        if isinstance(gate, Problem) or gate.kind != "absolute":
            return Problem(f"cannot read the alert '{text}'", "alerts.when", _REMEDY)
        return Alert(gate.text, gate.metric, "threshold", gate)
    parts = match.groupdict()
    slice_, scope = read_pairs(parts["slice"]), read_pairs(parts["scope"])
    if slice_ is None or scope is None or any(key not in SCOPES for key in scope):
        return Problem(f"cannot read the alert '{text}'", "alerts.when", _REMEDY)
    way: Literal["worse", "better"] = "worse" if parts["way"] == "worse" else "better"
    metric = parts["quoted"] or parts["metric"]
    if "name" in parts:
        metric = metric.removeprefix("score.")
        gate = Gate(text.strip(), metric, "", 0.0, slice=slice_, scope=scope)
        return Alert(text.strip(), metric, "promoted", gate, way, margin=float(parts["margin"] or 0))
    if "count" not in parts:
        gate = Gate(text.strip(), metric, "", 0.0, slice=slice_, scope=scope)
        return Alert(text.strip(), metric, "lasting", gate, way)
    if parts["ever"] and way == "worse":
        what = f"cannot read the alert '{text}': only 'better than ever' is known"
        return Problem(what, "alerts.when", _REMEDY)
    count = int(parts["count"]) if parts["count"] else None
    gate = Gate(text.strip(), metric, "", 0.0, slice=slice_, scope=scope)
    return Alert(text.strip(), metric, "change", gate, way, count, float(parts["margin"] or 0))


def check_alerts(
    alerts: Sequence[Alert], folder: SweepFolder, planned: Sequence[Mapping[str, Any]], store: Store,
    alpha: float | None = None,
) -> list[AlertResult]:  # fmt: skip
    """Every alert on every planned run that it speaks of; a run without results is reported once. `alpha` is
    the level at which a change is shown (default: as `fail_alpha` says).

    What cannot be checked is said in the results; nothing is raised for it.
    """
    told = said(folder)
    runs = {run["run"]: with_own_figures(told, run) for run in folder.runs()}
    missing = [str(each["run"]) for each in planned if each["run"] not in runs]
    results = [
        AlertResult("every run is finished", run_id, True, None, "the run was not finished")
        for run_id in missing
    ]
    from evalrun.gates.check import last_steps

    tested = _Tested.of(alerts, folder, planned, alpha)
    compared: dict[tuple[str, str], DriftResults] = {}
    for alert in alerts:
        if alert.kind == "slo":
            results.append(_unchecked(alert, "", "`evalrun probe` watches it, turn by turn"))
            continue
        if alert.kind == "training":
            from evalrun.gates.trainings import check_training_alert

            results += check_training_alert(alert, list(runs.values()), folder, store)
            continue
        among = last_steps(planned) if alert.kind == "steps" else planned
        covered = [str(each["run"]) for each in among if alert.covers(each) and each["run"] in runs]
        for run_id in covered:
            try:
                if alert.kind == "drift":
                    results.append(check_drift(alert, run_id, folder, store, compared))
                else:
                    results.append(_check(alert, runs[run_id], folder, store, tested))
            except UserError as error:
                results.append(_unchecked(alert, run_id, error.problems[0].what))
        if not covered and not missing:
            results.append(_unchecked(alert, "", "it speaks of no run of this sweep"))
    return results


def _unchecked(alert: Alert, run_id: str, why: str, value: float | None = None) -> AlertResult:
    return AlertResult(alert.text, run_id, False, value, why, checked=False)


@dataclass(frozen=True, slots=True)
class _Tested:
    """How many checks of changes there are, and the level at which each decides."""

    lasting: int
    alpha: float

    @classmethod
    def of(
        cls,
        alerts: Sequence[Alert],
        folder: SweepFolder,
        planned: Sequence[Mapping[str, Any]],
        alpha: float | None = None,
    ) -> _Tested:
        from evalrun.gates.check import fail_alpha

        kinds = [alert.kind for alert in alerts for each in planned if alert.covers(each)]
        changes = kinds.count("change") + kinds.count("promoted")
        return cls(kinds.count("lasting"), alpha or fail_alpha(folder.read_manifest(), changes))


def _check(
    alert: Alert, run: Mapping[str, Any], folder: SweepFolder, store: Store, tested: _Tested
) -> AlertResult:
    run_id = run["run"]
    if alert.kind == "threshold":
        held = check_gate(alert.gate, run_id, run["metrics"])
        if held.value is None or held.verdict == "inconclusive":
            return _unchecked(alert, run_id, held.reason, held.value)
        return AlertResult(alert.text, run_id, held.verdict == "pass", held.value, held.reason)
    if alert.kind == "steps":
        from evalrun.gates.steps import check_steps

        seen = check_steps(alert.gate, folder, run_id)
        if seen.difference is None:
            return _unchecked(alert, run_id, seen.reason, seen.value)
        return AlertResult(
            alert.text, run_id, seen.verdict == "fail", seen.value, seen.reason,
            difference=seen.difference, ci_low=seen.ci_low, ci_high=seen.ci_high,
        )  # fmt: skip
    metric = find_metric(run["metrics"], alert.metric, alert.slice)
    value = None if metric is None else metric["value"]
    if metric is None or value is None:
        return _unchecked(alert, run_id, f"no value of '{alert.metric}' in this run")
    if metric.get("incomplete"):  # what was lost may have been all that got worse
        return _unchecked(alert, run_id, str(metric["note"]).partition("; ")[0], value)
    if alert.kind == "promoted":
        return check_promoted(alert, run_id, metric, folder, store, tested.alpha)
    if alert.kind == "lasting":
        from evalrun.gates.lasting import check_lasting

        return check_lasting(alert, run_id, metric, folder, store, tested.lasting)
    from evalrun.gates.changes import check_change

    return check_change(alert, run_id, metric, folder, store, tested.alpha)


_MOST = 20


def message(name: str, sweep: str, fired: Sequence[AlertResult]) -> dict[str, Any]:
    """The alerts as the JSON that Slack and what is like it take: `{"text": "…"}`."""
    lines = [f"*evalrun: {escaped(name)}*, {len(fired)} alert{'s' if len(fired) > 1 else ''} (sweep {sweep})"]
    for each in fired[:_MOST]:
        run = f" ({escaped(each.run)})" if each.run else ""
        why = f": {escaped(each.reason)}" if each.reason else ""
        value = "" if each.value is None else f" = {each.value:.4g}"
        lines.append(f"• {escaped(each.alert)}{run}{value}{why}")
    if len(fired) > _MOST:
        lines.append(f"and {len(fired) - _MOST} more")
    return {"text": "\n".join(lines)}
