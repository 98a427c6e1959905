"""What the turns of a probe come to: availability, outages, response times, score, budget.

Everything is computed here; the page, the terminal and `whatis` show it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evalrun.analysis.intervals import mean_t, wilson
from evalrun.gates.alarms import Episode
from evalrun.production.records import History, Missed, Turn
from evalrun.production.slo import BURN_RULES, HOUR_S, Counts, Floats, Rules
from evalrun.results import Estimate

STALE_PERIODS = 2.0
"""A probe whose newest turn is older than so many periods is dead."""
MOST_BUCKETS = 400
"""A page draws at most so many points a line."""


@dataclass(frozen=True, slots=True)
class Outage:
    """Turns in a row that were down. It took at least from the first bad to the last bad one, at most from
    the last good one before to the first good one after (None: it goes on, or nothing is known before)."""

    first: float
    last: float
    turns: int
    least_s: float
    most_s: float | None
    over: bool
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """Times of answered requests, in seconds."""

    n: int
    p50: float | None = None
    p95: float | None = None
    mean: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Those of values."""
        if not values:
            return cls(0)
        at50, at95 = np.quantile(np.asarray(values, np.float64), [0.5, 0.95])
        return cls(len(values), float(at50), float(at95), float(np.mean(values)))


@dataclass(frozen=True, slots=True)
class Budget:
    """An SLO as it stands: the share of its error budget that is left in the window, and the burn rates."""

    objective: float
    window_s: float
    good: Estimate
    left: float
    burn: dict[str, float | None]

    def sentence(self) -> str:
        """What is left of it, in words."""
        if self.left >= 0:
            return f"{self.left:.0%} of the error budget is left"
        return f"the error budget is spent {1 - self.left:.3g} times over"


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run of a probe over a span of time. `state` is that of its newest turn."""

    run: str
    state: str
    since: float
    until: float
    turns: int
    unknown: int
    availability: Estimate
    n_effective: float | None
    outages: tuple[Outage, ...]
    e2e_s: Spread
    ttft_s: Spread
    score: Estimate
    scorer: str
    errors: dict[str, int]
    tls_days: float | None
    address: str
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """A probe as a whole. `age_s` is how old its newest turn is, `stale` whether that is too old (or in the
    future: a clock was set), `ended` turns that were begun and have no record."""

    project: str
    runs: tuple[RunSummary, ...]
    missed: tuple[Missed, ...]
    ended: int
    every_s: float
    age_s: float | None
    stale: bool
    why_stale: str
    alerts: tuple[Episode, ...] = ()
    lines_lost: int = 0
    future: int = 0

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def summarise(
    project: str, history: History, rules: Rules, now: float, *, since: float = 0.0,
    alerts: Sequence[Episode] = (),
) -> Summary:  # fmt: skip
    """Sum up what is recorded from `since` to `now`. Turns of the future are counted, and left out."""
    every_s = next((turn.every_s for turn in reversed(history.turns)), 0.0)
    end = now + every_s
    shown = [turn for turn in history.turns if since <= turn.slot <= end]
    runs = [_run([turn for turn in shown if turn.run == run], rules, now) for run in history.runs]
    age = None if history.newest is None else now - history.newest
    stale = age is None or abs(age) > STALE_PERIODS * max(every_s, 1.0)
    done = {(turn.turn, turn.slot) for turn in history.turns}
    return Summary(
        project=project,
        runs=tuple(run for run in runs if run is not None),
        missed=tuple(gap for gap in history.missed if gap.last >= since),
        ended=sum(begun not in done for begun in history.begun if begun[1] >= since),
        every_s=every_s,
        age_s=age,
        stale=stale,
        why_stale=_why(age, every_s) if stale else "",
        alerts=tuple(alerts),
        lines_lost=history.lines_lost,
        future=sum(turn.slot > end for turn in history.turns),
    )


def _why(age: float | None, every_s: float) -> str:
    if age is None:
        return "no turn was ever taken"
    if age < 0:
        return f"the newest turn is {-age:,.0f} s in the future: a clock was set"
    return f"the newest turn is {age:,.0f} s old, and one is due every {every_s:,.0f} s"


def _run(turns: list[Turn], rules: Rules, now: float) -> RunSummary | None:
    """The summary of one run's turns in the order they were taken."""
    if not turns:
        return None
    known = [turn for turn in turns if turn.state != "unknown"]
    availability, effective = available(known)
    scores = [float(np.mean(turn.scores)) for turn in known if turn.scores]
    errors: dict[str, int] = {}
    for turn in known:
        for kind, count in turn.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    last = turns[-1]
    return RunSummary(
        run=last.run, state=last.state, since=min(turn.slot for turn in turns), until=last.slot,
        turns=len(turns), unknown=len(turns) - len(known), availability=availability,
        n_effective=effective, outages=outages(known),
        e2e_s=Spread.of([value for turn in known for value in turn.e2e_s]),
        ttft_s=Spread.of([value for turn in known for value in turn.ttft_s]),
        score=_mean(scores), scorer=last.scorer, errors=errors,
        tls_days=last.tls_days, address=last.address, budget=_budget(known, rules, now),
    )  # fmt: skip


