"""Latency, throughput, tokens, memory, processor time and cost of a run.

Latency is over the samples that were answered, sent by this run (not cached) and not part of the warm-up; a
sample with retries has the timing of the attempt that succeeded. Intervals treat requests as independent of
each other, which queueing makes only roughly true; where neighbours are alike a note says how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.catalogue import (
    CHUNK_GAPS,
    CLOSED_LOOP,
    LATENCIES,
    LOAD_P99,
    PERCENTILES,
    SCHEDULED,
    performance_info,
)
from evalrun.analysis.chunk_gaps import gap_distribution, gap_metrics, read_gaps
from evalrun.analysis.distributions import sorted_quantile
from evalrun.analysis.intervals import NO_DATA, mean_t, percentile, skewed
from evalrun.analysis.quality import metric
from evalrun.analysis.samples import SampleTable
from evalrun.analysis.stages import stage_times
from evalrun.analysis.throughput import Answers, Window, lag_one, over_time, steady_window, throughput_metrics
from evalrun.frozen import frozen
from evalrun.results import Estimate
from evalrun.types import JSON, MetricValue

if TYPE_CHECKING:
    from evalrun.runner.calibration import Calibration


Floats = NDArray[np.float64]

CDF_POINTS = 200
HISTOGRAM_BINS = 40
LAG_SHARE = 0.05
"""A client whose event loop lags by more than this share of the median latency is part of the latency."""

LEAST_LAG = 0.1
"""A lag-1 autocorrelation up to this is not mentioned."""

CLIENT_SHARE = 0.8
"""From this share of evalrun's own highest rate on, what is measured may be evalrun and not the server."""


@frozen
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
    load: Mapping[str, JSON] = field(default_factory=dict)
    """What a level of load came to, as the runner says it; empty for other runs."""
    since_s: float = 0.0
    """When the readings begin on the run's clock: later than 0 for a run that was taken up again."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds of the stages that are no part of a request: load, render, score, write."""
    beside: str = ""
    """A sentence where others evaluated on this machine or endpoint meanwhile."""


@frozen
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

    def excluded(self, *, warmup: bool = True) -> str:
        """What was left out, in words; empty where nothing was. `warmup`: whether warm-up answers were."""
        kinds = ((self.cached, "cached"), (self.warmup * warmup, "warm-up"), (self.failed, "failed"))
        parts = [f"{count} {what}" for count, what in kinds if count]
        return f"left out: {', '.join(parts)}" if parts else ""


def performance_metrics(
    table: SampleTable, system: SystemSummary, *, stream: bool, seed: int = 0
) -> tuple[list[MetricValue], dict[str, JSON]]:
    """All metrics of speed, memory and cost, and the details that the charts are drawn from."""
    timed = Timed.of(table)
    held_back = _joined(system.notes.get("performance.requests_per_s", ""), system.beside)
    throughput, throughput_details = _throughput(table, timed, held_back, system.load)
    limits = (_client_limited(table, timed, system), _near_limit(table, timed, system, throughput))
    lagging = "; ".join(limit for limit in limits if limit)
    with_others = _joined(lagging, system.beside)
    if system.load:
        latency, latency_details = _under_load(table, timed, system.load, with_others, seed)
    else:
        latency, latency_details = _latency(table, timed, stream=stream, note=with_others)
    if gaps := read_gaps(table, timed.rows) if stream else None:
        loop = "" if system.load.get("open_loop") else CLOSED_LOOP
        latency += gap_metrics(gaps, _joined(with_others, timed.excluded()), loop)
        latency_details[CHUNK_GAPS] = gap_distribution(gaps)
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
        "beside": system.beside,
        "stages": stage_times(table, system.stages, system.wall_s),
        "machine": {"unavailable": dict(system.unavailable), "gpus": [dict(gpu) for gpu in system.gpus]},
    }
    return metrics, details


