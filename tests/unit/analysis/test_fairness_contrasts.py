"""Signed contrasts: the formulas against SciPy's, the coverage and the false alarms by simulation."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from evalrun.analysis import permutation
from evalrun.analysis.bootstrap import bootstrap_units, percentile_interval
from evalrun.analysis.fairness_inference import Contrast, contrast, fisher_exact, jointly_tested
from evalrun.analysis.permutation import Part, by_chance, chance_of_largest


@pytest.mark.parametrize(
    ("hits", "n", "other", "m"), [(3, 40, 9, 35), (0, 50, 4, 60), (50, 50, 60, 60), (7, 9, 1, 8)]
)
def test_fishers_exact_test_is_that_of_scipy(hits: int, n: int, other: int, m: int) -> None:
    table = [[hits, n - hits], [other, m - other]]
    assert fisher_exact(hits, n, other, m) == pytest.approx(stats.fisher_exact(table).pvalue)


def test_newcombes_interval_is_that_of_his_paper() -> None:
    """Newcombe (1998), table II, method 10: 56/70 - 48/80 and 0/20 - 0/10."""
    values = np.concatenate([np.arange(70) < 56, np.arange(80) < 48]).astype(float)
    first = np.arange(150) < 70
    found = contrast(values, first, ~first, None)
    assert (round(found.low or 0, 4), round(found.high or 0, 4)) == (0.0524, 0.3339)
    none = contrast(np.zeros(30), np.arange(30) < 20, np.arange(30) >= 20, None)
    assert (none.value, round(none.low or 0, 4), round(none.high or 0, 4)) == (0.0, -0.2775, 0.1611)
    assert none.p == 1.0


def test_without_clusters_other_values_get_welchs_t() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=90)
    mine = np.arange(90) < 25
    found = contrast(values, mine, ~mine, None)
    expected = stats.ttest_ind(values[mine], values[~mine], equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=0.01)  # whole degrees of freedom
    assert (found.low, found.high) == (
        pytest.approx(interval.low, rel=0.01),
        pytest.approx(interval.high, rel=0.01),
    )


def test_complete_pairs_get_the_paired_t() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(2, 40)) + rng.normal(size=40)
    pairs = np.tile(np.arange(40), 2)
    found = contrast(np.concatenate([one, other]), np.arange(80) < 40, np.arange(80) >= 40, pairs)
    expected = stats.ttest_rel(one, other)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.se == pytest.approx(np.std(one - other, ddof=1) / np.sqrt(40))


def test_no_data_and_no_spread() -> None:
    mine = np.array([True, True, False])
    assert contrast(np.ones(3), mine, np.zeros(3, bool), None).value is None
    clustered = contrast(
        np.array([1.0, 1, 1, 0, 0, 0]), np.arange(6) < 3, np.arange(6) >= 3, np.arange(6) // 1
    )
    assert clustered.value == 1.0
    assert clustered.low is not None
    assert clustered.low < 1.0
    assert clustered.high == 1.0


def clustered_data(rng: np.random.Generator, clusters: int, size: int) -> tuple[Any, Any, Any]:
    """Each cluster has one group and its own rate; the groups are alike."""
    code = np.repeat(np.arange(clusters), size)
    values = (rng.random(clusters * size) < rng.beta(2, 2, clusters)[code]).astype(float)
    return values, code % 2 == 0, code


def test_the_clustered_interval_covers_where_the_plain_one_and_few_bootstrapped_clusters_do_not() -> None:
    rng = np.random.default_rng(2)
    hits = np.zeros(3)
    trials = 400
    for _ in range(trials):
        values, mine, code = clustered_data(rng, 16, 8)
        by_t = contrast(values, mine, ~mine, code)
        plain = contrast(values, mine, ~mine, None)
        totals = np.stack(
            [np.bincount(code, weights=each) for each in (values * mine, mine, values * ~mine, ~mine)], axis=1
        )
        with np.errstate(invalid="ignore"):
            draws = bootstrap_units(
                totals, lambda s: (s[..., :1] / s[..., 1:2]) - (s[..., 2:3] / s[..., 3:]), 3, 300
            )
        boot = percentile_interval(float(by_t.value or 0), 128, draws[:, 0])
        for at, found in enumerate((by_t, plain, boot)):
            hits[at] += found.low is not None and found.low <= 0 <= (found.high or 0)
    covered = hits / trials
    assert 0.925 <= covered[0] <= 0.98
    assert covered[1] < 0.85
    assert covered[2] < covered[0]


def test_with_many_clusters_the_bootstrap_adds_nothing() -> None:
    values, mine, code = clustered_data(np.random.default_rng(3), 400, 4)
    found = contrast(values, mine, ~mine, code)
    totals = np.stack(
        [np.bincount(code, weights=each) for each in (values * mine, mine, values * ~mine, ~mine)], axis=1
    )
    draws = bootstrap_units(totals, lambda s: (s[..., :1] / s[..., 1:2]) - (s[..., 2:3] / s[..., 3:]), 5)
    boot = percentile_interval(float(found.value or 0), len(values), draws[:, 0])
    assert boot.se == pytest.approx(found.se, rel=0.06)
    assert boot.low == pytest.approx(found.low, abs=0.01)
    assert boot.high == pytest.approx(found.high, abs=0.01)


def test_false_alarms_of_contrasts_are_one_in_twenty_at_most() -> None:
    rng = np.random.default_rng(4)
    alarms = []
    for _ in range(600):
        values = (rng.random(200) < 0.3).astype(float)
        mine = np.arange(200) < 80
        found = contrast(values, mine, ~mine, None)
        alarms.append((found.p or 1) <= 0.05)
    assert 0.015 <= np.mean(alarms) <= 0.07


def odds_parts(rng: np.random.Generator, shift: float, clustered: bool) -> list[Part]:
    """Two strata (target positive, negative), three groups; `shift` moves group 0's true positives."""
    parts = []
    for stratum, rate in enumerate((0.7, 0.2)):
        groups = np.repeat(np.arange(3), 40)
        clusters = np.repeat(np.arange(30), 4) if clustered else None
        noise = 0.0 if clusters is None else rng.uniform(-0.15, 0.15, 30)[clusters]
        p = rate + noise + shift * (groups == 0) * (stratum == 0)
        parts.append(Part((rng.random(120) < p).astype(float), groups, clusters))
    return parts


