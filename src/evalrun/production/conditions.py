"""The alerts of a suite on the turns of a day, however often one looks.

`exact_match < 0.5` on five rows holds by chance now and then, and a probe looks at it 288 times a day. So a
condition on a score, on a percentile of times or on failures is a bet, turn by turn, that it holds
(`analysis.sequential.EProcess`): of deployments at the very bound at most 5 % are alarmed about in 30 days.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evalrun.analysis.sequential import EProcess
from evalrun.gates.alarms import Alarm
from evalrun.gates.conditions import TLS
from evalrun.production.records import Turn

if TYPE_CHECKING:
    from evalrun.gates.alerts import Alert

LEVEL = 0.05
DAYS = 30
"""The level is shared by so many days, each of which begins anew."""
_PERCENTILE = re.compile(r"performance\.(e2e_s|ttft_s)\.p(\d+)\Z")


def over_turns(alert: Alert, turns: Sequence[Turn]) -> Alarm | None:
    """A condition with a threshold on the turns of one run's day; None where it is not of such a kind, and is
    checked on the day's sweep instead."""
    gate = alert.gate
    if alert.kind != "threshold" or gate.op not in ("<", "<=", ">", ">=") or alert.slice or not turns:
        return None
    if gate.metric == TLS:
        days = turns[-1].tls_days
        return Alarm(
            alert.text, turns[-1].run, days is not None and gate.holds(days), f"{days} days are left"
        )
    told = _values(gate.metric, gate.op, gate.bound, turns)
    if told is None:
        return None
    values, bound, what = told
    reach = max(bound, 1 - bound)
    sign = -1 if gate.op in ("<", "<=") else 1
    process = EProcess()
    process.update([sign * (value - bound) / reach for value in values])
    mean = sum(values) / len(values) if values else math.nan
    shown = process.log_value >= math.log(DAYS / LEVEL)
    return Alarm(alert.text, turns[-1].run, shown, f"{what} {mean:.3g} over {len(turns)} turns today")


def _values(
    metric: str, op: str, bound: float, turns: Sequence[Turn]
) -> tuple[list[float], float, str] | None:
    """What is bet on, what it is compared with, and its name: a share a turn, since failures and delays come
    together; of scores each row's. These are looked at turn by turn, and a bet on all rows of a turn is fair
    whichever rows are hard: the product of 1 + b (bound - p_i) is at most that with the mean of p_i."""
    known = [turn for turn in turns if turn.state != "unknown"]
    if metric == "error_rate" and 0 < bound < 1:
        return [1 - turn.ok / turn.requests for turn in known], bound, metric
    match = _PERCENTILE.match(metric)
    if match is not None and op in (">", ">="):
        name, rest = match[1], 1 - int(match[2]) / 100
        times = [getattr(turn, name) for turn in known]
        if not 0 < rest < 1:
            return None
        shares = [sum(value > bound for value in of) / len(of) for of in times if of]
        return shares, rest, f"share of {name} above {bound:g}:"
    if metric == turns[-1].scorer and 0 < bound < 1:
        scores = [turn.scores for turn in known if turn.scores]
        if all(0 <= value <= 1 for of in scores for value in of):
            return [value for of in scores for value in of], bound, metric
    return None