def _throughput(
    table: SampleTable, timed: Timed, held_back: str, load: Mapping[str, JSON]
) -> tuple[list[MetricValue], dict[str, JSON]]:
    """Rates over the window in which as much was in flight as ever; warm-up answers are work of the server
    too, so their parts of the window are credited, but the window is that of the timed ones."""
    sent, done = table.number("sent_s"), table.number("done_s")
    within = table.answered & ~table.cached & ~np.isnan(sent) & ~np.isnan(done)
    counts = np.zeros(len(table), np.bool_)
    counts[timed.rows] = True
    window = steady_window(sent[within & counts], done[within & counts])
    if window is None:
        return [], {}
    if load.get("open_loop"):  # what was offered decides the window, and what drains after it is not in it
        from evalrun.analysis.load import window_of

        begin, end = window_of(load, table.number("scheduled_s"))
        ended = done[within & counts]
        window = Window(begin, end, True, "", window.peak_in_flight, (ended > begin) & (ended <= end))
    answers = Answers.of(
        sent[within], done[within], table.number("ttft_s")[within], table.number("completion_tokens")[within]
    )
    credited = answers
    if load.get("open_loop"):  # a queue that grows keeps answers under way that the server has not begun
        ended_s = answers.done_s
        credited = Answers(ended_s, ended_s, ended_s, answers.tokens)
    notes = _joined(held_back, timed.excluded(warmup=False))
    details = {"throughput_window": window.details(), "over_time": over_time(answers)}
    return throughput_metrics(window, credited, notes), details


def _client_limited(table: SampleTable, timed: Timed, system: SystemSummary) -> str:
    """A sentence where evalrun itself was slow enough to show in the latencies, else empty."""
    lag = system.loop_lag_p99_s
    if lag is None or len(timed.rows) == 0:
        return ""
    median = sorted_quantile(np.sort(table.number("e2e_s")[timed.rows]), 0.5)
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
    order = timed.rows[np.argsort(table.number("sent_s")[timed.rows], kind="stable")]
    for name in LATENCIES:
        values = table.number(name)[order]
        missing = ""
        if name == "tpot_s":
            values, missing = _paced(table, order, values)
        values = values[~np.isnan(values)]
        expected = bool(missing) or (left_out > 0 and (stream or name in ("e2e_s", "client_queue_s")))
        if len(values) == 0 and not expected:
            continue
        serial = _serial(values)
        values = np.sort(values)
        metrics += latency_metrics(name, values, _joined(note, serial, timed.excluded(), missing))
        if len(values):
            details[name] = distribution(values)
    return metrics, details


def _under_load(
    table: SampleTable, timed: Timed, load: Mapping[str, JSON], note: str, seed: int
) -> tuple[list[MetricValue], dict[str, JSON]]:
    """Latencies of a level, also from the schedule, with intervals that know that neighbours are related."""
    from evalrun.analysis.load import blocks_of

    scheduled, response = table.number("scheduled_s"), table.number("response_s")
    order = timed.rows[np.argsort(scheduled[timed.rows], kind="stable")]
    block = blocks_of(scheduled[order], response[order]) if len(order) else 20
    closed = "" if load.get("open_loop") else CLOSED_LOOP
    metrics: list[MetricValue] = []
    details: dict[str, JSON] = {}
    for name in (*LATENCIES, *SCHEDULED):
        values, missing = table.number(name)[order], ""
        if name == "tpot_s":
            values, missing = _paced(table, order, values)
        values = values[~np.isnan(values)]
        if len(values):
            said = _joined(note, timed.excluded(), missing)
            metrics += _related(name, values, block, (said, "" if name in SCHEDULED else closed), seed)
            details[name] = distribution(np.sort(values))
    return metrics, details


