"""Paired differences: tests and intervals against SciPy, and by simulation that they keep their word."""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evalrun.analysis.correction import benjamini_hochberg, corrected, holm
from evalrun.analysis.paired import (
    agreeing,
    equivalent,
    mcnemar_exact,
    non_inferiority,
    paired_difference,
    samples_needed,
    score_interval,
    sign_flip,
)
from evalrun.analysis.verdict import verdict
from evalrun.sweep_results import PairedResult


def pairs_of(a_only: int, b_only: int, both: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = [1.0] * a_only + [0.0] * b_only + [1.0] * both + [0.0] * neither
    b = [0.0] * a_only + [1.0] * b_only + [1.0] * both + [0.0] * neither
    return np.array(a), np.array(b)


@cache
def binary(a_only: int, b_only: int, n: int) -> PairedResult:
    return paired_difference(*pairs_of(a_only, b_only, n - a_only - b_only, 0))


# McNemar


@settings(deadline=None)
@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_is_the_binomial_test(a_only: int, b_only: int) -> None:
    # Far below that SciPy gives 0.
    expected = stats.binomtest(a_only, a_only + b_only).pvalue if a_only + b_only else 1.0
    assert mcnemar_exact(a_only, b_only) == pytest.approx(expected, rel=1e-9, abs=1e-250)


def test_mcnemar_of_a_very_large_table() -> None:
    expected = stats.binomtest(49_500, 100_000).pvalue
    assert mcnemar_exact(49_500, 50_500) == pytest.approx(expected, rel=1e-8)


def test_mcnemar_of_a_published_table() -> None:
    # Agresti, Categorical Data Analysis: 150 and 86 discordant of 1600; exact p = 3.7e-5.
    result = paired_difference(*pairs_of(150, 86, 794, 570))
    assert result.test == "mcnemar-exact"
    assert result.p == pytest.approx(3.716e-5, rel=1e-3)
    assert result.discordant == (150, 86)
    assert result.difference == pytest.approx(-0.04)
    assert result.se == pytest.approx(0.0095, abs=1e-4)


def test_order_of_the_runs_only_turns_the_sign() -> None:
    a, b = pairs_of(12, 30, 100, 58)
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one.difference == pytest.approx(-other.difference)
    assert one.p == other.p
    assert one.ci_low == pytest.approx(-other.ci_high)


# The permutation test


def test_few_units_are_flipped_in_all_ways() -> None:
    values = np.array([0.3, -0.1, 0.4, 0.25, 0.05, 0.6, 0.2])
    found = sign_flip(values, seed=0)
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert found.exact
    assert found.p == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("kind", ["continuous", "few sizes", "many"])
def test_permutation_p_is_near_that_of_t(kind: str) -> None:
    rng = np.random.default_rng(5)
    n = 20_000 if kind == "many" else 400
    values = rng.normal(0.12 if n == 400 else 0.017, 1, n)
    if kind == "few sizes":
        values = np.round(values)
    expected = stats.ttest_1samp(values, 0).pvalue
    assert sign_flip(values, seed=1).p == pytest.approx(expected, rel=0.35, abs=0.004)


def test_p_is_never_zero_and_the_seed_fixes_it() -> None:
    values = np.random.default_rng(0).normal(3, 1, 100)
    assert sign_flip(values, seed=1).p == pytest.approx(1 / 10_001)
    noise = values - 2.9
    assert sign_flip(noise, seed=1) == sign_flip(noise, seed=1)
    assert sign_flip(noise, seed=1).p != sign_flip(noise, seed=2).p


def test_clusters_are_flipped_whole() -> None:
    # Ten clusters of 40 equal differences: 400 samples, but only ten tosses of a coin.
    signs = np.array([1, 1, 1, 1, 1, 1, 1, 1, -1, -1], np.float64)
    d = np.repeat(signs * 0.5, 40)
    clustered = paired_difference(np.zeros(400), d, np.repeat(np.arange(10), 40))
    assert clustered.test == "clustered-permutation"
    assert clustered.n_clusters == 10
    assert clustered.p == pytest.approx(stats.binomtest(2, 10).pvalue)
    naive = paired_difference(np.zeros(400), d)
    assert naive.p < 0.001


def test_too_few_clusters_say_so() -> None:
    rng = np.random.default_rng(1)
    b = rng.normal(2, 0.1, 50)
    result = paired_difference(np.zeros(50), b, np.arange(50) % 5)
    assert result.p > 0.05
    assert "fewer than 6 clusters" in result.note
    assert result.mde is None


def test_clusters_of_one_are_no_clusters() -> None:
    a, b = pairs_of(3, 12, 20, 15)
    plain, clustered = paired_difference(a, b), paired_difference(a, b, np.arange(50))
    assert clustered == plain


# Intervals


def test_the_interval_of_0_and_1_is_tangos_however_many_pairs_disagree() -> None:
    a, b = pairs_of(0, 28, 2, 0)
    result = paired_difference(a, b)
    assert (round(result.ci_low, 3), round(result.ci_high, 3)) == (0.714, 0.982)  # t would say 1.028
    a, b = pairs_of(40, 60, 100, 100)
    result = paired_difference(a, b)
    assert (result.ci_low, result.ci_high) == score_interval(40, 60, 300)
    plain = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert (result.ci_low, result.ci_high) == pytest.approx((plain.low, plain.high), abs=0.001)
    assert result.method == "score"


@pytest.mark.parametrize(("a_only", "b_only"), [(0.0, 0.93), (0.02, 0.9), (0.2, 0.2)])
def test_intervals_of_many_discordant_pairs_cover(a_only: float, b_only: float) -> None:
    rng = np.random.default_rng(1)
    tables = rng.multinomial(50, [a_only, b_only, 1 - a_only - b_only], 800)
    covered = 0
    for a, b, _ in tables.tolist():
        result = binary(a, b, 50)
        covered += result.ci_low <= b_only - a_only <= result.ci_high
    assert 0.93 <= covered / 800 <= 0.99


def test_a_difference_of_values_between_0_and_1_is_no_more_than_1() -> None:
    b = np.array([1.0, 1.0, 0.9, 1.0, 0.2, 1.0])
    result = paired_difference(np.zeros(6), b)
    assert result.ci_high == 1.0
    codes = np.repeat([0, 1, 2], 2)
    assert paired_difference(np.zeros(6), b, codes).ci_high == 1.0


def test_score_interval_of_a_published_table() -> None:
    # Bentur et al. in Fagerland, Lydersen and Laake (2014): 7 and 1 discordant of 21.
    assert score_interval(7, 1, 21) == pytest.approx((-0.517, -0.026), abs=6e-4)
    assert mcnemar_exact(7, 1) == pytest.approx(0.0703, abs=1e-4)


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 500))
def test_at_a_bound_the_score_statistic_is_z(a_only: int, b_only: int, agreeing: int) -> None:
    n = a_only + b_only + agreeing
    low, high = score_interval(a_only, b_only, n)
    assert -1 <= low < (b_only - a_only) / n < high <= 1
    for bound in (low, high):
        linear = -a_only - b_only + (2 * n - b_only + a_only) * bound
        q = (math.sqrt(linear**2 + 8 * n * a_only * bound * (1 - bound)) - linear) / (4 * n)
        statistic = (b_only - a_only - n * bound) / math.sqrt(n * (2 * q + bound * (1 - bound)))
        assert abs(statistic) == pytest.approx(stats.norm.ppf(0.975), rel=1e-4)


