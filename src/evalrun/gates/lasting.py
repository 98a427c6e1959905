"""Alerts on a change that lasts: small drops that no single night shows, and that a window forgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalrun.analysis.nights import cusum_limit, lasting_changes
from evalrun.gates.alerts import MOST, Alert, AlertResult
from evalrun.gates.conditions import find_metric
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store
from evalrun.tracking.trend import earlier_runs

FEWEST = 5
"""Nights before that it takes."""


def check_lasting(
    alert: Alert, run_id: str, metric: Mapping[str, Any], folder: SweepFolder, store: Store, checks: int
) -> AlertResult:
    """A CUSUM over the run's metric in the sweeps before it on the same data, and this one."""
    value = float(metric["value"])
    found = earlier_runs(store, folder, run_id, MOST)
    series = [
        (sweep.ulid, float(known["value"]))
        for sweep, run in reversed(found)
        if (known := find_metric(run["metrics"], alert.metric, alert.slice))
        and known["value"] is not None
        and not known.get("incomplete")
    ]
    if len(series) < FEWEST:
        sweeps = f"{len(series)} sweep{'' if len(series) == 1 else 's'}"
        why = f"{sweeps} before on the same data; a change that lasts needs {FEWEST}"
        return AlertResult(alert.text, run_id, False, value, why, checked=False)
    if metric["direction"] == "none":
        why = f"'{alert.metric}' has no better or worse"
        return AlertResult(alert.text, run_id, False, value, why, checked=False)
    sign = 1.0 if (metric["direction"] == "higher") == (alert.way == "better") else -1.0
    values = [known for _, known in series] + [value]
    changes = lasting_changes(values, sign, cusum_limit(checks))
    told = [change for change in changes if change.at == len(values) - 1]
    compared = tuple(ulid for ulid, _ in series)
    if not told:
        why = f"no change that lasts over {len(values)} sweeps"
        return AlertResult(alert.text, run_id, False, value, why, compared=compared)
    since = told[0].since
    before, after = values[:since], values[since:]
    difference = sum(after) / len(after) - sum(before) / len(before)
    first = compared[since] if since < len(compared) else "this one"
    reason = (
        f"{alert.way} for {len(after)} sweeps, since {first}: "
        f"{sum(after) / len(after):.4g} on average, {sum(before) / len(before):.4g} before (CUSUM)"
    )
    return AlertResult(alert.text, run_id, True, value, reason, difference=difference, compared=compared)
