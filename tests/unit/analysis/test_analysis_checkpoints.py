"""Figures over the steps of a training, against simulations whose answer is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from evalrun.analysis.checkpoints import gap_bounds, half_split_worth, simultaneous_band, step_trend
from evalrun.results import GroupValue


def test_what_picking_the_best_of_equals_is_worth() -> None:
    """20 equal checkpoints, n = 100, p = 0.5: the best mean is 0.093 too high (1.867 standard errors);
    the score of what one half picks is right on the other half."""
    naive, worth = [], []
    for seed in range(300):
        values = (np.random.default_rng(seed).random((100, 20)) < 0.5).astype(float)
        naive.append(values.mean(axis=0).max())
        worth.append(half_split_worth(values, None, "higher", seed=seed, halves=40))
    assert np.mean(naive) - 0.5 == pytest.approx(0.093, abs=0.005)
    assert np.mean(worth) == pytest.approx(0.5, abs=0.005)


def test_where_lower_is_better_the_lowest_is_picked() -> None:
    values = np.random.default_rng(1).normal(size=(80, 2)) + np.array([0.0, 5.0])
    assert half_split_worth(values, None, "lower") == pytest.approx(values[:, 0].mean(), abs=0.15)
    assert half_split_worth(values, None, "higher") == pytest.approx(values[:, 1].mean(), abs=0.15)
    assert half_split_worth(values[:3], None, "higher") is None
    assert half_split_worth(values[:, :1], None, "higher") is None


def test_clusters_go_to_one_half_whole() -> None:
    """Copies of few rows tell nothing new: picked by copies, the pick would look as good as it did."""
    apart = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(12, 8))
        values, clusters = np.repeat(rows, 10, axis=0), np.repeat(np.arange(12), 10)
        worth = half_split_worth(values, clusters, "higher", seed=seed, halves=40)
        assert worth is not None
        apart.append(worth)
    assert abs(np.mean(apart)) < 0.1


def test_the_band_holds_for_all_steps_at_once() -> None:
    """In 19 of 20 draws the true curve lies within the band at every step; bounds for each step alone do not
    do that."""
    truth, inside = np.linspace(0.0, 1.0, 8), 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        values = truth + rng.normal(size=(60, 1)) + rng.normal(size=(60, 8))
        low, high = simultaneous_band(values, seed=seed)
        inside += bool(((low <= truth) & (truth <= high)).all())
    assert 0.88 <= inside / 100 <= 0.99


def test_a_step_that_does_not_vary_has_no_band() -> None:
    values = np.column_stack([np.ones(50), np.random.default_rng(0).random(50)])
    band = simultaneous_band(values)
    assert np.isnan(band[:, 0]).all() and not np.isnan(band[:, 1]).any()
    assert np.isnan(simultaneous_band(np.ones((5, 2)))).all()
    assert np.isnan(simultaneous_band(np.ones((1, 2)))).all()


def _tau_b(values: list[float]) -> float:
    """By the definition, pair by pair."""
    pairs = list(itertools.combinations(values, 2))
    concordant = sum(b > a for a, b in pairs) - sum(b < a for a, b in pairs)
    ties = sum(a == b for a, b in pairs)
    return concordant / (len(pairs) * (len(pairs) - ties)) ** 0.5


def test_the_trend_of_what_gets_better() -> None:
    rng = np.random.default_rng(2)
    p = np.linspace(0.3, 0.7, 6)
    values = (rng.random((200, 1)) * 0.5 + rng.random((200, 6)) * 0.5 < p).astype(float)
    trend = step_trend(values, None, "higher")
    assert trend.tau == pytest.approx(_tau_b(values.mean(axis=0).tolist()))
    assert trend.p is not None and trend.p < 0.001
    assert trend.late is not None and trend.late.difference == pytest.approx(
        values[:, 4:].mean() - values[:, 2:4].mean()
    )
    falls = step_trend(values, None, "lower")
    assert falls.tau == pytest.approx(-trend.tau)
    assert step_trend(values[:, :2], None, "higher").tau is None
    assert step_trend(np.ones((5, 4)), None, "higher").tau is None


def test_the_trend_of_noise_is_rarely_told() -> None:
    """Steps that walk at random by sample, so that neighbours are alike: the test is wrong once in twenty."""
    wrong = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=(40, 6)).cumsum(axis=1)
        trend = step_trend(values, None, "higher", seed=seed)
        wrong += trend.p is not None and trend.p <= 0.05
    assert wrong <= 8


def test_bounds_of_a_gap_hold_at_all_steps_at_once_and_reach_zero() -> None:
    """10 steps, 3 groups of 60: of 200 trainings all gaps lie within their bounds in at least 95 %."""
    rng = np.random.default_rng(3)
    for rates in ((0.6, 0.6, 0.6), (0.4, 0.6, 0.7)):
        truth, held, wide = max(rates) - min(rates), 0, 0
        for _ in range(200):
            counts = rng.binomial(60, rates, size=(10, 3)) / 60
            bounds = [gap_bounds([group(m, 60) for m in means], 10, 0.05) for means in counts.tolist()]
            held += all(low <= truth <= high for low, high in bounds if low is not None and high is not None)
            wide += all(low == 0 for low, _ in bounds)
        assert held >= 185
        assert (wide >= 185) == (truth == 0)


def test_a_gap_without_standard_errors_has_no_bounds() -> None:
    assert gap_bounds([GroupValue(0.5, 1, None, compared=True), group(0.5, 9)], 2, 0.05) == (None, None)
    assert gap_bounds([group(0.5, 9)], 2, 0.05) == (None, None)


def group(mean: float, n: int) -> GroupValue:
    return GroupValue(mean, n, (mean * (1 - mean) / (n - 1)) ** 0.5, compared=True)