def test_no_discordant_pair_still_has_an_interval() -> None:
    result = paired_difference(np.ones(200), np.ones(200))
    z2 = stats.norm.ppf(0.975) ** 2
    assert result.p == 1
    assert (result.ci_low, result.ci_high) == pytest.approx((-z2 / (200 + z2), z2 / (200 + z2)), rel=1e-6)
    assert "no pair differs" in result.note


def test_equal_clusters_bound_by_the_number_of_clusters() -> None:
    few = paired_difference(np.ones(200), np.ones(200), np.arange(200) % 10)
    z2 = stats.norm.ppf(0.975) ** 2
    assert few.ci_high == pytest.approx(z2 / (10 + z2), rel=1e-6)


@pytest.mark.parametrize(
    ("n", "a_only", "b_only", "most"),
    [
        (30, 0.15, 0.15, 0.97), (30, 0.3, 0.1, 0.97), (30, 0.02, 0.06, 1.0), (30, 0.02, 0.0, 1.0),
        (100, 0.1, 0.1, 0.97), (100, 0.02, 0.1, 0.97), (100, 0.0, 0.02, 1.0), (100, 0.005, 0.005, 1.0),
        (1000, 0.1, 0.1, 0.97), (1000, 0.06, 0.02, 0.97), (1000, 0.02, 0.0, 0.97), (1000, 0.005, 0.005, 0.97),
    ],
)  # fmt: skip
def test_binary_interval_covers(n: int, a_only: float, b_only: float, most: float) -> None:
    # With a handful of discordant pairs expected no interval is exact; it then covers more often, not less.
    draws = np.random.default_rng(n).multinomial(n, [a_only, b_only, 1 - a_only - b_only], size=4000)
    tables, counts = np.unique(draws[:, :2], axis=0, return_counts=True)
    truth, covered = b_only - a_only, 0
    for (lost, won), count in zip(tables.tolist(), counts.tolist(), strict=True):
        low, high = score_interval(lost, won, n)
        covered += count * (low <= truth <= high)
    assert 0.93 <= covered / 4000 <= most
    result = binary(*tables[counts.argmax()].tolist(), n)
    assert (result.ci_low, result.ci_high) == score_interval(*tables[counts.argmax()].tolist(), n)


