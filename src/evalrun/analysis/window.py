"""The steady window of a run, and what passed through it: the basis of throughput.

A closed loop keeps a number of requests in flight. While it fills at the beginning and drains at the end,
completions per second say more of the run's length than of the system. The steady window begins when the
requests in flight first reach their plateau and ends when they fall below it for the last time (the idea of
the ML.ENERGY benchmark, which waits until the first `concurrency` requests have answered). The plateau is
nine tenths of the greatest number in flight, so that a slot that is empty for a moment ends nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalrun.types import JSON

Floats = NDArray[np.float64]

PLATEAU = 0.9
LEAST_SHARE = 0.5
"""A window that sees fewer than this share of the completions is not used, nor one with fewer than LEAST."""
LEAST = 10
BINS = 60


@dataclass(frozen=True, slots=True)
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


def in_flight(sent_s: Floats, done_s: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Times at which the number of requests in flight changes, and the number from each time on.

    An answer that ends at the very moment another request is sent ends first.
    """
    times = np.concatenate([sent_s, done_s])
    steps = np.concatenate([np.ones(len(sent_s), np.int64), -np.ones(len(done_s), np.int64)])
    order = np.lexsort((steps, times))
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


def over_time(sent_s: Floats, done_s: Floats, tokens: Floats) -> dict[str, JSON]:
    """Requests and output tokens completed per second, and mean requests in flight, in at most BINS bins.

    `t_s` holds the edges of the bins (one more than there are values), from the first request sent.
    """
    if len(sent_s) == 0:
        return {"t_s": [], "requests_per_s": [], "output_tokens_per_s": [], "in_flight": []}
    begin, end = float(sent_s.min()), float(done_s.max())
    bins = int(min(BINS, max(1, len(sent_s) // 5)))
    edges = np.linspace(begin, max(end, begin + 1e-9), bins + 1)
    width = edges[1] - edges[0]
    completed, _ = np.histogram(done_s, edges)
    produced, _ = np.histogram(done_s, edges, weights=np.nan_to_num(tokens))
    # Seconds that requests were under way before each edge; differences give the mean number in flight.
    ends, starts = np.sort(done_s), np.sort(sent_s)
    busy = _time_before(starts, edges) - _time_before(ends, edges)
    return {
        "t_s": (edges - begin).tolist(),
        "requests_per_s": (completed / width).tolist(),
        "output_tokens_per_s": [] if np.isnan(tokens).all() else (produced / width).tolist(),
        "in_flight": (np.diff(busy) / width).tolist(),
    }


def _time_before(moments: Floats, edges: Floats) -> Floats:
    """For each edge, the sum of (edge - moment) over the sorted moments before it."""
    count = np.searchsorted(moments, edges)
    sums = np.concatenate([[0.0], np.cumsum(moments)])
    return np.asarray(count * edges - sums[count])
