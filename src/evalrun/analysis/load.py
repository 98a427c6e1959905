"""A level of load: what was offered, what was kept of the promise, whether the server kept up.

Times are from the moment for which a request was scheduled (s) to its end (l): in open loop that is when it
was due, in closed loop when a place was free. All requests count that were scheduled in the window, which
begins after the warm-up; they were followed to their end, wherever that lies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.catalogue import performance_info
from evalrun.analysis.intervals import wilson
from evalrun.analysis.quality import metric
from evalrun.analysis.samples import SampleTable
from evalrun.analysis.steady import Steadiness, steadiness
from evalrun.analysis.throughput import credited
from evalrun.results import Backlog, Estimate, RunLoad, ScoreInTime
from evalrun.suite.levels import Bound, LoadSpec, right_of
from evalrun.types import JSON, MetricValue

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

RIGHT = 0.5
"""A score from which on an answer is right, where the suite does not say."""
BLOCK = 30
"""Neighbours that are taken together to see whether they are alike."""
LATE_SHARE = 0.01
"""A client that is late by more than this share of the 99th percentile of the response time limits the
level."""
LITTLE = 0.05
BINS = 60
MANY_HITS = 0.5
"""From this share of cached prompt tokens on a level says so, also where levels are kept apart."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What was promised (empty: to answer at all), and which score makes an answer right."""

    slo: tuple[Bound, ...]
    right: Bound | None

    @classmethod
    def of(cls, load: LoadSpec, first_scorer: str, *, open_loop: bool) -> Promise:
        """What a suite says of its levels."""
        right = right_of(load.right) if load.right is not None else Bound(first_scorer, ">=", RIGHT)
        return cls(load.objectives(open_loop=open_loop), right)

    def kept(self, table: SampleTable) -> Mask:
        """The requests that ended well and within all objectives. What an answer has no such time for (time
        per token, of one token) it is judged without."""
        kept = table.answered & ~table.cached
        for bound in self.slo:
            values = table.number(bound.of)
            kept &= np.isnan(values) | holding(bound, values)
        return kept

    def is_right(self, table: SampleTable) -> Mask | None:
        """The answers that are right; None where there is no such score."""
        if self.right is None or self.right.of not in table.scores:
            return None
        return holding(self.right, table.scores[self.right.of])


def holding(bound: Bound, values: Floats) -> Mask:
    """Where values satisfy a bound; NaN satisfies none."""
    compare = {"<=": np.less_equal, "<": np.less, ">=": np.greater_equal, ">": np.greater}[bound.op]
    # The last digit of a difference of two clock readings decides nothing.
    near = np.isclose(values, bound.bound, rtol=1e-9, atol=0.0)
    return np.asarray(compare(values, bound.bound) | (near & (bound.op in ("<=", ">="))))


@dataclass(frozen=True, slots=True)
class _Span:
    """The window: requests that were scheduled in it, its ends, and whether the loop was open."""

    rows: NDArray[np.int64]
    start_s: float
    end_s: float
    open_loop: bool

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s


def window_of(facts: Mapping[str, JSON], scheduled_s: Floats) -> tuple[float, float]:
    """The ends of a level's window on the run's clock."""
    start = float(facts.get("start_s") or 0.0)
    end = facts.get("end_s")
    if end is not None:
        return start, float(end)
    known = scheduled_s[~np.isnan(scheduled_s)]
    rate = facts.get("rate")
    # A renewal process has its n arrivals in the time up to the one after the last.
    return start, float(known.max()) + (1 / rate if rate else 0.0) if len(known) else start


