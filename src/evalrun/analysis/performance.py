"""Latency, throughput, tokens, memory, processor time and cost of a run.

Latency is over the samples that were answered, sent by this run (not cached) and not part of the warm-up; a
sample with retries has the timing of the attempt that succeeded. Intervals treat requests as independent of
each other, which queueing makes only roughly true."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.catalogue import LATENCIES, PERCENTILES, performance_info
from evalrun.analysis.intervals import NO_DATA, mean_t, percentile
from evalrun.analysis.quality import metric
from evalrun.analysis.samples import SampleTable
from evalrun.results import Estimate
from evalrun.types import JSON, MetricValue

if TYPE_CHECKING:
    from evalrun.runner.calibration import Calibration


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


CDF_POINTS = 200
HISTOGRAM_BINS = 40
LAG_SHARE = 0.05
"""A client whose event loop lags by more than this share of the median latency is part of the latency."""

CLIENT_SHARE = 0.8
"""From this share of evalrun's own highest rate on, what is measured may be evalrun and not the server."""


@dataclass(frozen=True, slots=True)
class SystemSummary:
    """What was measured of the machine while a run ran.

    Peaks are bytes of proportional set size, the engine's over its whole process tree; None where they could
    not be measured. `unavailable` says why, keyed by the names of these fields.
    """

    engine_peak_bytes: int | None = None
    client_peak_bytes: int | None = None
    engine_cpu_s: float | None = None
    client_cpu_s: float | None = None
    wall_s: float | None = None
    loop_lag_p99_s: float | None = None
    unavailable: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    """Further readings by the name of their metric; `notes` what must be said beside them."""
    notes: Mapping[str, str] = field(default_factory=dict)
    gpus: Sequence[Mapping[str, JSON]] = ()
    client: Calibration | None = None
    """What evalrun itself reaches on this machine, where that was measured."""
    since_s: float = 0.0
    """When the readings begin on the run's clock: later than 0 for a run that was taken up again."""


@dataclass(frozen=True, slots=True)
class Timed:
    """The samples whose timing counts, and how many were left out for which reason."""

    rows: NDArray[np.int64]
    cached: int
    warmup: int
    failed: int

    @classmethod
    def of(cls, table: SampleTable) -> Timed:
        """Answered, sent by this run, not warm-up, with an end-to-end time."""
        failed = ~table.answered
        keep = ~failed & ~table.cached & ~table.warmup & ~np.isnan(table.number("e2e_s"))
        return cls(
            np.flatnonzero(keep),
            cached=int(table.cached.sum()),
            warmup=int((table.warmup & ~table.cached).sum()),
            failed=int((failed & ~table.cached & ~table.warmup).sum()),
        )

    def excluded(self) -> str:
        """What was left out, in words; empty where nothing was."""
        parts = [
            f"{count} {what}"
            for count, what in ((self.cached, "cached"), (self.warmup, "warm-up"), (self.failed, "failed"))
            if count
        ]
        return f"left out: {', '.join(parts)}" if parts else ""


def performance_metrics(
    table: SampleTable, system: SystemSummary, *, stream: bool
) -> tuple[list[MetricValue], dict[str, JSON]]:
    """All metrics of speed, memory and cost, and the details that the charts are drawn from."""
    timed = Timed.of(table)
    held_back = system.notes.get("performance.requests_per_s", "")
    throughput, throughput_details = _throughput(table, timed, held_back)
    limits = (_client_limited(table, timed, system), _near_limit(table, timed, system, throughput))
    lagging = "; ".join(limit for limit in limits if limit)
    latency, latency_details = _latency(table, timed, stream=stream, note=lagging)
    metrics = [*latency, *throughput, *_tokens(table), *_resources(system, table), *_cost(table)]
    details: dict[str, JSON] = {
        "latency": latency_details,
        **throughput_details,
        "timed": {
            "n": len(timed.rows),
            "cached": timed.cached,
            "warmup": timed.warmup,
            "failed": timed.failed,
        },
        "client_limited": lagging,
        "machine": {"unavailable": dict(system.unavailable), "gpus": [dict(gpu) for gpu in system.gpus]},
    }
    return metrics, details