@pytest.mark.parametrize("n", [30, 100, 1000])
def test_skewed_differences_are_covered(n: int) -> None:
    rng = np.random.default_rng(n)
    covered = 0
    for _ in range(1500):
        a = rng.exponential(size=n)
        # The true difference of the means is 0.2; the differences are skewed.
        b = a * 0.5 + rng.exponential(size=n) * 0.7
        result = paired_difference(a, b, permutations=1)
        covered += result.ci_low <= 0.2 <= result.ci_high
    assert 0.93 <= covered / 1500 <= 0.97


@pytest.mark.parametrize(("clusters", "least"), [(60, 0.93), (10, 0.92)])
def test_clustered_differences_are_covered(clusters: int, least: float) -> None:
    rng = np.random.default_rng(clusters)
    codes = np.repeat(np.arange(clusters), 5)
    covered = naive = 0
    for _ in range(1500):
        shared = rng.normal(0, 1, clusters)[codes]
        b = 0.3 + shared + rng.normal(0, 0.5, len(codes))
        result = paired_difference(np.zeros(len(codes)), b, codes, permutations=1)
        covered += result.ci_low <= 0.3 <= result.ci_high
        half = 1.96 * b.std(ddof=1) / math.sqrt(len(b))
        naive += abs(b.mean() - 0.3) <= half
    assert least <= covered / 1500 <= 0.97
    assert naive / 1500 < 0.75  # what forgetting the clusters would give


def test_few_unequal_skewed_clusters_cannot_be_covered_and_that_is_said() -> None:
    rng = np.random.default_rng(10)
    codes = np.repeat(np.arange(10), rng.integers(1, 20, 10))
    covered = 0
    for _ in range(600):
        b = 0.3 + rng.exponential(1, 10)[codes] - 1 + rng.normal(0, 0.5, len(codes))
        result = paired_difference(np.zeros(len(codes)), b, codes, permutations=1)
        covered += result.ci_low <= 0.3 <= result.ci_high
        assert "so few that the interval may be too narrow" in result.note
    assert 0.84 <= covered / 600 <= 0.93


# Errors of the first kind, and power


@pytest.mark.parametrize("discordance", [0.1, 0.3])
def test_equal_runs_are_rarely_told_apart(discordance: float) -> None:
    half = discordance / 2
    draws = np.random.default_rng(3).multinomial(200, [half, half, 1 - discordance], size=4000)
    tables, counts = np.unique(draws[:, :2], axis=0, return_counts=True)
    rate = np.average([mcnemar_exact(a, b) <= 0.05 for a, b in tables.tolist()], weights=counts)
    assert 0.02 <= rate <= 0.055  # the exact test keeps below 5 %, and some way below it with few pairs


def test_permutation_keeps_its_level_on_skewed_and_clustered_nulls() -> None:
    rng = np.random.default_rng(11)
    codes = np.repeat(np.arange(40), 3)
    plain = clustered = 0
    for seed in range(600):
        latency = rng.lognormal(0, 1, (2, 40))
        plain += paired_difference(latency[0], latency[1], seed=seed, permutations=1000).p <= 0.05
        shared = rng.integers(-1, 2, 40)[codes] * 0.5
        clustered += paired_difference(np.zeros(120), shared, codes, seed=seed, permutations=1000).p <= 0.05
    assert 0.03 <= plain / 600 <= 0.072
    assert 0.025 <= clustered / 600 <= 0.072