def load_metrics(
    table: SampleTable, facts: Mapping[str, JSON], promise: Promise, requests_per_s: float | None, seed: int
) -> tuple[list[MetricValue], dict[str, JSON], list[str]]:
    """The metrics of a level, its details (`RunLoad`) and what must be said beside its figures.

    `facts` are the runner's; `requests_per_s` is the rate of answers in a closed loop.
    """
    scheduled = table.number("scheduled_s")
    start, end = window_of(facts, scheduled)
    rows = np.flatnonzero(~np.isnan(scheduled) & ~table.warmup)
    rows = rows[np.argsort(scheduled[rows], kind="stable")]
    span = _Span(rows, start, end, bool(facts.get("open_loop")))
    kept, right = promise.kept(table)[rows], promise.is_right(table)
    metrics = [*_offered(span), *_certified(table.number("response_s")[rows])]
    metrics += _promised(table, span, promise, kept, right, requests_per_s)
    verdict = _steadiness(table, span, facts.get("concurrency"), seed)
    late = table.number("client_queue_s")[rows]
    late = late[~np.isnan(late)]
    response = table.number("response_s")[rows]
    response = response[~np.isnan(response)]
    said = _banners(facts, verdict.word, late, response, span, table)
    details = RunLoad(
        words=str(facts.get("words") or ""),
        level=facts.get("level"),
        role=str(facts.get("role") or "level"),
        open_loop=span.open_loop,
        concurrency=facts.get("concurrency"),
        rate=facts.get("rate"),
        arrivals=str(facts.get("arrivals") or ""),
        start_s=start,
        end_s=end,
        requests=len(rows),
        kept=int(kept.sum()),
        slo=tuple(map(str, promise.slo)),
        right="" if promise.right is None or right is None else str(promise.right),
        verdict=verdict.word,
        why=verdict.why,
        growth_s=verdict.growth_s,
        lateness_p50_s=_quantile(late, 0.5),
        lateness_p99_s=_quantile(late, 0.99),
        capped=int(facts.get("capped") or 0),
        prefix_cache=_prefix(table, facts),
        backlog=_backlog(table),
        banners=tuple(said),
        in_time=_score_of(table, promise, rows[kept]),
        late=_score_of(table, promise, rows[~kept & table.answered[rows]]) if promise.slo else None,
    )
    return metrics, asdict(details), said


def _score_of(table: SampleTable, promise: Promise, rows: NDArray[np.int64]) -> ScoreInTime | None:
    """The mean score of some answers, and how long they are."""
    if promise.right is None or promise.right.of not in table.scores:
        return None
    scores = table.scores[promise.right.of][rows]
    tokens = table.number("completion_tokens")[rows][~np.isnan(scores)]
    known = scores[~np.isnan(scores)]
    if not len(known):
        return None
    longest = None if np.isnan(tokens).all() else float(np.nanmean(tokens))
    return ScoreInTime(len(known), float(known.mean()), longest)


def _quantile(values: Floats, q: float) -> float | None:
    return float(np.quantile(values, q)) if len(values) else None


def certified_rank(n: int, share: float = 0.01, alpha: float = 0.01) -> int:
    """The greatest t with P(B <= t) <= alpha for a binomial B of n and `share`, 0 where there is none: the
    t-th highest of n values bounds their (1 - share)-quantile (MLPerf's early stopping)."""
    t, total, log_weight = -1, 0.0, n * math.log1p(-share)  # in logarithms: the first is 0 for a large n
    while total + math.exp(log_weight) <= alpha and t < n:
        total, t = total + math.exp(log_weight), t + 1
        if t < n:
            log_weight += math.log((n - t) / (t + 1) * share / (1 - share))
    return max(t, 0)


def _certified(response: Floats) -> list[MetricValue]:
    known = np.sort(response[~np.isnan(response)])
    # A request without an answer took longer than any that has one.
    unanswered = len(response) - len(known)
    made = []
    for name, share in (("p90", 0.1), ("p99", 0.01)):
        rank = certified_rank(len(response), share) - unanswered
        if rank >= 1:
            info = performance_info(f"performance.response_s.{name}_certified")
            made.append(metric(info, Estimate(float(known[-rank]), len(response))))
    return made


def _offered(span: _Span) -> list[MetricValue]:
    n = len(span.rows)
    if not span.open_loop:
        return []
    info = performance_info("performance.offered_rps")
    if span.length_s <= 0 or n < 2:
        return [metric(info, Estimate(None, n, note="the level is too short to have a rate"))]
    return [metric(info, Estimate(n / span.length_s, n))]


def _promised(
    table: SampleTable,
    span: _Span,
    promise: Promise,
    kept: Mask,
    right: Mask | None,
    requests_per_s: float | None,
) -> list[MetricValue]:
    """Attainment and goodput. A rate is the share times the requests scheduled a second (in closed loop,
    times
    the answers a second over those that were answered)."""
    n = len(span.rows)
    share = wilson(float(kept.sum()), n)
    notes = [_alike(kept), "" if promise.slo else "no objectives: to be answered is to be kept"]
    metrics = [metric(performance_info("performance.attainment"), share, "; ".join(filter(None, notes)))]
    if span.open_loop:
        scale = n / span.length_s if span.length_s > 0 else None
    else:
        answered = int(table.answered[span.rows].sum())
        scale = None if not requests_per_s or not answered else requests_per_s * n / answered
    metrics.append(metric(performance_info("performance.goodput_rps"), _times(share, scale), _alike(kept)))
    if right is None:
        return metrics
    both = kept & right[span.rows]
    info = performance_info("performance.goodput_right_rps")
    metrics.append(metric(info, _times(wilson(float(both.sum()), n), scale), _alike(both)))
    tokens = table.number("completion_tokens")[span.rows]
    if scale is not None and n and not np.isnan(tokens[both]).any():
        info = performance_info("performance.right_tokens_per_s")
        metrics.append(metric(info, Estimate(float(tokens[both].sum()) / n * scale, n)))
    return metrics