def _related(name: str, values: Floats, block: int, notes: tuple[str, str], seed: int) -> list[MetricValue]:
    """Mean, percentiles and greatest of a series in its order. `notes` are for all, and for percentiles."""
    from evalrun.analysis.load import LEAST_BLOCKS, block_intervals
    from evalrun.canonical import figure_seed

    n, base = len(values), f"performance.{name}"
    asked = {"p99": LOAD_P99}
    quantiles = {label: q for label, (q, _) in PERCENTILES.items()}
    found = block_intervals(values, block, list(quantiles.values()), figure_seed(seed, base))
    short = (
        ""
        if found
        else (
            f"no interval: {n} requests are fewer than {LEAST_BLOCKS} blocks of {block} neighbours that "
            "wait together"
        )
    )

    def estimate(key: float | None, value: float) -> Estimate:
        if found is None:
            return Estimate(value, n, note=short)
        se, low, high = found[key]
        return Estimate(value, n, se, low, high, "moving-blocks")

    metrics = [metric(performance_info(f"{base}.mean"), estimate(None, float(values.mean())), notes[0])]
    for label, q in quantiles.items():
        needed = asked.get(label, PERCENTILES[label][1])
        info = performance_info(f"{base}.{label}")
        if n < needed:
            few = Estimate(None, n, note=f"{label} needs {needed} timed answers, there are {n}")
            metrics.append(metric(info, few, notes[0]))
        else:
            metrics.append(metric(info, estimate(q, float(np.quantile(values, q))), _joined(*notes)))
    return [*metrics, metric(performance_info(f"{base}.max"), Estimate(float(values.max()), n), notes[0])]


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _paced(table: SampleTable, rows: NDArray[np.int64], tpot_s: Floats) -> tuple[Floats, str]:
    """Times per output token without those of answers that came at one moment, and how many are missing why.

    (Folders of earlier versions have 0 there.)
    """
    ttft_s, e2e_s, tokens = (table.number(name)[rows] for name in ("ttft_s", "e2e_s", "completion_tokens"))
    streamed = ~np.isnan(ttft_s)
    short = streamed & (tokens < 2)
    at_once = streamed & ~short & (ttft_s >= e2e_s)
    uncounted = streamed & ~short & ~at_once & np.isnan(tokens)
    reasons = (
        (at_once, "came in one chunk (no time per token can be seen)"),
        (short, "had fewer than two tokens"),
        (uncounted, "had no token count"),
    )
    said = [f"{int(rows.sum())} {why}" for rows, why in reasons if rows.any()]
    missing = f"missing: {', '.join(said)}" if said else ""
    return np.where(at_once, np.nan, tpot_s), missing


def _serial(values: Floats) -> str:
    """A sentence where neighbours, in the order of sending, are alike beyond chance, else empty."""
    lag = lag_one(values)
    if lag is None or lag <= max(LEAST_LAG, 2 / len(values) ** 0.5):
        return ""
    alone = max(1, round(len(values) * (1 - lag) / (1 + lag)))
    return (
        f"lag-1 autocorrelation {lag:.2f}: answers sent after one another are alike, so the interval is too "
        f"narrow ({len(values)} say as much as about {alone} independent ones)"
    )


def latency_metrics(name: str, ordered: Floats, note: str = "") -> list[MetricValue]:
    """Mean, percentiles and greatest of one latency, from sorted values in seconds.

    A percentile is shown only where n supports it (PERCENTILES), and says that the loop was closed.
    """
    n = len(ordered)
    base = f"performance.{name}"
    metrics = [
        metric(performance_info(f"{base}.mean"), mean_t(ordered, (0.0, None)), _joined(note, skewed(ordered)))
    ]
    for label, (q, needed) in PERCENTILES.items():
        info = performance_info(f"{base}.{label}")
        if n < needed:
            few = Estimate(None, n, note=f"{label} needs {needed} timed answers, there are {n}")
            metrics.append(metric(info, few, note))
        else:
            metrics.append(metric(info, percentile(ordered, q), _joined(note, CLOSED_LOOP)))
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
    if (unread := system.unavailable.get("energy.cpu_j")) and "energy.gpu_j" not in system.figures:
        metrics.append(metric(performance_info("energy.cpu_j"), Estimate(None, n, note=unread)))
    return metrics


def _energy_per_token(system: SystemSummary, table: SampleTable) -> dict[str, float]:
    """Over the tokens that were generated while the energy was measured; nothing where some are unknown."""
    made = ~table.cached & table.answered & (table.number("sent_s") >= system.since_s)
    tokens = table.number("completion_tokens")[made]
    if not tokens.sum() > 0:  # NaN where a count is unknown
        return {}
    return {
        f"{name}_per_output_token": system.figures[name] / float(tokens.sum())
        for name in ("energy.gpu_j", "energy.cpu_j")
        if name in system.figures
    }


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
