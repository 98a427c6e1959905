"""Weighted means: values by hand, the usual formula where weights are equal, and coverage by simulation."""

import numpy as np
import pytest

from evalrun.analysis.intervals import mean_clustered
from evalrun.analysis.paired import decided_difference, paired_difference
from evalrun.analysis.standings import AllPairs
from evalrun.analysis.weighted import effective, mean_weighted


def test_two_rows_by_hand() -> None:
    values, weights = np.array([1.0, 0.0]), np.array([1.0, 3.0])
    assert mean_weighted(values, weights).value == 0.25
    assert effective(weights) == pytest.approx(1.6)


def test_equal_weights_are_the_clustered_mean() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(30), 4)
    values = rng.normal(size=120) + rng.normal(size=30)[clusters]
    found, usual = mean_weighted(values, np.full(120, 7.0), clusters), mean_clustered(values, clusters)
    assert found.value == pytest.approx(usual.value) and found.se == pytest.approx(usual.se, rel=1e-9)


def test_intervals_of_a_stratified_sample_cover() -> None:
    """A tenth of the calls is worse; both kinds are drawn alike, and the weighted mean is that of all."""
    rng = np.random.default_rng(1)
    truth, covered, naive = 0.9 * 0.8 + 0.1 * 0.3, 0, 0
    for _ in range(400):
        values = np.r_[rng.random(100) < 0.8, rng.random(100) < 0.3].astype(float)
        strata = np.repeat([0, 1], 100)
        found = mean_weighted(values, np.where(strata == 0, 9.0, 1.0), None, strata)
        assert found.low is not None and found.high is not None
        covered += found.low <= truth <= found.high
        naive += abs(values.mean() - truth) < 0.05
    assert 0.91 <= covered / 400 <= 0.98 and naive < 40


def test_all_right_has_an_interval() -> None:
    found = mean_weighted(np.ones(50), np.r_[np.full(25, 1.0), np.full(25, 9.0)])
    assert found.value == 1 and found.low is not None and 0.8 < found.low < 0.95


def test_a_weighted_difference_is_that_of_the_weighted_means() -> None:
    """What stands for nine rows counts nine times: by hand, and as rows repeated so often do."""
    a, b = np.array([1.0, 1.0, 0.0, 0.0] * 10), np.array([1.0, 0.0, 1.0, 1.0] * 10)
    weights = np.array([9.0, 9.0, 1.0, 1.0] * 10)
    found = paired_difference(a, b, weights=weights)
    assert found.mean_a == pytest.approx(0.9) and found.difference == pytest.approx(-0.35)
    count = weights.astype(int)
    clusters = np.repeat(np.arange(40), count)
    repeated = paired_difference(np.repeat(a, count), np.repeat(b, count), clusters)
    assert found.difference == pytest.approx(repeated.difference)
    assert found.se == pytest.approx(repeated.se, rel=0.02)
    assert found.p == pytest.approx(repeated.p, abs=0.02)
    together = AllPairs(np.stack([a, b, a], axis=1), weights=weights)
    assert together.difference(1, 0) == pytest.approx(-0.35) and together.se[1, 0] == pytest.approx(found.se)
    equal = paired_difference(a, b, weights=np.full(40, 3.0))
    assert equal == paired_difference(a, b), "equal weights change nothing"


def test_weighted_differences_hold_their_level_and_cover() -> None:
    rng = np.random.default_rng(3)
    wrong = covered = 0
    for trial in range(400):
        weights = rng.choice([1.0, 5.0, 20.0], 120)
        base = rng.random(120)
        a, b = (rng.random(120) < base).astype(float), (rng.random(120) < base).astype(float)
        null = decided_difference(a, b, weights=weights, seed=trial)
        wrong += (null.p or 1.0) <= 0.05
        moved = paired_difference(a, b + 0.3, weights=weights, seed=trial, permutations=99)
        covered += (moved.ci_low or 1) <= 0.3 <= (moved.ci_high or 0)
    assert wrong / 400 <= 0.07 and 0.92 <= covered / 400 <= 0.98
