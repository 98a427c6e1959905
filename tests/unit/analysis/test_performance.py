"""Latency, throughput and resources: what counts, what n supports, and where the steady window lies."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tables import sample_table

from evalrun.analysis.performance import (
    BINS,
    CDF_POINTS,
    SystemSummary,
    distribution,
    in_flight,
    over_time,
    performance_metrics,
    steady_window,
)
from evalrun.types import MetricValue, SampleRecord, Status


def record(number: int, **more: Any) -> SampleRecord:
    base: dict[str, Any] = {
        "sample_id": f"s{number:05d}",
        "repeat": 0,
        "position": number,
        "vars": {},
        "target": None,
        "status": Status.SCORED,
        "e2e_s": 1.0,
        "ttft_s": 0.25,
        "tpot_s": 0.05,
        "client_queue_s": 0.0,
        "sent_s": float(number),
        "done_s": number + 1.0,
        "prompt_tokens": 10,
        "completion_tokens": 16,
        "attempts": 1,
    }
    return SampleRecord(**{**base, **more})


def measure(
    rows: list[SampleRecord], system: SystemSummary | None = None, stream: bool = True
) -> tuple[dict[str, MetricValue], dict[str, Any]]:
    found, details = performance_metrics(sample_table(rows), system or SystemSummary(), stream=stream)
    return {metric.name: metric for metric in found}, details


def test_only_answers_that_this_run_sent_are_timed() -> None:
    rows = [record(n) for n in range(20)]
    rows += [record(20, cached=True, e2e_s=None, sent_s=None, done_s=None, attempts=0)]
    rows += [record(21, warmup=True, e2e_s=99.0), record(22, status=Status.FAILED, e2e_s=None, ttft_s=None)]
    rows += [record(23, status=Status.UNPARSED, e2e_s=3.0), record(24, attempts=3, e2e_s=2.0)]
    found, details = measure(rows)
    mean = found["performance.e2e_s.mean"]
    assert (mean.value, mean.n) == (pytest.approx(25 / 22), 22)
    assert mean.note == "left out: 1 cached, 1 warm-up, 1 failed"
    assert found["performance.e2e_s.max"].value == 3.0
    assert details["timed"] == {"n": 22, "cached": 1, "warmup": 1, "failed": 1}
    assert found["performance.completion_tokens.mean"].n == 24


@pytest.mark.parametrize(("label", "needed"), [("p50", 11), ("p90", 64), ("p95", 130), ("p99", 662)])
def test_a_percentile_is_shown_only_where_n_supports_it(label: str, needed: int) -> None:
    few, _ = measure([record(n) for n in range(needed - 1)])
    assert few[f"performance.e2e_s.{label}"].value is None
    assert (
        f"{label} needs {needed} timed answers, there are {needed - 1}"
        in few[f"performance.e2e_s.{label}"].note
    )
    assert few["performance.e2e_s.max"].value == 1.0
    rng = np.random.default_rng(1)
    enough, _ = measure([record(n, e2e_s=float(rng.exponential())) for n in range(needed)])
    metric = enough[f"performance.e2e_s.{label}"]
    assert metric.method == "order-statistic"
    assert metric.ci_low is not None
    assert metric.value is not None
    assert metric.ci_high is not None
    assert metric.ci_low < metric.value < metric.ci_high


def test_what_was_not_measured_is_not_mentioned() -> None:
    nothing = dict.fromkeys(("e2e_s", "ttft_s", "tpot_s", "client_queue_s", "sent_s", "done_s"))
    recorded = [record(n, **nothing) for n in range(30)]
    found, details = measure(recorded, stream=False)
    assert not [name for name in found if name.endswith(("_per_s", "_s.mean"))]
    assert details["latency"] == {}
    plain, _ = measure([record(n, ttft_s=None, tpot_s=None) for n in range(30)], stream=False)
    assert "performance.ttft_s.mean" not in plain
    assert plain["performance.e2e_s.p50"].value == 1.0


def test_a_run_from_the_cache_says_why_it_has_no_latency() -> None:
    rows = [record(n, cached=True, e2e_s=None, ttft_s=None, sent_s=None, done_s=None) for n in range(30)]
    found, _ = measure(rows)
    metric = found["performance.ttft_s.p50"]
    assert metric.value is None
    assert metric.n == 0
    assert "30 cached" in metric.note
    assert found["performance.prompt_tokens.mean"].value == 10
    plain, _ = measure(rows, stream=False)
    assert "30 cached" in plain["performance.e2e_s.p50"].note and plain["performance.e2e_s.p50"].value is None
    assert "30 cached" in plain["performance.client_queue_s.mean"].note
    assert "performance.ttft_s.p50" not in plain, "nobody expects it of answers that are not streamed"


def test_a_run_that_took_no_time_has_no_rate() -> None:
    found, _ = measure([record(n, sent_s=1.0, done_s=1.0, e2e_s=0.0) for n in range(3)])
    rate = found["performance.requests_per_s"]
    assert rate.value is None and "too short to have a rate" in rate.note
    assert "performance.output_tokens_per_s" not in found
    found, _ = measure([record(n, sent_s=float(n), done_s=float(n), e2e_s=0.0) for n in range(5)])
    rate = found["performance.requests_per_s"]
    assert rate.value == 1.0 and "no answer took any time" in rate.note


def closed_loop(
    slots: int, requests: int, seconds: float = 1.0, ramp: float = 0.0
) -> list[tuple[float, float]]:
    """Each slot sends its next request when the last one ended; slot k starts `ramp` * k later."""
    times, free = [], [ramp * slot for slot in range(slots)]
    for _ in range(requests):
        slot = int(np.argmin(free))
        times.append((free[slot], free[slot] + seconds))
        free[slot] += seconds
    return times


def test_throughput_of_a_closed_loop_is_its_steady_rate() -> None:
    # Slots fill one after the other over 4 seconds, and drain at the end; in between 8 run at once.
    rows = [record(n, sent_s=a, done_s=b) for n, (a, b) in enumerate(closed_loop(8, 200, ramp=0.5))]
    found, details = measure(rows)
    assert details["throughput_window"]["steady"] is True
    assert details["throughput_window"]["peak_in_flight"] == 8
    assert found["performance.requests_per_s"].value == pytest.approx(8.0, rel=0.03)
    assert found["performance.output_tokens_per_s"].value == pytest.approx(8 * 16.0, rel=0.03)
    over_everything = 200 / (max(b for _, b in closed_loop(8, 200, ramp=0.5)))
    assert over_everything < 7.5


def test_lockstep_batches_are_counted_exactly() -> None:
    rows = [record(n, sent_s=a, done_s=b) for n, (a, b) in enumerate(closed_loop(4, 40))]
    found, _ = measure(rows)
    assert found["performance.requests_per_s"].value == pytest.approx(4.0)


def test_a_run_without_a_plateau_is_measured_whole_and_says_so() -> None:
    burst = [record(n, sent_s=0.0, done_s=1.0 + n) for n in range(30)]
    found, details = measure(burst)
    assert details["throughput_window"]["steady"] is False
    assert found["performance.requests_per_s"].value == pytest.approx(1.0)
    assert "over the whole run" in found["performance.requests_per_s"].note


def test_one_at_a_time_is_steady() -> None:
    found, details = measure([record(n) for n in range(5)])
    assert details["throughput_window"]["steady"] is True
    assert found["performance.requests_per_s"].value == pytest.approx(1.0)


def test_tokens_that_are_not_known_are_not_guessed() -> None:
    rows = [record(n, completion_tokens=None if n == 5 else 16) for n in range(30)]
    found, _ = measure(rows)
    assert found["performance.output_tokens_per_s"].value is None
    assert "1 of 30 answers" in found["performance.output_tokens_per_s"].note


def test_resources_come_with_the_reason_where_there_are_none() -> None:
    system = SystemSummary(
        client_peak_bytes=5_000_000,
        client_cpu_s=1.5,
        unavailable={"memory.engine_peak_bytes": "the engine is not a process that evalrun started"},
    )
    found, _ = measure([record(n) for n in range(12)], system)
    assert found["memory.client_peak_bytes"].value == 5e6
    assert found["cpu.client_s"].value == 1.5
    assert found["memory.engine_peak_bytes"].value is None
    assert "not a process" in found["memory.engine_peak_bytes"].note
    assert "cpu.engine_s" not in found


def test_cost_is_the_sum_of_what_was_paid() -> None:
    rows = [record(n, cost_usd=0.01) for n in range(10)]
    rows += [record(10, cached=True, cost_usd=0.01), record(11, cost_usd=None)]
    found, _ = measure(rows)
    assert found["cost.usd"].value == pytest.approx(0.1)
    assert "left out: 1 answered" in found["cost.usd"].note
    assert "cost.usd" not in measure([record(0)])[0]


def test_latencies_say_so_when_the_client_was_slow() -> None:
    rows = [record(n, e2e_s=0.010 + n / 1e6) for n in range(20)]
    slow, details = measure(rows, SystemSummary(loop_lag_p99_s=0.004))
    assert "evalrun itself lagged" in slow["performance.e2e_s.mean"].note
    assert details["client_limited"]
    quick, details = measure(rows, SystemSummary(loop_lag_p99_s=0.0001))
    assert quick["performance.e2e_s.mean"].note == ""
    assert details["client_limited"] == ""


SPANS = st.lists(st.tuples(st.floats(0, 100), st.floats(0.001, 10)), min_size=1, max_size=60)


@settings(deadline=None)
@given(SPANS)
def test_the_window_is_within_the_run_whatever_the_run(spans: list[tuple[float, float]]) -> None:
    sent = np.array([start for start, _ in spans])
    done = np.array([start + length for start, length in spans])
    _, flying = in_flight(sent, done)
    assert flying.min() >= 0
    assert flying[-1] == 0
    window = steady_window(sent, done)
    assert window is not None
    assert sent.min() <= window.start_s <= window.end_s <= done.max()
    series = over_time(sent, done, np.full(len(sent), 2.0))
    assert 1 <= len(series["requests_per_s"]) <= BINS
    width = np.diff(series["t_s"])
    assert float(width @ np.array(series["requests_per_s"])) == pytest.approx(len(spans))
    assert float(width @ np.array(series["in_flight"])) == pytest.approx(float((done - sent).sum()), rel=1e-6)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1000), min_size=1, max_size=700))
def test_distributions_for_charts_are_small_and_whole(values: list[float]) -> None:
    ordered = np.sort(np.array(values))
    found = distribution(ordered)
    assert len(found["cdf"]["x"]) <= CDF_POINTS
    assert found["cdf"]["x"] == sorted(found["cdf"]["x"])
    assert found["cdf"]["x"][-1] == ordered[-1]
    assert found["cdf"]["p"][-1] == 1.0
    assert sum(found["histogram"]["counts"]) == len(values)


def test_no_samples_have_no_performance() -> None:
    found, details = measure([])
    assert found == {}
    assert details["latency"] == {}