def _mean(values: Sequence[float]) -> Estimate:
    """The mean, whose interval stays between 0 and 1 where all values do."""
    shares = all(0 <= value <= 1 for value in values)
    return mean_t(np.asarray(values, np.float64), (0.0, 1.0) if shares else (None, None))


def available(turns: Sequence[Turn]) -> tuple[Estimate, float | None]:
    """The share of requests that were answered, and how many independent requests that is worth.

    Failures come together: requests of one turn fail alike, and turns of one outage. The variance is that of
    sums over hours (a cluster each); Wilson's interval is taken with the n of independent requests that has
    the same variance (Korn and Graubard 1998), and at most the number of turns where nothing, or everything,
    failed.
    """
    counts = Counts.of(turns)
    ok = np.array([turn.ok for turn in sorted(turns, key=lambda turn: turn.slot)], np.float64)
    n = float(counts.requests.sum())
    if not n:
        return Estimate(None, 0, note="no turns"), None
    share = float(ok.sum()) / n
    effective = min(n, _effective(counts.at, counts.requests, ok, share))
    whole = wilson(share * effective, max(2, round(effective)))
    note = f"worth {effective:,.0f} independent requests of {n:,.0f}: failures come together"
    low = None if whole.low is None else min(share, whole.low)
    high = None if whole.high is None else max(share, whole.high)
    return Estimate(share, int(n), whole.se, low, high, "wilson, clustered by hour", note), effective


def _effective(at: Floats, requests: Floats, ok: Floats, share: float) -> float:
    """p (1 - p) over the variance of the share by hours."""
    hours, code = np.unique(np.floor(at / HOUR_S), return_inverse=True)
    if share in (0.0, 1.0) or len(hours) < 2:
        return float(len(at))
    sums = np.bincount(code, ok - share * requests)
    variance = float((sums**2).sum()) * len(hours) / (len(hours) - 1) / float(requests.sum()) ** 2
    return share * (1 - share) / variance if variance > 0 else float(len(at))


def outages(turns: Sequence[Turn]) -> tuple[Outage, ...]:
    """The outages of a run, the oldest first, with what is known of how long each took."""
    ordered = sorted(turns, key=lambda turn: turn.slot)
    told, at = [], 0
    while at < len(ordered):
        if ordered[at].state != "down":
            at += 1
            continue
        end = at
        while end + 1 < len(ordered) and ordered[end + 1].state == "down":
            end += 1
        bad = ordered[at : end + 1]
        before = ordered[at - 1].begun if at else None
        after = ordered[end + 1].begun if end + 1 < len(ordered) else None
        most = None if before is None or after is None else after - before
        kinds = tuple(dict.fromkeys(kind for turn in bad for kind in turn.errors))
        least = bad[-1].begun - bad[0].begun
        told.append(Outage(bad[0].begun, bad[-1].begun, len(bad), least, most, after is not None, kinds))
        at = end + 1
    return tuple(told)


def _budget(turns: Sequence[Turn], rules: Rules, now: float) -> Budget | None:
    if rules.objective is None:
        return None
    within = [turn for turn in turns if now - rules.window_s < turn.slot <= now + turn.every_s]
    counts = Counts.of(within)
    burned = counts.burn(rules.objective)
    good = wilson(float((counts.requests - counts.bad).sum()), int(counts.requests.sum()))
    rates = {
        rule.name: counts.within(now - rule.long_h * HOUR_S, now).burn(rules.objective) for rule in BURN_RULES
    }
    return Budget(rules.objective, rules.window_s, good, 1 - (burned or 0.0), rates)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Turns that are drawn as one: from `start` to `end` (Unix seconds)."""

    start: float
    end: float
    turns: int
    requests: int
    ok: int
    state: str
    p50: float | None
    p95: float | None
    score: float | None
    score_low: float | None
    score_high: float | None


def buckets(turns: Sequence[Turn], most: int = MOST_BUCKETS) -> list[Bucket]:
    """Turns for drawing: each alone, or those of a stretch of time together. A stretch is as bad as the worst
    of its turns."""
    known = sorted(turns, key=lambda turn: turn.slot)
    if not known:
        return []
    every = min((turn.every_s for turn in known if turn.every_s), default=60.0)
    wide = every * math.ceil((known[-1].slot - known[0].slot + every) / every / most)
    parts: dict[int, list[Turn]] = {}
    for turn in known:
        parts.setdefault(math.floor(turn.slot / wide), []).append(turn)
    return [_bucket(at * wide, (at + 1) * wide, part) for at, part in parts.items()]


_WORST = ("down", "degraded", "unknown", "up")


def _bucket(start: float, end: float, part: Sequence[Turn]) -> Bucket:
    times = Spread.of([value for turn in part for value in turn.e2e_s])
    values = [value for turn in part for value in turn.scores]
    score = _mean(values)
    if values and set(values) <= {0.0, 1.0}:
        score = wilson(sum(values), len(values))
    state = min((turn.state for turn in part), key=_WORST.index)
    return Bucket(
        start, end, len(part), sum(turn.requests for turn in part), sum(turn.ok for turn in part), state,
        times.p50, times.p95, score.value, score.low, score.high,
    )  # fmt: skip
