"""Steady or growing, and intervals of series whose neighbours are related: against queues with known
answers."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from evalrun.analysis.intervals import percentile
from evalrun.analysis.knee import knee
from evalrun.analysis.load import block_intervals, blocks_of, certified_rank, holding
from evalrun.analysis.steady import steadiness
from evalrun.suite.levels import Bound

Floats = NDArray[np.float64]


def lindley(gaps: Floats, service: float) -> Floats:
    """Waits of a queue with one place and equal service times: w' = max(0, w + s - gap)."""
    waits = np.zeros(len(gaps))
    for at in range(1, len(gaps)):
        waits[at] = max(0.0, waits[at - 1] + service - gaps[at])
    return waits


def queue(n: int, load: float, seed: int) -> tuple[Floats, Floats, Floats]:
    """Scheduled, response and end of an M/D/1 queue with service time 1."""
    gaps = np.random.default_rng(seed).exponential(1 / load, n)
    scheduled = np.cumsum(gaps)
    response = lindley(gaps, 1.0) + 1.0
    return scheduled, response, scheduled + response


def test_a_queue_over_capacity_grows() -> None:
    k = np.arange(40)
    verdict = steadiness(k * 0.05, 0.1 + 0.05 * k, k * 0.05 + 0.1 + 0.05 * k, 0)
    assert verdict.word == "growing" and verdict.growth_s == pytest.approx(39 * 0.05)
    assert [steadiness(*queue(400, 1.5, seed), seed).word for seed in range(8)] == ["growing"] * 8


@pytest.mark.parametrize(("load", "n"), [(0.5, 300), (0.8, 1_000)])
def test_a_queue_below_capacity_is_hardly_ever_called_growing(load: float, n: int) -> None:
    words = [steadiness(*queue(n, load, seed), seed).word for seed in range(30)]
    assert words.count("growing") <= 1
    assert words.count("steady") >= 24


def test_few_requests_say_nothing() -> None:
    k = np.arange(9.0)
    assert steadiness(k, k, 2 * k, 0).word == "undecided"
    assert steadiness(np.zeros(30), np.ones(30), np.ones(30), 0).word == "undecided"


def series(n: int) -> Iterator[tuple[Floats, float]]:
    """Series whose neighbours are related (AR(1), 0.8) about a median of 0."""
    draws = np.random.default_rng(5)
    for _ in range(80):
        noise = draws.standard_normal(n + 30)
        values = np.zeros(n + 30)
        for at in range(1, n + 30):
            values[at] = 0.8 * values[at - 1] + noise[at]
        yield values[30:] + 100, 100.0


def test_intervals_of_related_neighbours_hold_what_they_promise() -> None:
    blocks = [
        (block_intervals(values, 40, [0.5], at), truth) for at, (values, truth) in enumerate(series(400))
    ]
    for key in (None, 0.5):
        held = [found[key][1] <= truth <= found[key][2] for found, truth in blocks if found is not None]
        assert 0.87 <= np.mean(held) <= 1
    # As if they were independent, it would be two thirds.
    plain = [(percentile(np.sort(values), 0.5), truth) for values, truth in series(400)]
    assert np.mean([(e.low or 0) <= truth <= (e.high or 0) for e, truth in plain]) < 0.75


def test_too_few_blocks_have_no_interval() -> None:
    assert block_intervals(np.arange(99.0), 20, [0.5], 0) is None
    assert block_intervals(np.arange(100.0), 20, [0.5], 0) is not None


def test_blocks_are_as_long_as_requests_wait_together() -> None:
    scheduled = np.arange(1_000) / 10  # ten a second
    assert blocks_of(scheduled, np.full(1_000, 0.1)) == 20
    assert blocks_of(scheduled, np.full(1_000, 5.0)) == math.ceil(2 * 5 * 1_000 / 99.9)


def test_the_last_digit_decides_nothing() -> None:
    values = np.array([0.1 + 0.2, 0.3, 0.30001, np.nan])
    assert holding(Bound("e2e_s", "<=", 0.3), values).tolist() == [True, True, False, False]
    assert holding(Bound("e2e_s", "<", 0.3), np.array([0.29, 0.3])).tolist() == [True, False]


def test_the_certified_percentile_is_the_one_that_mlperf_takes() -> None:
    # Independent of ours: scipy's binomial, and the published 662 and 77th of 10,000.
    assert [certified_rank(n) for n in (10, 661, 662, 3_000, 10_000)] == [0, 0, 1, 17, 77]
    assert certified_rank(1_000_000) == 9_768
    assert [certified_rank(n, 0.1) for n in (63, 64)] == [0, 1]


def test_the_knee_is_where_two_lines_meet() -> None:
    loads = [1, 2, 4, 8, 16, 32]
    # 10 a second for each place, of which there are 8: the lines meet there.
    assert knee(loads, [10 * min(at, 8) for at in loads]) == pytest.approx(8)
    assert knee([32, 8, 1, 16, 4, 2], [80, 80, 10, 80, 40, 20]) == pytest.approx(8)
    assert knee(loads, [10 * at for at in loads]) is None  # it never stops rising
    assert knee(loads[:4], [10, 20, 20, 20]) is None  # too few levels
    assert knee(loads, [7] * 6) is None
    assert knee(loads, [80, 40, 20, 10, 5, 2]) is None  # it falls