def _client_limited(table: SampleTable, timed: Timed, system: SystemSummary) -> str:
    """A sentence where evalrun itself was slow enough to show in the latencies, else empty."""
    lag = system.loop_lag_p99_s
    if lag is None or len(timed.rows) == 0:
        return ""
    median = float(np.median(table.number("e2e_s")[timed.rows]))
    if lag <= LAG_SHARE * median:
        return ""
    return f"evalrun itself lagged (event loop p99 {lag * 1000:.3g} ms), so the latencies contain its delay"


def _near_limit(
    table: SampleTable, timed: Timed, system: SystemSummary, throughput: Sequence[MetricValue]
) -> str:
    """A sentence where requests came about as fast as evalrun can send them on this machine, else empty."""
    rates = [each.value for each in throughput if each.name == "performance.requests_per_s"]
    if system.client is None or not rates or rates[0] is None:
        return ""
    stream = bool((~np.isnan(table.number("ttft_s")[timed.rows])).any())
    tokens = table.number("completion_tokens")[timed.rows]
    chunks = 0.0 if np.isnan(tokens).all() else float(np.nanmean(tokens))  # mostly one chunk a token
    highest = system.client.highest_rate(stream, chunks)
    if rates[0] < CLIENT_SHARE * highest:
        return ""
    return (
        f"evalrun reached {rates[0]:.4g} requests/s of the {highest:.4g} that it can on this machine"
        " (evalrun calibrate), so the latencies may contain its delay"
    )


def _latency(
    table: SampleTable, timed: Timed, *, stream: bool, note: str
) -> tuple[list[MetricValue], dict[str, JSON]]:
    metrics: list[MetricValue] = []
    details: dict[str, JSON] = {}
    left_out = timed.cached + timed.warmup
    for name in LATENCIES:
        values = table.number(name)[timed.rows]
        values = np.sort(values[~np.isnan(values)])
        expected = left_out > 0 and (stream or name in ("e2e_s", "client_queue_s"))
        if len(values) == 0 and not expected:
            continue
        metrics += latency_metrics(name, values, "; ".join(part for part in (note, timed.excluded()) if part))
        if len(values):
            details[name] = distribution(values)
    return metrics, details


def latency_metrics(name: str, ordered: Floats, note: str = "") -> list[MetricValue]:
    """Mean, percentiles and greatest of one latency, from sorted values in seconds.

    A percentile is shown only where n supports it (PERCENTILES: the n at which MLPerf's early-stopping rule
    can first certify it with 99 % confidence).
    """
    n = len(ordered)
    base = f"performance.{name}"
    metrics = [metric(performance_info(f"{base}.mean"), mean_t(ordered, (0.0, None)), note)]
    for label, (q, needed) in PERCENTILES.items():
        info = performance_info(f"{base}.{label}")
        if n < needed:
            few = Estimate(None, n, note=f"{label} needs {needed} timed answers, there are {n}")
            metrics.append(metric(info, few, note))
        else:
            metrics.append(metric(info, percentile(ordered, q), note))
    greatest = Estimate(float(ordered[-1]), n) if n else NO_DATA
    return [*metrics, metric(performance_info(f"{base}.max"), greatest, note)]


