"""Weighted means: values by hand, the usual formula where weights are equal, and coverage by simulation."""

import numpy as np
import pytest

from evalrun.analysis.intervals import mean_clustered
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