@pytest.mark.parametrize(
    ("n", "churn", "tests"), [(100, 0.1, 1), (300, 0.3, 1), (1000, 0.1, 1), (300, 0.1, 29), (1000, 0.04, 29)]
)
def test_a_detectable_difference_is_detected_four_times_in_five(n: int, churn: float, tests: int) -> None:
    """At the level that decides: of 29 tests corrected together, the strictest of Holm's steps. Half of the
    pairs that disagree both ways stay as they are; the difference comes on top."""
    even = round(n * churn / 2)
    a, b = pairs_of(even, even, n // 2, n - 2 * even - n // 2)
    mde = paired_difference(a, b, tests=tests).mde or 0
    draws = np.random.default_rng(4).multinomial(n, [churn / 2, churn / 2 + mde, 1 - churn - mde], size=2000)
    rate = np.mean([mcnemar_exact(a, b) <= 0.05 / tests for a, b, _ in draws.tolist()])
    assert 0.78 <= rate <= 0.87


def test_samples_needed_are_those_that_find_it_four_times_in_five() -> None:
    needed = samples_needed(binary(10, 10, 200), 0.05) or 0
    draws = np.random.default_rng(5).multinomial(needed, [0.05, 0.10, 0.85], size=2000)
    assert 0.78 <= np.mean([mcnemar_exact(a, b) <= 0.05 for a, b, _ in draws.tolist()]) <= 0.85


def test_independent_runs_disagree_more_and_see_less() -> None:
    """Two runs that are right in half of the samples independently disagree in half of them."""
    a, b = pairs_of(10, 10, 90, 90)
    result = paired_difference(a, b)
    mde = result.mde_independent or 0
    assert mde > 1.5 * (result.mde or 1)
    rng = np.random.default_rng(6)
    first, second = rng.random((1500, 200)) < 0.5, rng.random((1500, 200)) < 0.5 - mde
    lost, won = (first & ~second).sum(axis=1), (~first & second).sum(axis=1)
    found = [mcnemar_exact(int(x), int(y)) <= 0.05 for x, y in zip(lost, won, strict=True)]
    assert 0.77 <= np.mean(found) <= 0.86
    scores = np.random.default_rng(7).random((2, 80))
    of_scores = paired_difference(scores[0], scores[0] + 0.01 * scores[1])
    apart = math.hypot(*(np.std(each, ddof=1) / math.sqrt(80) for each in (scores[0], scores[0])))
    assert of_scores.mde_independent == pytest.approx((1.99 + 0.846) * apart, rel=0.02)


def test_few_discordant_pairs_promise_nothing_they_cannot_keep() -> None:
    # Two discordant pairs of 100: the standard error alone would say 4 points, but p <= 0.05 takes six pairs.
    result = binary(1, 1, 100)
    mde = result.mde or 0
    draws = np.random.default_rng(8).multinomial(100, [0.01, 0.01 + mde, 0.98 - mde], size=2000)
    assert 0.78 <= np.mean([mcnemar_exact(a, b) <= 0.05 for a, b, _ in draws.tolist()]) <= 0.9


def test_bounds_of_several_tests_hold_together_and_agree_with_the_corrected_p() -> None:
    a, b = pairs_of(5, 16, 30, 49)
    alone, of_ten = paired_difference(a, b), paired_difference(a, b, tests=10)
    assert alone.p == of_ten.p
    assert (of_ten.ci_low, of_ten.ci_high) == score_interval(5, 16, 100, 0.995)
    assert (alone.ci_low or 0) > 0
    seen_nothing = agreeing(alone, 0.2)
    assert seen_nothing.ci_low == 0.0
    assert agreeing(alone, 0.01) == alone


# What goes in


def test_missing_values_are_dropped_in_pairs_and_counted() -> None:
    a = np.array([1, np.nan, 0, 1, 0, 1, np.nan, 1.0])
    b = np.array([1, 1, np.nan, 0, 0, 1, np.nan, 0.0])
    result = paired_difference(a, b, np.array([0, 0, 1, 1, 2, 2, 3, 3]))
    assert (result.n, result.dropped, result.n_clusters) == (5, 3, 4)
    assert result.mean_a == pytest.approx(4 / 5)


def test_nothing_to_compare() -> None:
    result = paired_difference(np.array([np.nan]), np.array([1.0]))
    assert (result.n, result.dropped, result.p, result.difference) == (0, 1, None, None)
    assert verdict(result).word == "inconclusive"


def test_one_pair_says_nothing() -> None:
    result = paired_difference(np.array([0.0]), np.array([1.0]))
    assert (result.p, result.ci_low, result.mde) == (1.0, None, None)
    assert verdict(result).word == "inconclusive"


def test_arrays_must_be_aligned() -> None:
    with pytest.raises(ValueError, match="same length"):
        paired_difference(np.zeros(3), np.zeros(4))


def test_correlation_is_pearsons_and_absent_for_constants() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 50))
    assert paired_difference(a, b).correlation == pytest.approx(stats.pearsonr(a, b).statistic)
    assert paired_difference(a, np.full(50, 0.3)).correlation is None


