"""Requests and output tokens per second: what of the answers lies within a window of the run's clock.

An answer is credited by overlap and not at its end: with as many long answers in flight as the run has in
all, most of what a server writes within a window belongs to answers that end after it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.catalogue import performance_info
from evalrun.analysis.distributions import t_quantile
from evalrun.analysis.intervals import LEVEL
from evalrun.analysis.quality import metric
from evalrun.frozen import frozen
from evalrun.results import Estimate
from evalrun.types import JSON, MetricValue

Floats = NDArray[np.float64]

PLATEAU = 0.9
LEAST_SHARE = 0.5
"""A window that sees fewer than this share of the completions is not used, nor one with fewer than LEAST."""
LEAST = 10
BINS = 60

LEAST_BLOCKS = 6
"""With fewer blocks of time than this there is no interval: they say too little of how rates vary."""
MOST_BLOCKS = 30
_STEPS = 10
"""Blocks begin at so many places within the length of one."""


@frozen
class Window:
    """A span of the run's clock. `steady` is False where it is the whole span, and `why` says why.

    `completed` marks the requests whose answers ended within it: start < done <= end.
    """

    start_s: float
    end_s: float
    steady: bool
    why: str
    peak_in_flight: int
    completed: NDArray[np.bool_]

    @property
    def length_s(self) -> float:
        """Seconds from start to end."""
        return self.end_s - self.start_s

    def details(self) -> dict[str, JSON]:
        """The window for the report."""
        return {
            "start_s": self.start_s,
            "end_s": self.end_s,
            "steady": self.steady,
            "why": self.why,
            "completed": int(self.completed.sum()),
            "peak_in_flight": self.peak_in_flight,
        }


@frozen
class Answers:
    """When requests were sent and ended, when each began to write, and how many tokens it wrote (NaN where
    that is not known). All of shape (n,), times in seconds of the run's clock."""

    sent_s: Floats
    done_s: Floats
    first_s: Floats
    tokens: Floats

    @classmethod
    def of(cls, sent_s: Floats, done_s: Floats, ttft_s: Floats, tokens: Floats) -> Answers:
        """From the columns of samples. Where nothing was streamed, or all of an answer came at one moment,
        its tokens were written at some time between sent and end."""
        first = sent_s + ttft_s
        seen = first < done_s  # not where it is NaN
        return cls(sent_s, done_s, np.where(seen, first, sent_s), tokens)

    def requests_by(self, times: Floats) -> Floats:
        """Requests up to each time, those under way by the share of their time."""
        return credited(times, self.sent_s, self.done_s, np.ones(len(self.sent_s)))

    def tokens_by(self, times: Floats) -> Floats:
        """Known tokens up to each time, spread evenly from first token to end."""
        return credited(times, self.first_s, self.done_s, np.nan_to_num(self.tokens))

    def within(self, window: Window) -> NDArray[np.bool_]:
        """The answers of which a part lies within the window."""
        partly = (self.done_s > window.start_s) & (self.sent_s < window.end_s)
        at_the_end = (self.sent_s == self.done_s) & (self.done_s == window.end_s)
        return np.asarray(partly | at_the_end)


def credited(times: Floats, begin_s: Floats, end_s: Floats, amounts: Floats) -> Floats:
    """How much of the amounts, each spread evenly over its span (begin, end], lies at or before each time
    (sorted). A span is a slope that begins at one moment and is taken back at another, and of the moments
    between two times only sums are needed, so nothing is sorted."""
    long = end_s > begin_s
    rate = np.where(long, amounts, 0.0) / np.where(long, end_s - begin_s, 1.0)
    origin = float(times[0])
    total = _ramps(times - origin, begin_s - origin, rate) - _ramps(times - origin, end_s - origin, rate)
    if not long.all():  # spans without length: all at once
        bins = np.searchsorted(times, end_s[~long])
        total += np.cumsum(np.bincount(bins, weights=amounts[~long], minlength=len(times) + 1))[:-1]
    return np.asarray(total)


def _ramps(times: Floats, begin: Floats, rate: Floats) -> Floats:
    """At each time the sum of rate (time - begin) over what has begun."""
    step = (times[-1] - times[0]) / max(1, len(times) - 1)
    if step > 0 and np.allclose(np.diff(times), step):
        # As good as a search, and quicker: a slope that is one place off at an edge has not risen there.
        bins = np.clip(np.ceil((begin - times[0]) / step), 0, len(times)).astype(np.int64)
    else:
        bins = np.searchsorted(times, begin)
    slopes, moments = (
        np.cumsum(np.bincount(bins, weights=weights, minlength=len(times) + 1))[:-1]
        for weights in (rate, rate * begin)
    )
    return np.asarray(slopes * times - moments)