@pytest.mark.parametrize("clustered", [False, True])
def test_equalized_odds_without_a_disparity_alarms_one_time_in_twenty(clustered: bool) -> None:
    rng = np.random.default_rng(6)
    trials = 100
    ps = [chance_of_largest(odds_parts(rng, 0.0, clustered), trial).p for trial in range(trials)]
    assert np.mean(np.array(ps) <= 0.05) <= 0.11


def test_a_known_disparity_is_found() -> None:
    rng = np.random.default_rng(7)
    ps = [chance_of_largest(odds_parts(rng, -0.35, clustered=False), trial).p for trial in range(60)]
    assert np.mean(np.array(ps) <= 0.05) > 0.8


def test_the_expected_gap_of_several_groups_is_that_of_the_literature() -> None:
    """Five groups of 100 at 50 %: on average 0.12, 95th percentile 0.19."""
    chance = chance_of_largest([Part(np.tile([0.0, 1.0], 250), np.repeat(np.arange(5), 100), None)], seed=0)
    assert chance.chance_gap_mean == pytest.approx(0.115, abs=0.015)
    assert chance.chance_gap_p95 == pytest.approx(0.19, abs=0.02)


def contrasts_of(values: Any, groups: Any, clusters: Any, seed: int) -> tuple[list[Contrast], list[float]]:
    chance = by_chance([Part(values, groups, clusters)], seed)
    k = int(groups.max()) + 1
    plain = [
        contrast(values, groups == at, groups != at, clusters, level=1 - 0.05 / (1 if k == 2 else k))
        for at in range(k)
    ]
    results, adjusted = jointly_tested(plain, chance.of_contrasts(range(k)), (None, None), 1 if k == 2 else k)
    return results, [1.0 if p is None else p for p in adjusted]


def lognormal(rng: np.random.Generator) -> tuple[Any, Any, Any]:
    groups = np.repeat(np.arange(4), [30, 30, 30, 1000])
    return rng.lognormal(size=len(groups)), groups, None


