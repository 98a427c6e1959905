"""Latency, throughput and resources: what counts, what n supports, and where the steady window lies."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tables import sample_table

from evalrun.analysis.catalogue import PERCENTILES
from evalrun.analysis.performance import (
    CDF_POINTS,
    SystemSummary,
    distribution,
    performance_metrics,
)
from evalrun.analysis.throughput import BINS, Answers, credited, in_flight, lag_one, over_time, steady_window
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
    assert mean.note.startswith("left out: 1 cached, 1 warm-up, 1 failed; skewed")
    assert found["performance.e2e_s.max"].value == 3.0
    assert details["timed"] == {"n": 22, "cached": 1, "warmup": 1, "failed": 1}
    assert found["performance.completion_tokens.mean"].n == 24


@pytest.mark.parametrize(("label", "needed"), [("p50", 8), ("p90", 51), ("p95", 104), ("p99", 528)])
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
    rows = [record(n, e2e_s=0.010 + n % 2 / 1e6) for n in range(20)]
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
    series = over_time(Answers(sent, done, sent, np.full(len(sent), 2.0)))
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


def test_answers_count_by_what_of_them_lies_in_the_window() -> None:
    # Two slots. The window (two in flight) runs from 0 to 20; the last answer goes on alone until 30.
    spans = [(0.0, 10.0), (0.0, 20.0), (10.0, 30.0)]
    rows = [
        record(n, sent_s=a, done_s=b, e2e_s=b - a, ttft_s=2.0, completion_tokens=90)
        for n, (a, b) in enumerate(spans)
    ]
    answers = Answers.of(np.array([0.0, 0, 10]), np.array([10.0, 20, 30]), np.full(3, 2.0), np.full(3, 90.0))
    at = np.array([0.0, 20.0])
    assert np.diff(answers.requests_by(at))[0] == pytest.approx(1 + 1 + 1 / 2)
    assert np.diff(answers.tokens_by(at))[0] == pytest.approx(90 + 90 + 90 * (20 - 12) / (30 - 12))
    found, details = measure(rows)
    assert details["throughput_window"]["steady"] is False, "three answers are too few for a window"
    assert found["performance.requests_per_s"].value == pytest.approx(3 / 30)


def test_what_came_at_one_moment_was_written_at_some_time_since_it_was_sent() -> None:
    sent, done = np.array([0.0, 0.0]), np.array([10.0, 10.0])
    for ttft_s in (np.full(2, np.nan), np.full(2, 10.0)):
        answers = Answers.of(sent, done, ttft_s, np.full(2, 40.0))
        assert answers.tokens_by(np.array([5.0]))[0] == pytest.approx(40.0)


def test_warm_up_answers_are_work_of_the_server_and_failed_ones_are_counted() -> None:
    rows = [record(n, sent_s=a, done_s=b) for n, (a, b) in enumerate(closed_loop(4, 80))]
    measured, _ = measure([replace(row, warmup=n < 6) for n, row in enumerate(rows)])
    rate = measured["performance.output_tokens_per_s"]
    assert rate.value == pytest.approx(4 * 16.0), "the warm-up's second pair is in flight as the window opens"
    assert "warm-up" not in rate.note and "6 warm-up" in measured["performance.e2e_s.mean"].note
    failed = [record(80, status=Status.FAILED, e2e_s=None, sent_s=None, done_s=None)]
    measured, _ = measure(rows + failed)
    assert "left out: 1 failed" in measured["performance.output_tokens_per_s"].note


def test_a_rate_has_an_interval_over_blocks_of_time() -> None:
    rng = np.random.default_rng(5)
    free, times = [0.0] * 8, []
    for _ in range(400):
        slot = int(np.argmin(free))
        tokens = float(rng.geometric(1 / 50))
        times.append((free[slot], free[slot] + 0.2 + 0.02 * tokens, tokens))
        free[slot] = times[-1][1]
    rows = [
        record(n, sent_s=a, done_s=b, e2e_s=b - a, ttft_s=0.2, completion_tokens=int(tokens))
        for n, (a, b, tokens) in enumerate(times)
    ]
    found, _ = measure(rows)
    rate = found["performance.output_tokens_per_s"]
    assert rate.method == "block-bootstrap"
    assert rate.ci_low is not None and rate.ci_high is not None
    assert rate.ci_low < 8 * 50 / 1.2 < rate.ci_high, "each slot writes 50 tokens in 1.2 s"
    assert rate.ci_high - rate.ci_low < 80
    few, _ = measure(rows[:20])
    assert few["performance.output_tokens_per_s"].ci_low is None
    assert "too few answers one after another" in few["performance.output_tokens_per_s"].note


@given(SPANS)
def test_all_that_is_credited_comes_to_all_there_is(spans: list[tuple[float, float]]) -> None:
    begin = np.array([start for start, _ in spans])
    end = begin + np.array([length if n % 3 else 0.0 for n, (_, length) in enumerate(spans)])
    amounts = np.arange(1.0, len(spans) + 1)
    times = np.linspace(-1, 120, 200)
    sums = credited(times, begin, end, amounts)
    assert sums[0] == 0 and sums[-1] == pytest.approx(amounts.sum())
    assert (np.diff(sums) >= -1e-6).all()
    by_hand = [
        sum(
            amount * (float(t >= b) if b == a else min(1.0, max(0.0, (t - a) / (b - a))))
            for a, b, amount in zip(begin, end, amounts, strict=True)
        )
        for t in times[::40]
    ]
    assert sums[::40] == pytest.approx(by_hand, abs=1e-6)


def test_an_answer_in_one_chunk_has_no_time_per_token() -> None:
    rows = [record(n, tpot_s=0.05) for n in range(20)]
    at_once = [record(20 + n, ttft_s=1.0, e2e_s=1.0, tpot_s=0.0 if n else None) for n in range(3)]
    short = [record(30, completion_tokens=1, tpot_s=None)]
    found, _ = measure(rows + at_once + short)
    metric = found["performance.tpot_s.mean"]
    assert (metric.value, metric.n) == (pytest.approx(0.05), 20)
    assert "missing: 3 came in one chunk (no time per token can be seen), 1 had fewer than two" in metric.note
    alone, _ = measure(at_once)
    assert alone["performance.tpot_s.mean"].value is None
    assert "3 came in one chunk" in alone["performance.tpot_s.mean"].note


def test_neighbours_that_are_alike_are_told() -> None:
    rng = np.random.default_rng(2)
    noise, series = rng.standard_normal(2000), np.zeros(2000)
    for n in range(1, 2000):
        series[n] = 0.9 * series[n - 1] + noise[n]
    rows = [record(n, e2e_s=10 + float(value)) for n, value in enumerate(series)]
    found, _ = measure(rows)
    note = found["performance.e2e_s.p50"].note
    assert "lag-1 autocorrelation 0.86" in note and "coordinated omission" in note
    found, _ = measure([record(n, e2e_s=10 + float(value)) for n, value in enumerate(noise)])
    assert found["performance.e2e_s.mean"].note == ""
    assert lag_one(np.array([1.0, 2, 3])) is None and lag_one(np.full(30, 0.1)) is None


def test_n_for_a_percentile_is_where_its_interval_at_99_percent_has_an_end() -> None:
    for quantile, needed in PERCENTILES.values():
        assert quantile**needed <= 0.005 < quantile ** (needed - 1)
