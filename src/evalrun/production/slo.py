"""Whether a deployment keeps what was promised: how fast it spends its error budget, and alarms on that.

The burn rate is the share of bad requests over the share that the objective allows. Its alarms are those of
Google's SRE workbook (chapter 5): two windows each, so that one opens soon and closes soon. A probe asks
little, and three bad requests of an hour may be chance: an alarm needs, besides, that as many bad turns in
the long window would be rare in a deployment that just keeps its promise. At most 5 % of such deployments
open an alarm in the SLO's window, over all rules together (simulated in tests/unit/production).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalrun.gates.alarms import Alarm
from evalrun.production.records import History, Turn
from evalrun.spans import span_s
from evalrun.suite.probe import ProbeSpec

Floats = NDArray[np.float64]

HOUR_S = 3600.0
LEVEL = 0.05
"""At most this share of deployments that just keep the promise are alarmed about in the SLO's window."""
LEAST_BAD = 3
"""An alarm needs so many bad requests in its long window."""
STILL_DOWN = 2
"""So many turns in a row are down before an outage is alarmed about where nothing was promised."""


@dataclass(frozen=True, slots=True)
class BurnRule:
    """An alarm: budget is spent at `factor` times the rate that lasts for the window, over both windows."""

    name: str
    factor: float
    long_h: float
    short_h: float

    def budget(self, window_s: float) -> float:
        """The share of the budget that is spent when it opens."""
        return self.factor * self.long_h * HOUR_S / window_s


BURN_RULES = (
    BurnRule("fast burn", 14.4, 1, 5 / 60),
    BurnRule("burn", 6, 6, 0.5),
    BurnRule("slow burn", 1, 72, 6),
)


@dataclass(frozen=True, slots=True)
class Rules:
    """An SLO in numbers; `objective` is None where there is none."""

    objective: float | None
    window_s: float = 30 * 24 * HOUR_S

    @classmethod
    def of(cls, probe: ProbeSpec) -> Rules:
        """What a suite promises."""
        if probe.slo is None:
            return cls(None)
        window_s = span_s(probe.slo.window)
        assert window_s is not None  # the suite was checked
        return cls(probe.slo.objective, window_s)


@dataclass(frozen=True, slots=True)
class Counts:
    """Turns as arrays, in order of time: when, requests, bad ones. Those that are unknown are left out."""

    at: Floats
    requests: Floats
    bad: Floats

    @classmethod
    def of(cls, turns: Sequence[Turn]) -> Counts:
        """Those of turns."""
        known = sorted((turn for turn in turns if turn.state != "unknown"), key=lambda turn: turn.slot)
        values = [(turn.slot, turn.requests, turn.requests - turn.good) for turn in known]
        table = np.array(values, np.float64).reshape(-1, 3)
        return cls(table[:, 0], table[:, 1], table[:, 2])

    def within(self, after: float, until: float) -> Counts:
        """Those of (after, until]."""
        kept = slice(*np.searchsorted(self.at, [after, until], "right"))
        return Counts(self.at[kept], self.requests[kept], self.bad[kept])

    def burn(self, objective: float) -> float | None:
        """The share of bad requests over the share that is allowed; None without requests."""
        total = float(self.requests.sum())
        return float(self.bad.sum()) / total / (1 - objective) if total else None

    def chance(self, objective: float) -> float:
        """The probability of so many bad turns where the objective is just met, at most.

        Requests of one turn fail together or apart, nobody knows: a turn in which all are bad has at most the
        probability 1 - objective, one in which any is bad at most so many times that. The smaller tail of the
        two counts, doubled.
        """
        allowed, n = 1 - objective, len(self.at)
        if n == 0:
            return 1.0
        all_bad = int((self.bad >= self.requests).sum())
        any_bad = int((self.bad > 0).sum())
        most = min(1.0, allowed * float(self.requests.max()))
        return min(1.0, 2 * min(binomial_tail(n, all_bad, allowed), binomial_tail(n, any_bad, most)))


def binomial_tail(n: int, least: int, p: float) -> float:
    """P(B >= least) of a binomial of n trials, by its terms outwards from `least`."""
    if least <= 0 or p >= 1:
        return 1.0
    if least > n or p <= 0:
        return 0.0
    above = least > n * p
    k = least if above else least - 1
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    term = total = math.exp(log + k * math.log(p) + (n - k) * math.log1p(-p))
    odds = p / (1 - p)
    while term > 1e-17 * total and (k < n if above else k > 0):
        term *= (n - k) / (k + 1) * odds if above else k / (n - k + 1) / odds
        k += 1 if above else -1
        total += term
    return min(1.0, total if above else 1.0 - total)


def level_of(rule: BurnRule, window_s: float, turns: int) -> float:
    """The probability below which a rule's long window of so many turns counts: the level shared by the
    rules, by the windows that do not overlap, and by the looks at overlapping ones, which are worth about
    the logarithm of their number."""
    apart = max(1.0, window_s / (rule.long_h * HOUR_S))
    return LEVEL / len(BURN_RULES) / apart / max(1.0, math.log(max(1, turns)))


def burns(counts: Counts, rule: BurnRule, rules: Rules, now: float) -> tuple[bool, str]:
    """Whether a rule's alarm is on at a moment, and what is seen."""
    assert rules.objective is not None
    long = counts.within(now - rule.long_h * HOUR_S, now)
    short = counts.within(now - max(rule.short_h * HOUR_S, _period(counts)), now)
    rate, soon = long.burn(rules.objective), short.burn(rules.objective)
    if rate is None or soon is None:
        return False, "no turns"
    bad, total = int(long.bad.sum()), int(long.requests.sum())
    said = f"{bad} of {total} requests bad in {_hours(rule.long_h)}: {rate:.3g} times the rate that lasts"
    on = min(rate, soon) >= rule.factor and bad >= LEAST_BAD
    level = level_of(rule, rules.window_s, len(long.at))
    return on and long.chance(rules.objective) <= level, said


def _period(counts: Counts) -> float:
    """The time between two turns: a window that is shorter holds none."""
    return float(np.median(np.diff(counts.at))) if len(counts.at) > 1 else 0.0


def _hours(hours: float) -> str:
    return f"{hours:g} h" if hours >= 1 else f"{hours * 60:g} min"


def burn_alarms(history: History, rules: Rules, now: float) -> list[Alarm]:
    """The alarms of each run at a moment: those of the SLO, or without one, that it is down."""
    alarms = []
    for run in history.runs:
        turns = history.of(run)
        if rules.objective is None:
            last = [turn for turn in turns if turn.state != "unknown"][-STILL_DOWN:]
            down = len(last) == STILL_DOWN and all(turn.state == "down" for turn in last)
            errors = ", ".join(last[-1].errors) if last else ""
            alarms.append(Alarm("down", run, down, f"{STILL_DOWN} turns in a row: {errors}"))
            continue
        counts = Counts.of(turns)
        for rule in BURN_RULES:
            on, said = burns(counts, rule, rules, now)
            alarms.append(Alarm(f"SLO {rule.name}", run, on, said))
    return alarms