def nested(rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Clusters of eight in four groups of 10, 20, 40 and 100 clusters."""
    clusters = np.repeat(np.arange(170), 8)
    groups = np.repeat(np.arange(4), [10, 20, 40, 100])[clusters]
    return (rng.random(len(clusters)) < rng.beta(1, 1, 170)[clusters]).astype(float), groups, clusters


@pytest.mark.parametrize("draw", [lognormal, nested])
def test_contrasts_hold_their_family_at_any_sizes(draw: Any) -> None:
    """By t with Holm's correction it is one in five."""
    rng = np.random.default_rng(8)
    alarms = [min(contrasts_of(*draw(rng), seed=trial)[1]) <= 0.05 for trial in range(60)]
    assert np.mean(alarms) <= 0.13


@pytest.mark.parametrize("kind", ["score", "share", "clustered"])
def test_no_interval_of_a_contrast_excludes_0_where_its_p_sees_nothing(kind: str) -> None:
    rng = np.random.default_rng(9)
    for trial in range(40):
        groups = np.repeat(np.arange(3), [20, 40, 60])
        values = rng.random(120) ** 3 if kind == "score" else (rng.random(120) < 0.4 + 0.1 * groups) * 1.0
        clusters = np.arange(120) // 4 if kind == "clustered" else None
        results, adjusted = contrasts_of(values, groups, clusters, trial)
        for one, p in zip(results, adjusted, strict=True):
            assert one.low is not None
            assert one.high is not None
            assert p <= 0.05 or one.low <= 0 <= one.high


def test_two_groups_against_each_other_are_one_test() -> None:
    rng = np.random.default_rng(10)
    values = rng.normal(size=80)
    groups = np.repeat([0, 1], [30, 50])
    results, adjusted = contrasts_of(values + groups, groups, None, seed=0)
    assert adjusted[0] == adjusted[1] == results[0].p
    assert results[0].low == pytest.approx(-(results[1].high or 0))
    expected = stats.ttest_ind(values[:30], values[30:] + 1, equal_var=False).confidence_interval(0.95)
    assert results[0].low == pytest.approx(expected.low, abs=0.06)
    assert results[0].high == pytest.approx(expected.high, abs=0.06)


def _welch(values: Any, groups: Any) -> float:
    return float(stats.ttest_ind(values[groups == 0], values[groups == 1], equal_var=False).pvalue)


def test_a_small_group_that_spreads_more_is_no_likelier_to_differ_than_welchs_t_says() -> None:
    """Shuffled labels mix both spreads, and such a mixture has shorter tails than the t of so few values."""
    rng = np.random.default_rng(4)
    groups = np.repeat([0, 1], [12, 200])
    alarms = 0
    for trial in range(150):
        values = rng.normal(size=212) * np.where(groups == 0, 4.0, 1.0)
        chance = by_chance([Part(values, groups, None)], trial)
        assert chance.result.p is not None
        assert chance.result.p >= _welch(values, groups) * 0.9 - 0.002
        assert chance.of_contrasts([0, 1]).adjusted([0])[0] == pytest.approx(chance.result.p)
        alarms += chance.result.p <= 0.05
    assert alarms <= 12, "5 % of 150 are 7.5; permuting alone gave 8 %"


def test_permuted_statistics_keep_their_order_and_reach_the_t_of_so_few_units() -> None:
    drawn = np.abs(np.random.default_rng(1).normal(size=(999, 3)))
    wide = permutation._at_least_t(drawn, np.array([4.0, 4.0, 1e6]))
    assert np.all(wide >= drawn)
    assert np.array_equal(np.argsort(wide, axis=0)[-200:], np.argsort(drawn, axis=0)[-200:])
    for column, df in ((0, 4.0), (2, 1e6)):
        for level in (0.5, 0.9, 0.95, 0.99):
            least = stats.t.ppf((1 + level) / 2, df)
            assert np.quantile(wide[:, column], level) >= least * 0.97
    assert np.quantile(wide[:, 0], 0.95) == pytest.approx(stats.t.ppf(0.975, 4), rel=0.03)