def _times(share: Estimate, scale: float | None) -> Estimate:
    if scale is None or share.value is None:
        return Estimate(None, share.n, note="the level is too short to have a rate")
    se, low, high = (None if end is None else end * scale for end in (share.se, share.low, share.high))
    return Estimate(share.value * scale, share.n, se, low, high, share.method)


def _alike(hits: Mask) -> str:
    """A note where neighbours end alike: the variance of means of BLOCK neighbours over that of independent
    requests."""
    blocks = len(hits) // BLOCK
    p = float(hits.mean()) if len(hits) else 0.0
    if blocks < 5 or not 0 < p < 1:
        return ""
    means = hits[: blocks * BLOCK].reshape(blocks, BLOCK).mean(axis=1)
    effect = float(means.var(ddof=1)) / (p * (1 - p) / BLOCK)
    if effect <= 1 + 2 * math.sqrt(2 / (blocks - 1)):
        return ""
    alike = f"design effect {effect:.2g} by blocks of {BLOCK}: neighbours end alike"
    return f"{alike}, so the interval is too narrow"


def _steadiness(table: SampleTable, span: _Span, in_flight: object, seed: int) -> Steadiness:
    """The verdict on a level. In closed loop the first requests, as many as are in flight, find an idle
    server, and no queue can grow: answers that take longer and longer leave it undecided."""
    if span.open_loop:
        return steadiness(*_responses(table, span.rows), seed)
    first = in_flight if isinstance(in_flight, int) else 0
    found = steadiness(*_responses(table, span.rows[first:]), seed)
    if found.word != "growing":
        return found
    why = f"answers took {found.growth_s or 0:.3g} s longer at the end, though no more were in flight"
    return replace(found, word="undecided", why=why)