# Non-inferiority and equivalence


def test_equivalence_is_two_one_sided_t_tests() -> None:
    rng = np.random.default_rng(8)
    for shift in (0.0, 0.05, 0.08, 0.12):
        a = rng.normal(size=300)
        b = a + rng.normal(shift, 0.5, 300)
        d = b - a
        p = max(
            stats.ttest_1samp(d, -0.1, alternative="greater").pvalue,
            stats.ttest_1samp(d, 0.1, alternative="less").pvalue,
        )
        assert equivalent(paired_difference(a, b), 0.1) == (p < 0.05)


def test_non_inferiority_looks_at_the_bad_side_only() -> None:
    result = binary(10, 60, 400)  # b is better by 12 points
    assert non_inferiority(result, 0.02, "higher")
    assert not non_inferiority(result, 0.02, "lower")
    assert not non_inferiority(result, 0.02, "none")
    noise = binary(20, 20, 200)
    assert not non_inferiority(noise, 0.02)
    assert non_inferiority(noise, 0.08)


# Corrections


def test_holm_is_the_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.04, None, 0.02]) == [0.04, None, 0.04]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_benjamini_hochberg_is_that_of_scipy(ps: list[float]) -> None:
    assert benjamini_hochberg(ps) == pytest.approx(stats.false_discovery_control(ps).tolist())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_lies_between_p_and_bonferroni(ps: list[float]) -> None:
    for p, adjusted in zip(ps, holm(ps), strict=True):
        assert p <= adjusted <= min(1.0, len(ps) * p) + 1e-12
    ranks = np.argsort(ps, kind="stable")
    assert (np.diff(np.array(holm(ps))[ranks]) >= 0).all()


# Verdicts


def test_inconclusive_says_what_n_could_see() -> None:
    result = binary(20, 21, 200)
    found = verdict(result)
    assert found.word == "inconclusive"
    assert (
        found.sentence
        == "n = 200 cannot see less than 12 points (11 if they answered independently); about 830 would see 5"
    )


def test_the_margin_is_what_more_samples_should_see() -> None:
    a, b = pairs_of(20, 21, 100, 59)
    found = verdict(paired_difference(a, b, margin=0.03))
    assert (
        found.sentence == "n = 200 cannot see less than 12 points (15 if they answered independently); "
        "about 2,100 would see 3"
    )


def test_direction_decides_what_is_better() -> None:
    result = binary(10, 60, 400)
    assert verdict(result, "higher").word == "better"
    assert verdict(result, "lower").word == "worse"
    assert verdict(result, "none").word == "higher"
    assert verdict(result, "higher", p=0.2).word == "inconclusive"  # corrected away
    assert verdict(result).sentence.startswith("+12 points (p = ")


def test_equivalent_within_the_margin_even_where_a_difference_is_certain() -> None:
    a, b = pairs_of(10, 60, 5000, 4930)
    assert verdict(paired_difference(a, b)).word == "better"
    found = verdict(paired_difference(a, b, margin=0.02))
    assert found.word == "equivalent"
    assert "certain" in found.sentence
    assert verdict(paired_difference(np.ones(1000), np.ones(1000), margin=0.01)).word == "equivalent"
    assert verdict(paired_difference(np.ones(20), np.ones(20), margin=0.01)).word == "inconclusive"


def test_other_units_are_not_said_in_points() -> None:
    rng = np.random.default_rng(0)
    a = rng.exponential(size=50)
    assert "points" not in verdict(paired_difference(a, rng.exponential(size=50)), "lower", "s").sentence
    found = verdict(paired_difference(a, a + 1.0 + 0.1 * rng.random(50)), "lower", "s")
    assert found.word == "worse"
    assert found.sentence.startswith("+1 s") or found.sentence.startswith("+1.1 s")


def test_a_correction_is_chosen_by_its_name() -> None:
    ps = [0.01, 0.04, None, 0.03]
    by_holm, by_bh, plain = (corrected(ps, how) for how in ("holm", "bh", "none"))
    assert by_holm == pytest.approx([0.03, 0.06, None, 0.06])
    assert by_bh == pytest.approx([0.03, 0.04, None, 0.04])
    assert plain == ps
