"""Percentiles of the times between chunks: pooled, with intervals that know of answers, else silent."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.analysis.test_performance import measure, record

from evalrun.analysis.chunk_gaps import Answers, Gaps, gap_metrics, gap_percentiles
from evalrun.analysis.distributions import t_quantile
from evalrun.types import Status


def gaps_of(*seconds: float) -> list[int]:
    return [round(gap * 1e6) for gap in seconds]


def pooled(*answers: list[int]) -> Gaps:
    half = len(answers) // 2
    gaps = Gaps.of(lambda: [Answers.of(part) for part in (answers[:half], answers[half:]) if part])
    assert gaps is not None
    return gaps


def test_percentiles_are_those_of_all_gaps_together() -> None:
    rng = np.random.default_rng(3)
    answers = [rng.exponential(0.02, int(rng.integers(1, 60))) for _ in range(200)]
    rows = [record(n, chunk_gaps=gaps_of(*gaps)) for n, gaps in enumerate(answers)]
    found, details = measure(rows)
    every = np.concatenate(answers)
    for label, q in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        metric = found[f"performance.icl_s.{label}"]
        assert metric.value == pytest.approx(float(np.quantile(every, q)), rel=0.02)
        assert metric.ci_low is not None and metric.ci_high is not None
        assert metric.ci_low < float(np.quantile(every, q)) < metric.ci_high
        assert (metric.n, metric.method) == (len(every), "woodruff")
        assert "gaps of 200 answers" in metric.note and "coordinated omission" in metric.note
    assert found["performance.icl_s.max"].value == pytest.approx(float(every.max()), rel=0.008)
    shown = details["latency"]["icl_s"]
    assert shown["n"] == len(every) == sum(shown["histogram"]["counts"])
    assert shown["cdf"]["p"][-1] == 1.0 and shown["cdf"]["x"] == sorted(shown["cdf"]["x"])


def test_a_stall_in_one_answer_of_many_shows_at_the_end_only() -> None:
    rows = [record(n, chunk_gaps=gaps_of(*[0.01] * 30)) for n in range(49)]
    found, _ = measure([*rows, record(49, chunk_gaps=gaps_of(*[0.01] * 15, 2.0, *[0.01] * 14))])
    assert found["performance.icl_s.p99"].value == pytest.approx(0.01, rel=0.01)
    assert found["performance.icl_s.max"].value == pytest.approx(2.0, rel=0.01)


def test_only_timed_answers_count_and_one_chunk_answers_are_passed_over_in_silence() -> None:
    rows = [record(n, chunk_gaps=gaps_of(*[0.01] * 20)) for n in range(10)]
    rows += [record(10, chunk_gaps=None), record(11, warmup=True, chunk_gaps=gaps_of(9.0))]
    rows += [record(12, status=Status.FAILED, e2e_s=None, chunk_gaps=gaps_of(9.0))]
    rows += [record(13, cached=True, e2e_s=None)]
    found, _ = measure(rows)
    assert found["performance.icl_s.p50"].n == 200
    assert found["performance.icl_s.max"].value == pytest.approx(0.01, rel=0.01)
    assert "p95 needs" not in found["performance.icl_s.p95"].note
    few = found["performance.icl_s.p99"]
    assert few.value is None and "p99 needs 528 gaps, there are 200" in few.note
    silent, details = measure([record(n) for n in range(20)])
    assert not any("icl_s" in name for name in [*silent, *details["latency"]])


def test_chunks_that_come_together_are_said() -> None:
    found, _ = measure([record(n, chunk_gaps=gaps_of(0, 0, 0.02, 0, 0, 0.02)) for n in range(30)])
    assert found["performance.icl_s.p50"].value == 0.0
    assert "67% of the gaps are 0: chunks that came together" in found["performance.icl_s.p50"].note


def test_an_open_loop_is_not_called_a_closed_one() -> None:
    gaps = pooled(*[gaps_of(*[0.01] * 20)] * 4)
    assert all("closed loop" not in metric.note for metric in gap_metrics(gaps, loop=""))
    assert "closed loop" in gap_metrics(gaps)[0].note


def test_gaps_of_one_answer_have_no_interval() -> None:
    found = gap_percentiles(pooled(gaps_of(*np.linspace(0.01, 0.02, 50))), [0.5])[0]
    assert found.value is not None and found.low is None and "one answer" in found.note


def test_the_interval_knows_that_gaps_of_one_answer_are_alike() -> None:
    """Answers are fast or slow as a whole: taking gaps for independent, half of the intervals miss."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(300):
        level = rng.lognormal(np.log(0.02), 0.5, 60)
        found = gap_percentiles(pooled(*(gaps_of(*one * rng.uniform(0.9, 1.1, 25)) for one in level)), [0.5])[
            0
        ]
        assert found.low is not None and found.high is not None
        held += found.low <= 0.02 <= found.high
    assert 0.91 <= held / 300 <= 0.99


@given(st.lists(st.lists(st.integers(0, 10**10), min_size=1, max_size=20), min_size=1, max_size=8))
def test_bins_hold_every_gap_to_within_0_8_percent(answers: list[list[int]]) -> None:
    gaps = pooled(*answers)
    right = np.sort(np.concatenate([np.array(one, float) for one in answers]))
    kept = np.repeat(gaps.gap_s, gaps.count) * 1e6
    assert len(kept) == len(right) == gaps.n
    assert np.all(np.abs(kept - right) <= 0.008 * right)
    assert gaps.greatest_s * 1e6 == pytest.approx(right[-1])


def test_the_standard_error_is_that_of_a_ratio_of_sums_over_answers() -> None:
    """By hand: three answers with 4, 2 and 6 gaps of which 3, 0 and 3 are 10 ms, the rest 20 ms or more."""
    answers = [
        gaps_of(*[0.01] * k, *[0.02 + 0.01 * at for at in range(m - k)]) for k, m in ((3, 4), (0, 2), (3, 6))
    ]
    gaps = pooled(*answers * 40)
    found = gap_percentiles(gaps, [0.5])[0]
    m, k = np.tile([4, 2, 6], 40), np.tile([3, 0, 3], 40)
    squares = (k - m * 0.5) ** 2
    se = math.sqrt(120 / 119 * float(squares.sum())) / 480
    half = t_quantile(0.975, float(squares.sum()) ** 2 / float((squares**2).sum())) * se / 0.25
    every = np.sort(np.concatenate([np.array(one) for one in answers * 40])) / 1e6
    shares = [1 / (1 + math.exp(-side * half)) for side in (-1, 1)]
    assert [found.low, found.high] == pytest.approx(
        [every[math.ceil(s * 480) - 1] for s in shares], rel=0.008
    )
