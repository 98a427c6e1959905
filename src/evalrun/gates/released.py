"""Alerts against what was released: a score worse than the promoted run's, and rows that drifted from
its rows.

    exact_match worse than promoted by 0.05   the project's promoted run (or: than promoted staging)
    drift(text) auc > 0.6                            a classifier tells the texts apart, and so well
    drift(label) significant                         a column; psi > 0.2 asks for an effect besides
    drift(inputs); drift(answers); drift(any)        what `evalrun drift` says first
    slo burn                                         what `evalrun probe` watches wherever there is an `slo`

A score is compared row by row where both runs have the same rows, else by the standard errors of both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from evalrun.analysis.distributions import normal_quantile
from evalrun.drift_results import TextDrift
from evalrun.errors import UserError
from evalrun.floats import COMPARISONS
from evalrun.gates.conditions import METRIC_FORM, NUMBER_FORM, SCOPE_FORM, SLICE_FORM, find_metric
from evalrun.registry import import_attribute
from evalrun.tracking.changes import PROMOTE, placed

if TYPE_CHECKING:
    from evalrun.drift_results import DriftResults
    from evalrun.gates.alerts import Alert, AlertResult
    from evalrun.tracking.changes import Placed
    from evalrun.tracking.folder import SweepFolder
    from evalrun.tracking.store import Store

PRODUCTION = "production"
"""The promoted name that is meant where none is said."""
COMPARE = "evalrun.traffic.drift:compare_run"
"""What compares the rows of a run with those of a release: a room of its own."""
WHOLE = ("any", "inputs", "answers")

WORSE = re.compile(
    rf"\s*{METRIC_FORM}{SLICE_FORM}\s+(?P<way>worse|better)\s+than\s+promoted(?:\s+(?!by\b|for\b)(?P<name>[\w.-]+))?"
    rf"(?:\s+by\s+(?P<margin>{NUMBER_FORM}))?{SCOPE_FORM}\s*"
)
DRIFT = re.compile(
    r"\s*drift\(\s*(?P<column>[^()\s]+)\s*\)(?:\s+(?:significant|(?P<effect>auc|psi|effect)\s*"
    rf"(?P<op>>=|>)\s*(?P<bound>{NUMBER_FORM})))?(?:\s+against\s+(?P<name>[\w.-]+))?{SCOPE_FORM}\s*"
)
SLO = re.compile(r"\s*slo\s+burn\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Drifted:
    """What of a comparison is alarmed about: a column (or text), or one of WHOLE; with an effect beyond."""

    column: str
    op: Literal[">", ">=", ""] = ""
    bound: float = 0.0

    @classmethod
    def of(cls, text: str) -> Drifted:
        """That of an alert's text, which DRIFT matches."""
        match = DRIFT.fullmatch(text)
        assert match is not None
        op: Any = match["op"] or ""
        return cls(match["column"], op, float(match["bound"] or 0))

    def seen(self, found: DriftResults) -> tuple[bool | None, float | None, str]:
        """Whether it holds (None: cannot be told), the effect, and what was seen."""
        if self.column in WHOLE:
            told = {"any": found.drifted, "inputs": found.inputs_changed, "answers": found.answers_worse}
            return told[self.column], None, " ".join(found.sentences[:2])
        own = [each for each in found.tested if each.column == self.column]
        for each in own or (found.texts if self.column == "text" else ()):
            value, name = (
                (each.auc, "AUC") if isinstance(each, TextDrift) else (each.effect, each.effect_name)
            )
            if each.drift is None or value is None:
                return None, value, "too few rows"
            beyond = not self.op or COMPARISONS[self.op](value, self.bound)
            return each.drift and beyond, value, f"{name} {value:.3g}, q = {each.q:.2g}"
        return (
            None,
            None,
            f"no column '{self.column}' is in both: {', '.join(e.column for e in found.tested)}",
        )


def promoted_run(store: Store, project: str, name: str | None) -> Placed:
    """What stands for a name of a project; without a name production, or the one name that there is. Raises
    UserError."""
    last = {each.name: each for each in placed(store, project) if each.kind == PROMOTE and each.present}
    chosen = name or (PRODUCTION if PRODUCTION in last or len(last) != 1 else next(iter(last)))
    if chosen not in last:
        raise UserError(f"nothing of {project} is promoted as '{chosen}'")
    return last[chosen]


def check_promoted(
    alert: Alert, run_id: str, metric: Mapping[str, Any], folder: SweepFolder, store: Store, alpha: float
) -> AlertResult:
    """A run's metric against the promoted run's. Raises UserError where nothing is promoted."""
    from evalrun.analysis.measures import is_mean
    from evalrun.analysis.pairing import same_data
    from evalrun.gates.alerts import AlertResult
    from evalrun.gates.changes import compare_with, samples_of

    if metric["direction"] == "none":
        raise UserError(f"'{alert.metric}' has no better or worse")
    manifest = folder.read_manifest()
    match = WORSE.fullmatch(alert.text)
    place = promoted_run(store, str(manifest["project"]), match["name"] if match else None)
    if (place.sweep, place.run) == (folder.ulid, run_id):
        raise UserError("it is the promoted run itself")
    other = store.resolve(place.sweep)
    now, before = samples_of(folder, run_id), samples_of(other, place.run)
    sign = 1.0 if (metric["direction"] == "higher") == (alert.way == "better") else -1.0
    if is_mean(alert.metric, [now]) and same_data(before, now):
        return compare_with(alert, now, [before], sign, alpha, f"the promoted run {place.sweep}/{place.run}")
    told = find_metric(
        [dict(each) for each in other.read_run(place.run)["metrics"]], alert.metric, alert.slice
    )
    if told is None or told["value"] is None:
        raise UserError(f"the promoted run has no '{alert.metric}'")
    errors = [each["se"] for each in (metric, told) if each.get("se") is not None]
    if len(errors) < 2:
        raise UserError(f"'{alert.metric}' has no standard error to compare by")
    difference = float(metric["value"]) - float(told["value"])
    half = normal_quantile(1 - alpha / 2) * math.hypot(*errors)
    fired = sign * difference > half and COMPARISONS[">"](sign * difference, alert.margin)
    reason = (
        f"{metric['value']:.4g} against {told['value']:.4g} of the promoted run {place.sweep}/{place.run}: "
        f"difference {difference:+.4g} ({100 * (1 - alpha):.6g} % interval {difference - half:+.4g} to "
        f"{difference + half:+.4g}), other rows"
    )
    return AlertResult(
        alert.text, run_id, fired, float(metric["value"]), reason, True, difference, difference - half,
        difference + half, (place.sweep,),
    )  # fmt: skip


def check_drift(
    alert: Alert, run_id: str, folder: SweepFolder, store: Store, made: dict[tuple[str, str], DriftResults]
) -> AlertResult:
    """Whether a run's rows drifted from the promoted run's; `made` keeps what was compared. Raises
    UserError."""
    from evalrun.gates.alerts import AlertResult

    match = DRIFT.fullmatch(alert.text)
    place = promoted_run(store, str(folder.read_manifest()["project"]), match["name"] if match else None)
    against = f"{place.sweep}/{place.run}"
    if against == f"{folder.ulid}/{run_id}":
        raise UserError("it is the promoted run itself")
    if (against, run_id) not in made:
        made[against, run_id] = import_attribute(COMPARE)(store, folder, run_id, against)
    on, value, why = Drifted.of(alert.text).seen(made[against, run_id])
    return AlertResult(alert.text, run_id, bool(on), value, why, on is not None, compared=(place.sweep,))
