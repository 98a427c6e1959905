"""What every metric of speed, memory and cost means: one sentence or more, with formula, unit, direction.

Times of one request: a sent (after any wait in evalrun), f first content chunk, l last content chunk; n is
its number of output tokens. All times are read from one monotonic clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from evalrun.frozen import frozen
from evalrun.scoring.info import MetricInfo, fraction
from evalrun.types import Direction, Status

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from evalrun.analysis.samples import SampleTable


@frozen
class Rate:
    """The share of samples that ended in one way, among all or among those that were answered."""

    info: MetricInfo
    status: Status
    of_answered: bool

    def hits(self, table: SampleTable) -> NDArray[np.bool_]:
        """The samples that ended so."""
        return table.is_status(self.status)

    def within(self, table: SampleTable) -> NDArray[np.bool_]:
        """The samples that the share is of."""
        return table.answered if self.of_answered else table.answered | table.is_status(Status.FAILED)


RATES = (
    Rate(
        fraction(
            "error_rate",
            "Share of all samples that failed: the model gave no answer (timeout, HTTP error, crash). Failed "
            "samples are left out of every score.",
            "lower",
        ),
        Status.FAILED,
        of_answered=False,
    ),
    Rate(
        fraction(
            "unparsed_rate",
            "Share of the answered samples whose answer no parser could read. Scores of correctness count "
            "them as 0, unless the suite says `unparsed: exclude`.",
            "lower",
        ),
        Status.UNPARSED,
        of_answered=True,
    ),
    Rate(
        fraction(
            "refused_rate",
            "Share of the answered samples that the model, or a filter before it, declined to answer. Scores "
            "of correctness count them as 0, unless the suite says `unparsed: exclude`.",
            "lower",
        ),
        Status.REFUSED,
        of_answered=True,
    ),
)


FINDINGS = MetricInfo(
    "privacy.findings",
    "findings",
    "lower",
    "Personal data and secrets that the recognisers of the suite's `privacy` section (the standard ones "
    "where it has none) find in the run's samples, and in what its judges said, as they are stored. It is "
    "counted where a gate speaks of it; addresses of this machine itself do not count.",
    (0.0, None),
)
"""What `evalrun privacy scan` finds in a run, as a metric."""


def gap_info(column: str, of: MetricInfo) -> MetricInfo:
    """What the gap of a metric between the groups of a column means."""
    return MetricInfo(
        f"fairness.{column}.{of.name}.gap",
        of.unit,
        "lower",
        f"Greatest minus least value of {of.name} among the groups of {column} that are large enough "
        "(fairness.min_group); samples without a group are left out. Such a gap is above zero by chance "
        "alone, so its note gives the 95th percentile of the gap under shuffled group labels, and p, the "
        "share of shuffles with a gap at least as large.",
        (0.0, None),
    )


_OF_K: Mapping[str, str] = {
    "pass_at": "The chance that at least one of {k} answers to a sample is right: mean over samples of "
    "1 - C(a - c, {k}) / C(a, {k}), for a answers of which c have {of} = 1 (Chen et al. 2021, arXiv "
    "2107.03374); unbiased. pass@1 is {of} itself. Samples with fewer than {k} answers are left out.",
    "pass_hat": "The chance that {k} answers to a sample are all right: mean over samples of C(c, {k}) / "
    "C(a, {k}), for a answers of which c have {of} = 1 (Yao et al. 2024, arXiv 2406.12045); unbiased. "
    "Samples with fewer than {k} answers are left out.",
}

_OF_SCORES: Mapping[str, str] = {
    "majority": "{of} of the most frequent answer to each sample, averaged over samples. Of answers that are "
    "equally frequent the mean is taken, which is what a fair draw among them would score. An answer that "
    "could not be read is no vote; a sample without any has the mean of its scores.",
    "variance_within": "Variance of {of} over the answers to one and the same sample, pooled over samples: "
    "what is chance. More repeats reduce its part of the standard error.",
    "variance_between": "Variance of {of} between the samples' true means (one-way analysis of variance): "
    "what makes samples differ. Only more samples reduce its part of the standard error.",
}

_CONSISTENCY = (
    "The chance that two answers to the same sample are equal, as the parsers left them: mean over samples "
    "of the share of pairs that are. An answer that could not be read equals none. Free text differs almost "
    "always: parse it first."
)

_FIGURE = re.compile(r"(pass_at|pass_hat)_([1-9][0-9]*)")

OF_SCORES = (*_OF_SCORES,)
OF_K = (*_OF_K,)


def consistency_info() -> MetricInfo:
    """How often answers to one sample agree."""
    return fraction("repeats.consistency", _CONSISTENCY)


def repeat_info(figure: str, of: MetricInfo) -> MetricInfo:
    """What a figure ("pass_at_5", "majority", …) of the repeats of a metric means."""
    name = f"repeats.{of.name}.{figure}"
    found = _FIGURE.fullmatch(figure)
    if found is not None or figure.endswith("_k"):
        kind, k = found.groups() if found is not None else (figure.removesuffix("_k"), "k")
        return fraction(name, _OF_K[kind].format(k=k, of=of.name))
    text = _OF_SCORES[figure].format(of=of.name)
    if figure == "majority":
        return MetricInfo(name, of.unit, of.direction, text, of.bounds)
    return MetricInfo(name, "squared", "none", text, (0.0, None))


def repeat_definition(name: str, lookup: Callable[[str], MetricInfo]) -> MetricInfo | None:
    """The definition of a metric named `repeats.…`, or None for other names."""
    head, _, rest = name.partition(".")
    if head != "repeats":
        return None
    if rest == "consistency":
        return consistency_info()
    of, _, figure = rest.rpartition(".")
    if of and (figure in _OF_SCORES or _FIGURE.fullmatch(figure)):
        return repeat_info(figure, lookup(of))
    return None


LATENCIES: Mapping[str, str] = {
    "ttft_s": "Time to first token of an answer: from the moment the request was sent to its first chunk "
    "with content (text, reasoning or tool call), f - a. Measured only when streaming.",
    "e2e_s": "End-to-end time of an answer: from the moment the request was sent to its last chunk with "
    "content, l - a (without streaming, to the end of the body).",
    "tpot_s": "Time per output token after the first chunk: (l - f) / (n - tokens of the first chunk), with "
    "one token taken for the first chunk where the server does not say. Time to first token is not part of "
    "it. Measured only when streaming, for answers of two tokens or more whose content arrived at two "
    "moments or more: one chunk is no measurement; such answers are left out and counted.",
    "client_queue_s": "Time that a sample waited within evalrun, from being scheduled to its request being "
    "sent. It is not part of the end-to-end time.",
}
"""Latencies of a single request, in the order they are shown."""

CHUNK_GAPS = "icl_s"

SCHEDULED: Mapping[str, str] = {
    "response_s": "Response time of a request under load: from the moment for which it was scheduled to the "
    "last chunk of its answer, l - s. What it waited for, in evalrun or in the server, is part of it.",
    "ttft_scheduled_s": "Time to first token from the moment for which the request was scheduled, f - s. "
    "Measured only when streaming.",
}
"""Latencies from the schedule, of runs under load."""

PERCENTILES: Mapping[str, tuple[float, int]] = {
    "p50": (0.50, 8),
    "p90": (0.90, 51),
    "p95": (0.95, 104),
    "p99": (0.99, 528),
}
"""Percentile q to its quantile and the n below which it is not shown: the least n whose greatest value is
above the quantile with 99.5 %, q^n <= 0.005, so that a two-sided interval at 99 % has an upper end."""

CLOSED_LOOP = "closed loop: waits that a stall kept from being sent are not in it (coordinated omission)"
"""Beside every percentile: requests are sent as others end, so a slow server is asked less often."""

_TIMED = (
    " Over answered samples that this run sent itself: cached, warm-up and failed ones are left out and "
    "counted; with retries the successful attempt is timed."
)
_OMISSION = (
    " Requests are sent in a closed loop, the next when one has ended, so while the server stalls none are "
    "sent that would have waited (coordinated omission): users who come at their own times wait longer than "
    "this percentile says."
)

_STATISTICS: Mapping[str, str] = {
    "mean": " Arithmetic mean, with an interval by Student's t.",
    **{
        label: f" The {label[1:]}th percentile (linear between neighbours), with an order-statistic "
        f"interval; shown from {needed} timed answers on." + _OMISSION
        for label, (_, needed) in PERCENTILES.items()
    },
    "max": " The greatest value seen; it has no interval.",
}

_OF_GAPS = (
    "Time between two chunks with content of one answer (inter-token latency where a chunk is a token), "
    "pooled over all answers: a long answer counts for more, and a stall in the middle of one shows, which "
    "the mean time per output token hides. Measured only when streaming, for answers of two chunks or more "
    "that came at two moments or more. Chunks that are read at once have a gap of 0. Exact to within 0.8 %."
)

_GAP_STATISTICS: Mapping[str, str] = {
    **{
        label: f" The {label[1:]}th percentile; shown from {needed} gaps on. Interval: Woodruff's, with "
        "answers as clusters, since the gaps of one answer are not independent." + _OMISSION
        for label, (_, needed) in PERCENTILES.items()
    },
    "max": _STATISTICS["max"],
}

_LOADED: Mapping[str, str] = {
    "mean": " Arithmetic mean.",
    **{f"p{q}": f" The {q}th percentile (linear between neighbours)." for q in (50, 90, 95, 99)},
    "max": " The greatest value seen; it has no interval.",
}
_OF_LEVEL = (
    " Over the answered requests that were scheduled after the warm-up, each followed to its end. "
    "Requests in "
    "a queue are related, so intervals are by the moving-block bootstrap (blocks of what arrives in "
    "twice the "
    "longest response time, at least 20 requests); none for fewer than five blocks."
)
LOAD_P99 = 662
"""Requests of a level from which on its 99th percentile is shown (MLPerf's least n for it)."""

_WINDOW = (
    "the steady window, which begins when the requests in flight first reach nine tenths of their greatest "
    "number and ends when they last fall below that; where too few answers end in it, the whole run"
)

_CREDITED = (
    "Warm-up answers count by their part of the window, since the server was at work on them. Cached and "
    "failed samples count nothing: what a server wrote of an answer that failed is not known. Interval: "
    "block bootstrap over time (circular blocks twice as long as the answers in flight, Student's t for the "
    "number of blocks); none where the window is shorter than six blocks."
)

_SINGLE: tuple[tuple[str, str, Direction, str], ...] = (
    (
        "performance.offered_rps",
        "requests/s",
        "none",
        "Requests of an open level that were scheduled in its window divided by the window's length: "
        "what was "
        "drawn, which is near the level's rate and not equal to it.",
    ),
    (
        "performance.response_s.p90_certified",
        "s",
        "lower",
        "A response time that the 90th percentile does not exceed, with 99 % confidence and whatever its "
        "distribution, as `performance.response_s.p99_certified`. From 64 requests on.",
    ),
    (
        "performance.response_s.p99_certified",
        "s",
        "lower",
        "A response time that the 99th percentile does not exceed, with 99 % confidence and whatever its "
        "distribution: the t-th highest of n, t the greatest number with P(B <= t) <= 1 % for a binomial B "
        "of n and 1 %, as MLPerf stops early. From 662 requests on. It takes requests to be independent, "
        "which in a queue they are not quite.",
    ),
    (
        "performance.attainment",
        "fraction",
        "higher",
        "Share of the requests scheduled in a level's window that kept the whole promise (load.slo): "
        "answered, "
        "and within every objective, in open loop from the moment for which they were scheduled. Failed and "
        "timed-out requests did not keep it; an answer of one token is judged without time per token. "
        "Wilson's interval.",
    ),
    (
        "performance.goodput_rps",
        "requests/s",
        "higher",
        "Requests a second that kept the promise: attainment times the requests scheduled a second in the "
        "window; in closed loop, the share of answers that kept it times performance.requests_per_s.",
    ),
    (
        "performance.goodput_right_rps",
        "requests/s",
        "higher",
        "Requests a second that kept the promise and were right (load.right; else the first scorer's "
        "score is "
        "at least 0.5): goodput that is of use.",
    ),
    (
        "performance.right_tokens_per_s",
        "tokens/s",
        "higher",
        "Output tokens a second of answers that kept the promise and were right.",
    ),
    (
        "performance.requests_per_s",
        "requests/s",
        "higher",
        "Answers within the window divided by its length, each counted by the share of its time, from sent "
        f"to its end, that lies within the window; those under way at its ends too. The window is {_WINDOW}. "
        + _CREDITED,
    ),
    (
        "performance.output_tokens_per_s",
        "tokens/s",
        "higher",
        "Output tokens within the window, as the server counts them, divided by its length. An answer's "
        "tokens are spread evenly from its first token to its end (from sent to its end where it was not "
        "streamed or came in one chunk), and what of that lies within the window counts, also of answers "
        f"under way at its ends. The window is {_WINDOW}. " + _CREDITED,
    ),
    (
        "performance.prompt_tokens.mean",
        "tokens",
        "none",
        "Mean number of tokens in the prompt, as the server counts them, over the answered samples, cached "
        "ones too.",
    ),
    (
        "performance.completion_tokens.mean",
        "tokens",
        "none",
        "Mean number of tokens in the answer, as the server counts them, over the answered samples, cached "
        "ones too.",
    ),
    (
        "performance.client_lag_s.p99",
        "s",
        "lower",
        "How late evalrun's own event loop ran: the 99th percentile of the delay of a timer that is due at "
        "regular intervals. Where it is more than 5 % of the median end-to-end time, the latencies say so.",
    ),
    (
        "memory.engine_peak_bytes",
        "bytes",
        "lower",
        "Greatest memory of the engine's whole process tree during the run, as proportional set size: pages "
        "that processes share are divided among them, so that nothing is counted twice.",
    ),
    (
        "memory.client_peak_bytes",
        "bytes",
        "lower",
        "Greatest memory of evalrun itself during the run, as proportional set size, without the engine.",
    ),
    (
        "cpu.engine_s",
        "s",
        "lower",
        "Processor time, user and system, that the engine's process tree used during the run.",
    ),
    (
        "cpu.client_s",
        "s",
        "lower",
        "Processor time, user and system, that evalrun itself used during the run.",
    ),
    (
        "performance.load_s",
        "s",
        "lower",
        "Time from starting the engine's process until it was ready to answer: weights read, memory "
        "reserved, kernels compiled. It is shared by all runs of the model in a sweep and is part of no "
        "latency. Only for engines that evalrun starts.",
    ),
    (
        "memory.engine_load_peak_bytes",
        "bytes",
        "lower",
        "Greatest memory of the engine's whole process tree while it started, as proportional set size.",
    ),
    (
        "memory.cgroup_peak_bytes",
        "bytes",
        "none",
        "Greatest memory that the kernel ever charged to the cgroup (the container) in which evalrun and "
        "its engines run, page cache included. The kernel counts since the group was made, so earlier "
        "work of the same container is in it.",
    ),
    (
        "disk.read_bytes",
        "bytes",
        "none",
        "Bytes that evalrun and its engine read from storage devices during the run; what the page cache "
        "served is not counted.",
    ),
    (
        "disk.written_bytes",
        "bytes",
        "none",
        "Bytes that evalrun and its engine had written to storage devices during the run.",
    ),
    (
        "gpu.use.mean",
        "fraction",
        "none",
        "Mean over the readings of the share of time in which the GPU ran any kernel, as NVML gives it "
        "(also averaged over GPUs). It says nothing of how much of the GPU a kernel fills.",
    ),
    (
        "gpu.power_w.mean",
        "W",
        "lower",
        "Mean power draw of the GPUs together over the run, from NVML's power readings.",
    ),
    (
        "memory.gpu_peak_bytes",
        "bytes",
        "lower",
        "Greatest memory in use on the GPUs on which the model runs, by all processes, as NVML gives it. "
        "vLLM reserves a set share of the memory at its start, so for it this is that share and not what "
        "the model needs.",
    ),
    (
        "energy.gpu_j",
        "J",
        "lower",
        "Energy that the GPUs on which the model runs used during the run: the difference of NVML's "
        "energy counter, which is refreshed about every 100 ms; where a GPU has no counter, its power "
        "readings integrated over time. Idle draw is in it, CPU and memory of the host are not.",
    ),
    (
        "energy.gpu_j_per_output_token",
        "J/token",
        "lower",
        "Energy of the GPUs during the run divided by the output tokens that the run generated, as the "
        "server counts them.",
    ),
    (
        "energy.cpu_j",
        "J",
        "lower",
        "Energy that the processors of this machine used during the run, where the model runs on it: the "
        "difference of their own counters (RAPL), which Linux shows to root and to whom it is allowed. It is "
        "that of the processors as a whole, idle draw and other programs included.",
    ),
    (
        "energy.cpu_j_per_output_token",
        "J/token",
        "lower",
        "Energy of the processors during the run divided by the output tokens that the run generated, as the "
        "server counts them.",
    ),
    (
        "cpu.power_w.mean",
        "W",
        "none",
        "Mean power of the processors of this machine during the run: energy.cpu_j by its seconds.",
    ),
    (
        "engine.kv_cache_use.max",
        "fraction",
        "none",
        "Greatest share of the engine's KV cache in use, of readings about 1 s apart.",
    ),
    (
        "engine.requests_running.max",
        "requests",
        "none",
        "Greatest number of requests that the engine computed at once, of readings about 1 s apart.",
    ),
    (
        "engine.requests_waiting.max",
        "requests",
        "lower",
        "Greatest number of requests that waited within the engine, of readings about 1 s apart.",
    ),
    (
        "engine.preemptions",
        "requests",
        "lower",
        "How often the engine took a request's KV cache away during the run, to compute it again later: "
        "its cache was too small for the requests in flight.",
    ),
    (
        "engine.prefix_cache_hit_rate",
        "fraction",
        "none",
        "Prompt tokens that the engine found in its prefix cache divided by those it looked up, during "
        "the run. Prompts that are cached are answered sooner, so runs that differ in it are not alike in"
        " time to first token.",
    ),
    (
        "cost.usd",
        "usd",
        "lower",
        "Sum of what this run's answers cost in US dollars: the price that the server states, else prompt "
        "and output tokens times the suite's prices, prompt tokens that the provider had in its cache at a "
        "price of their own where one is given. Cached answers cost nothing.",
    ),
    (
        "cost.judge_usd",
        "usd",
        "lower",
        "Sum of what scorers that ask a model (judge, embedding) cost for this run, in US dollars. It is no "
        "part of cost.usd.",
    ),
)


@cache
def performance_catalogue() -> Mapping[str, MetricInfo]:
    """Every metric of speed, memory and cost by its name."""
    infos = {
        f"performance.{latency}.{statistic}": MetricInfo(
            f"performance.{latency}.{statistic}", "s", "lower", text + suffix + _TIMED, (0.0, None)
        )
        for latency, text in LATENCIES.items()
        for statistic, suffix in _STATISTICS.items()
    }
    for statistic, suffix in _GAP_STATISTICS.items():
        name = f"performance.{CHUNK_GAPS}.{statistic}"
        infos[name] = MetricInfo(name, "s", "lower", _OF_GAPS + suffix + _TIMED, (0.0, None))
    for latency, text in SCHEDULED.items():
        for statistic, suffix in _LOADED.items():
            name = f"performance.{latency}.{statistic}"
            infos[name] = MetricInfo(name, "s", "lower", text + suffix + _OF_LEVEL, (0.0, None))
    for name, unit, direction, text in _SINGLE:
        infos[name] = MetricInfo(
            name, unit, direction, text, (0.0, 1.0 if name == "performance.attainment" else None)
        )
    return infos


def performance_info(name: str) -> MetricInfo:
    """What a metric of speed, memory or cost means. Raises KeyError for other names."""
    return performance_catalogue()[name]