def _responses(table: SampleTable, rows: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Scheduled, response time and end of the requests that say how long one waits: those that were answered,
    and those that were given up after at least as long."""
    scheduled, done = table.number("scheduled_s")[rows], table.number("done_s")[rows]
    response, answered = done - scheduled, table.answered[rows]
    middle = float(np.median(response[answered])) if answered.any() else 0.0
    use = ~np.isnan(response) & (answered | (response >= middle))
    return scheduled[use], response[use], done[use]


def _banners(
    facts: Mapping[str, JSON], verdict: str, late: Floats, response: Floats, span: _Span, table: SampleTable
) -> list[str]:
    """What must be said beside every figure of the level."""
    said, n = [], len(span.rows)
    capped = int(facts.get("capped") or 0)
    if capped:
        said.append(
            f"limited by max_in_flight ({facts.get('max_in_flight')}): {capped} of {n} requests were sent"
            " late for it, so the loop was not open"
        )
    elif span.open_loop and len(late) and len(response):
        worst, whole = float(np.quantile(late, 0.99)), float(np.quantile(response, 0.99))
        if worst > LATE_SHARE * whole:
            said.append(
                f"client-limited: evalrun sent up to {worst * 1000:.3g} ms late (p99), which is part of"
                f" response times of {whole * 1000:.4g} ms (p99)"
            )
    if verdict == "growing":
        said.append("over capacity: the queue grows, so percentiles are those of a level this long")
    elif span.open_loop and (little := _little(table, span)):
        said.append(little)
    if facts.get("retry_after"):
        said.append(f"the server asked {facts['retry_after']} times to come back later, and was not obeyed")
    return said


def _little(table: SampleTable, span: _Span) -> str:
    """Little's law over the window: mean in flight is arrivals a second times mean response time."""
    scheduled, done = table.number("scheduled_s"), table.number("done_s")
    known = ~np.isnan(scheduled) & ~np.isnan(done)
    if span.length_s <= 0 or len(span.rows) < 100:
        return ""
    edges = np.array([span.start_s, span.end_s])
    busy = credited(edges, scheduled[known], done[known], (done - scheduled)[known])
    inside = (busy[1] - busy[0]) / span.length_s
    response = (done - scheduled)[span.rows]
    expected = len(span.rows) / span.length_s * float(np.nanmean(response))
    if expected <= 0 or abs(inside - expected) < LITTLE * max(expected, 1.0):
        return ""
    return (
        f"{inside:.3g} requests were in flight on average, and by Little's law {expected:.3g}: the window "
        "holds a time that was not steady"
    )


def _prefix(table: SampleTable, facts: Mapping[str, JSON]) -> dict[str, JSON]:
    """How levels were kept apart, and what share of the prompts' tokens the server had in its cache."""
    found = table.number("cached_prompt_tokens")
    known = ~np.isnan(found) & ~np.isnan(table.number("prompt_tokens"))
    said = facts.get("prefix_cache")
    whole = float(table.number("prompt_tokens")[known].sum())
    rate = float(found[known].sum()) / whole if whole > 0 else None
    return {**(said if isinstance(said, Mapping) else {}), "hit_rate": rate}


def prefix_warning(prefix: Mapping[str, JSON]) -> str:
    """A sentence where one level may have found another's prompts in the server's cache, else empty."""
    rate = prefix.get("hit_rate")
    if prefix.get("by"):
        if rate is None or rate < MANY_HITS:
            return ""
        return (
            f"{rate:.0%} of this level's prompt tokens came from the server's prefix cache, though levels are"
            f" kept apart by {prefix['by']}: prompts share that much, or the server passes over it"
        )
    share = "what share is not known" if rate is None else f"{rate:.0%} of this level's prompt tokens"
    kept = prefix.get("mode") == "keep"
    why = "prefix_cache: keep" if kept else "no way is known to keep levels apart on this server"
    return f"{why}: prompts may have come from the server's prefix cache ({share}), which makes levels faster"


def _backlog(table: SampleTable) -> Backlog:
    """Requests that were due and not ended, averaged over at most BINS bins of the run's time."""
    scheduled, done = table.number("scheduled_s"), table.number("done_s")
    known = ~np.isnan(scheduled) & ~np.isnan(done)
    if not known.any():
        return Backlog()
    scheduled, done = scheduled[known], done[known]
    begin, end = float(scheduled.min()), float(done.max())
    edges = np.linspace(begin, max(end, begin + 1e-9), int(min(BINS, max(1, len(scheduled) // 5))) + 1)
    busy = credited(edges, scheduled, done, done - scheduled)
    return Backlog(tuple((edges - begin).tolist()), tuple((np.diff(busy) / np.diff(edges)).tolist()))


def blocks_of(scheduled_s: Floats, response_s: Floats) -> int:
    """How many neighbours a block holds: those that arrive in twice the longest response time, at least
    20."""
    n = len(scheduled_s)
    length = float(scheduled_s.max() - scheduled_s.min()) if n else 0.0
    if length <= 0:
        return max(20, n)
    return max(20, math.ceil(2 * float(response_s.max()) * n / length))


RESAMPLES, _DRAWN = 2_000, 2_000_000
LEAST_BLOCKS = 5


def block_intervals(
    values: Floats, block: int, quantiles: Sequence[float], seed: int
) -> dict[float | None, tuple[float, float, float]] | None:
    """Standard error and interval of the mean (key None) and of quantiles of a series in its order, by the
    moving-block bootstrap (Künsch 1989): as many blocks of neighbours as the series holds are drawn, so that
    a resample is as related as the series is. Ends are widened as Student's t is wider than the normal
    distribution, for so few blocks. None for fewer than LEAST_BLOCKS of them.
    """
    from evalrun.analysis.distributions import normal_quantile, t_quantile

    n = len(values)
    count = n // block if block else 0
    if count < LEAST_BLOCKS:
        return None
    resamples = max(300, min(RESAMPLES, _DRAWN // n))
    draws = np.random.default_rng(seed)
    starts = draws.integers(0, n - block + 1, (resamples, count))
    figures: list[Floats] = []
    steps = np.arange(block)
    at = max(1, 4_000_000 // (count * block))
    for first in range(0, resamples, at):
        chosen = values[(starts[first : first + at, :, None] + steps).reshape(-1, count * block)]
        rows = [chosen.mean(axis=1), *np.quantile(chosen, list(quantiles), axis=1)]
        figures.append(np.stack(rows))
    whole = np.concatenate(figures, axis=1)
    wider = t_quantile(0.975, count - 1) / normal_quantile(0.975)
    found: dict[float | None, tuple[float, float, float]] = {}
    for key, drawn in zip((None, *quantiles), whole, strict=True):
        value = float(values.mean()) if key is None else float(np.quantile(values, key))
        low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
        ends = (value + (min(low, value) - value) * wider, value + (max(high, value) - value) * wider)
        found[key] = (float(drawn.std(ddof=1)), max(0.0, ends[0]), ends[1])
    return found