def distribution(ordered: Floats) -> dict[str, JSON]:
    """Points of the distribution function (at most CDF_POINTS) and a histogram, from sorted values."""
    n = len(ordered)
    ranks = np.linspace(0, n - 1, min(n, CDF_POINTS)).round().astype(np.int64)
    bins = int(min(HISTOGRAM_BINS, max(5, round(n**0.5))))
    counts, edges = np.histogram(ordered, bins)
    return {
        "n": n,
        "cdf": {"x": ordered[ranks].tolist(), "p": ((ranks + 1) / n).tolist()},
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _throughput(
    table: SampleTable, timed: Timed, held_back: str
) -> tuple[list[MetricValue], dict[str, JSON]]:
    rows = timed.rows
    sent, done = table.number("sent_s")[rows], table.number("done_s")[rows]
    known = ~np.isnan(sent) & ~np.isnan(done)
    sent, done, tokens = sent[known], done[known], table.number("completion_tokens")[rows][known]
    window = steady_window(sent, done)
    if window is None:
        return [], {}
    notes = "; ".join(part for part in (held_back, timed.excluded()) if part)
    metrics = throughput_metrics(window, tokens, notes)
    return metrics, {"throughput_window": window.details(), "over_time": over_time(sent, done, tokens)}


def throughput_metrics(window: Window, tokens: Floats, note: str = "") -> list[MetricValue]:
    """Requests and output tokens per second over a window; `tokens` is one a request, NaN if unknown."""
    inside = window.completed
    n = int(inside.sum())
    span = "" if window.steady else f"over the whole run: {window.why}"
    base = "; ".join(part for part in (span, note) if part)
    if window.length_s <= 0 or n == 0:
        short = Estimate(None, n, note="the run is too short to have a rate")
        return [metric(performance_info("performance.requests_per_s"), short, base)]
    rate = Estimate(n / window.length_s, n)
    metrics = [metric(performance_info("performance.requests_per_s"), rate, base)]
    counted = tokens[inside]
    known = counted[~np.isnan(counted)]
    if len(known) == len(counted):
        produced = Estimate(float(known.sum()) / window.length_s, n)
        metrics.append(metric(performance_info("performance.output_tokens_per_s"), produced, base))
    elif len(known):
        unknown = Estimate(None, n, note=f"no token count for {n - len(known)} of {n} answers")
        metrics.append(metric(performance_info("performance.output_tokens_per_s"), unknown, base))
    return metrics


def _tokens(table: SampleTable) -> list[MetricValue]:
    """Mean tokens a sample, over all answered samples, cached ones too: they keep their tokens."""
    metrics = []
    for name in ("prompt_tokens", "completion_tokens"):
        values = table.number(name)[table.answered]
        values = values[~np.isnan(values)]
        if len(values):
            info = performance_info(f"performance.{name}.mean")
            metrics.append(metric(info, mean_t(values, (0.0, None))))
    return metrics


_RESOURCES: Sequence[tuple[str, str]] = (
    ("memory.engine_peak_bytes", "engine_peak_bytes"),
    ("memory.client_peak_bytes", "client_peak_bytes"),
    ("cpu.engine_s", "engine_cpu_s"),
    ("cpu.client_s", "client_cpu_s"),
    ("performance.client_lag_s.p99", "loop_lag_p99_s"),
)


def _resources(system: SystemSummary, table: SampleTable) -> list[MetricValue]:
    """One reading each; n is the number of samples it was taken over."""
    metrics, n = [], len(table)
    for name, attribute in _RESOURCES:
        value = getattr(system, attribute)
        why = system.unavailable.get(attribute, "") or system.unavailable.get(name, "")
        if value is not None or why:
            estimate = Estimate(
                None if value is None else float(value), n, note="" if value is not None else why
            )
            metrics.append(metric(performance_info(name), estimate))
    for name, reading in {**system.figures, **_energy_per_token(system, table)}.items():
        estimate = Estimate(float(reading), n)
        metrics.append(metric(performance_info(name), estimate, system.notes.get(name, "")))
    return metrics


def _energy_per_token(system: SystemSummary, table: SampleTable) -> dict[str, float]:
    """Over the tokens that were generated while the energy was measured; nothing where some are unknown."""
    energy_j = system.figures.get("energy.gpu_j")
    made = ~table.cached & table.answered & (table.number("sent_s") >= system.since_s)
    tokens = table.number("completion_tokens")[made]
    if energy_j is None or not tokens.sum() > 0:  # NaN where a count is unknown
        return {}
    return {"energy.gpu_j_per_output_token": energy_j / float(tokens.sum())}


def _cost(table: SampleTable) -> list[MetricValue]:
    """Sum of what the answers of this run cost; nothing where no price is known."""
    costs = table.number("cost_usd")
    known = ~np.isnan(costs) & ~table.cached
    priced = int(known.sum())
    if priced == 0:
        return []
    unknown = int((~known & ~table.cached & table.answered).sum())
    note = f"left out: {unknown} answered at a price that is not known" if unknown else ""
    return [metric(performance_info("cost.usd"), Estimate(float(costs[known].sum()), priced), note)]