def in_flight(sent_s: Floats, done_s: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Times at which the number of requests in flight changes, and the number from each time on.

    An answer that ends at the very moment another request is sent ends first.
    """
    times = np.concatenate([done_s, sent_s])
    steps = np.concatenate([-np.ones(len(done_s), np.int64), np.ones(len(sent_s), np.int64)])
    order = np.argsort(times, kind="stable")
    return times[order], np.cumsum(steps[order])


def steady_window(sent_s: Floats, done_s: Floats) -> Window | None:
    """The window of requests with these times (seconds of the run's clock); None where there are none."""
    if len(sent_s) == 0:
        return None
    times, flying = in_flight(sent_s, done_s)
    peak = int(flying.max())
    if peak < 1:  # every answer ended at the moment its request was sent, by the clock that there is
        return _window(float(sent_s.min()), float(done_s.max()), done_s, False, "no answer took any time", 0)
    level = max(1, math.ceil(PLATEAU * peak))
    at_level = np.flatnonzero(flying >= level)
    first, last = at_level[0], min(at_level[-1] + 1, len(times) - 1)
    steady = _window(float(times[first]), float(times[last]), done_s, True, "", peak)
    completed = int(steady.completed.sum())
    if peak == 1 or (completed >= LEAST and completed >= LEAST_SHARE * len(done_s)):
        return steady
    why = f"only {completed} of {len(done_s)} answers ended while at least {level} requests were in flight"
    return _window(float(sent_s.min()), float(done_s.max()), done_s, False, why, peak)


def _window(start: float, end: float, done_s: Floats, steady: bool, why: str, peak: int) -> Window:
    return Window(start, end, steady, why, peak, (done_s > start) & (done_s <= end))


def over_time(answers: Answers) -> dict[str, JSON]:
    """Requests and output tokens per second, and mean requests in flight, in at most BINS bins.

    `t_s` holds the edges of the bins (one more than there are values), from the first request sent.
    """
    n = len(answers.sent_s)
    if n == 0:
        return {"t_s": [], "requests_per_s": [], "output_tokens_per_s": [], "in_flight": []}
    begin, end = float(answers.sent_s.min()), float(answers.done_s.max())
    edges = np.linspace(begin, max(end, begin + 1e-9), int(min(BINS, max(1, n // 5))) + 1)
    edges[-1] = max(edges[-1], end)
    busy = credited(edges, answers.sent_s, answers.done_s, answers.done_s - answers.sent_s)
    return {
        "t_s": (edges - begin).tolist(),
        "requests_per_s": _rates(answers.requests_by(edges), edges).tolist(),
        "output_tokens_per_s": []
        if np.isnan(answers.tokens).all()
        else _rates(answers.tokens_by(edges), edges).tolist(),
        "in_flight": _rates(busy, edges).tolist(),
    }


def _rates(sums: Floats, edges: Floats) -> Floats:
    sums = np.concatenate([[0.0], sums[1:]])  # what came at the first edge belongs to the first bin
    return np.asarray(np.diff(sums) / np.diff(edges))


def throughput_metrics(window: Window, answers: Answers, note: str = "") -> list[MetricValue]:
    """Requests and output tokens per second over a window; n is the number of answers with a part in it."""
    inside = answers.within(window)
    n = int(inside.sum())
    span = "" if window.steady else f"over the whole run: {window.why}"
    base = "; ".join(part for part in (span, note) if part)
    requests, tokens = (
        performance_info(f"performance.{what}_per_s") for what in ("requests", "output_tokens")
    )
    if window.length_s <= 0 or n == 0:
        short = Estimate(None, n, note="the run is too short to have a rate")
        return [metric(requests, short, base)]
    edges = _edges(window, (answers.done_s - answers.sent_s)[inside])
    metrics = [metric(requests, _rate(answers.requests_by(edges), edges, n), base)]
    known = int((~np.isnan(answers.tokens[inside])).sum())
    if known == n:
        metrics.append(metric(tokens, _rate(answers.tokens_by(edges), edges, n), base))
    elif known:
        unknown = Estimate(None, n, note=f"no token count for {n - known} of {n} answers")
        metrics.append(metric(tokens, unknown, base))
    return metrics


def _edges(window: Window, lasted_s: Floats) -> Floats:
    """The window in equal steps, _STEPS a block.

    An answer keeps its slot busy for all its time, so rates are alike over the time of the answers in flight,
    where long ones are met more often: sum of squares / sum. A block is twice as long as that.
    """
    answer_s = float(lasted_s @ lasted_s) / max(1e-300, float(lasted_s.sum()))
    blocks = int(min(MOST_BLOCKS, window.length_s // (2 * answer_s))) if answer_s > 0 else MOST_BLOCKS
    return np.linspace(window.start_s, window.end_s, max(1, blocks) * _STEPS + 1)


def _rate(sums: Floats, edges: Floats, n: int) -> Estimate:
    """The rate over all steps, with the standard error of a circular block bootstrap of time.

    Politis and Romano (1992): resample as many blocks as the window holds, each of _STEPS neighbouring steps
    that begin anywhere, the end joined to the beginning. The mean of such a resample has variance
    var(means of all blocks) / blocks, which needs no draws; B / (B - 1) and Student's t with B - 1 degrees of
    freedom make up for few blocks.
    """
    length = float(edges[-1] - edges[0])
    value = float(sums[-1] - sums[0]) / length
    blocks = (len(edges) - 1) // _STEPS
    if blocks < LEAST_BLOCKS:
        return Estimate(value, n, note="no interval: the window holds too few answers one after another")
    steps = np.diff(sums)
    around = np.concatenate([[0.0], np.cumsum(np.concatenate([steps, steps[: _STEPS - 1]]))])
    means = (around[_STEPS:] - around[:-_STEPS]) / (length / blocks)
    se = math.sqrt(float(means.var()) / (blocks - 1))
    if se <= 1e-9 * value:
        return Estimate(value, n, 0.0, note="every block of time has the same rate, so there is no interval")
    half = t_quantile(0.5 + LEVEL / 2, blocks - 1) * se
    return Estimate(value, n, se, max(0.0, value - half), value + half, "block-bootstrap")


def lag_one(values: Floats) -> float | None:
    """Correlation of neighbours in a series; None for fewer than ten values and for those that are equal."""
    if len(values) < 10:
        return None
    deviations = values - values.mean()
    # Sums and not products of vectors: those wake threads, which takes longer.
    squares = float((deviations * deviations).sum())
    if squares <= 1e-18 * len(values) * max(1e-300, float(values.mean()) ** 2):
        return None
    return float((deviations[1:] * deviations[:-1]).sum()) / squares
