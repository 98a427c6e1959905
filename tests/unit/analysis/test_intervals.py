"""Intervals: their formulas against SciPy, and by simulation that they cover."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evalrun.analysis import bootstrap, intervals
from evalrun.analysis.distributions import binomial_cdf, normal_quantile, sorted_quantile, t_quantile

Draw = Callable[[np.random.Generator, int], np.ndarray]
VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@pytest.mark.parametrize("df", [1, 1.05, 1.7, 2, 2.3, 3, 4, 5, 7, 10, 19, 30, 100, 1999, 10**5, 10**7])
@pytest.mark.parametrize("p", [0.6, 0.9, 0.975, 0.995, 0.9999])
def test_t_quantiles_are_those_of_scipy(df: float, p: float) -> None:
    assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-8)


@pytest.mark.parametrize("n", [1, 5, 11, 662, 100_000])
@pytest.mark.parametrize("p", [0.5, 0.9, 0.99])
def test_binomial_probabilities_are_those_of_scipy(n: int, p: float) -> None:
    start, below = binomial_cdf(n, p)
    expected = stats.binom.cdf(np.arange(start, start + len(below)), n, p)
    np.testing.assert_allclose(below, expected, atol=1e-11)


@settings(deadline=None)
@given(VALUES, st.floats(0, 1))
def test_quantiles_are_those_of_numpy(values: list[float], q: float) -> None:
    ordered = np.sort(np.array(values))
    assert sorted_quantile(ordered, q) == pytest.approx(float(np.quantile(ordered, q)), rel=1e-9, abs=1e-6)


@settings(deadline=None)
@given(st.integers(2, 5000), st.data())
def test_wilson_is_that_of_scipy(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    found = intervals.wilson(hits, n)
    expected = stats.binomtest(hits, n).proportion_ci(0.95, "wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_t_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).exponential(size=37)
    found = intervals.mean_t(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-10)
    assert found.se == pytest.approx(stats.sem(values))
    assert found.method == "t"


def cr2_by_matrices(values: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """(SE, degrees of freedom) of the mean as a regression on a constant: A_g = (I - H_gg)^(-1/2) by
    eigenvalues, and the moments of p_g'e for independent errors (Bell and McCaffrey 2002)."""
    n = len(values)
    hat = np.full((n, n), 1 / n)
    residuals = values - hat @ values
    meat, columns = 0.0, []
    for code in np.unique(clusters):
        rows = np.flatnonzero(clusters == code)
        size, vectors = np.linalg.eigh(np.eye(len(rows)) - hat[np.ix_(rows, rows)])
        root = vectors @ np.diag(size**-0.5) @ vectors.T
        ones = np.ones(len(rows))
        meat += float(ones @ root @ residuals[rows]) ** 2
        columns.append((np.eye(n) - hat)[:, rows] @ root @ ones / n)
    p = np.stack(columns, axis=1)
    moments = p.T @ p
    return math.sqrt(meat) / n, float(np.trace(moments) ** 2 / (moments**2).sum())


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=8), st.integers(0, 2**32 - 1))
def test_clustered_intervals_are_cr2_with_satterthwaite(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    values = rng.normal(size=len(clusters)) + rng.normal(size=len(sizes))[clusters]
    found = intervals.mean_clustered(values, clusters)
    se, df = cr2_by_matrices(values, clusters)
    assert found.se == pytest.approx(se)
    assert found.clusters is not None and found.clusters.df == pytest.approx(df)
    assert found.high == pytest.approx(values.mean() + stats.t.ppf(0.975, df) * se)
    assert found.clusters.effective == pytest.approx(sum(sizes) ** 2 / sum(size**2 for size in sizes))
    plain = float(values.var(ddof=1)) / len(values)
    assert found.clusters.design_effect == pytest.approx(se**2 / plain)


def test_equal_clusters_have_the_published_formula() -> None:
    values = np.array([1.0, 1, 0, 0, 1, 0.5, 0.2, 0.1, 0.9])
    clusters = np.repeat([0, 1, 2], 3)
    sums = (values - values.mean()).reshape(3, 3).sum(axis=1)
    found = intervals.mean_clustered(values, clusters)
    assert found.se == pytest.approx(math.sqrt(3 / 2 * float(sums @ sums)) / 9)
    assert found.clusters is not None and found.clusters.df == pytest.approx(2)
    groups = values.reshape(3, 3)
    between = 3 * float(groups.mean(axis=1).var(ddof=1))
    within = float(groups.var(axis=1, ddof=1).mean())
    assert found.clusters.icc == pytest.approx((between - within) / (between + 2 * within))
    assert "3 clusters" in found.note and "may be too narrow" in found.note


def test_uneven_clusters_say_what_they_are_worth() -> None:
    rng = np.random.default_rng(4)
    clusters = np.concatenate([np.zeros(200, np.int64), np.repeat(np.arange(1, 41), 5)])
    found = intervals.mean_clustered(rng.random(400), clusters)
    assert "41 clusters worth 3.90 of equal size" in found.note.replace("3.9 ", "3.90 ")
    assert "so few that" in found.note and "design effect" in found.note
    many = intervals.mean_clustered(rng.random(400), np.repeat(np.arange(40), 10))
    assert "may be too narrow" not in many.note and "40 clusters, design effect" in many.note


@pytest.mark.parametrize("hits", [0, 99, 70])
def test_clusters_of_one_row_each_are_no_clusters(hits: int) -> None:
    values = np.repeat([1.0, 0.0], [hits, 100 - hits])
    found = intervals.mean(values, np.arange(100)[::-1].copy())
    assert found == intervals.mean(values)
    assert found.method == "wilson" and found.clusters is None
    scores = np.linspace(0, 1, 100)
    assert intervals.mean(scores, np.arange(100)) == intervals.mean(scores)


@pytest.mark.parametrize("sizes", [(12, 12, 12), tuple(range(1, 31)), (95, *[5] * 19)])
def test_clustered_intervals_cover(sizes: tuple[int, ...]) -> None:
    """Scores that share a part of their variance with their cluster, as far as three clusters can tell."""
    rng = np.random.default_rng(8)
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    covered = 0
    for _ in range(600):
        values = 0.3 * rng.normal(size=len(sizes))[clusters] + rng.normal(size=len(clusters))
        found = intervals.mean_clustered(values, clusters)
        assert found.low is not None and found.high is not None
        covered += found.low <= 0 <= found.high
    assert 0.93 <= covered / 600 <= 0.99


def test_clusters_of_one_give_the_ordinary_standard_error() -> None:
    values = np.random.default_rng(2).random(50)
    found = intervals.mean_clustered(values, np.arange(50))
    assert found.se == pytest.approx(intervals.mean_t(values).se)


def test_the_method_suits_the_data() -> None:
    ones = np.array([1.0, 0, 1, 1])
    assert intervals.mean(ones).method == "wilson"
    assert intervals.mean(ones, repeated=True).method == "t"
    assert intervals.mean(np.array([0.5, 1, 0, 1])).method == "t"
    assert intervals.mean(ones, np.array([0, 0, 1, 1])).method == "clustered-t"


def test_no_data_has_no_value_and_one_sample_no_interval() -> None:
    for found in (
        intervals.mean(np.empty(0)),
        intervals.wilson(0, 0),
        intervals.mean_clustered(np.empty(0), np.empty(0, np.int64)),
        intervals.percentile(np.empty(0), 0.5),
    ):
        assert (found.value, found.n, found.low) == (None, 0, None)
        assert found.note
    for found in (intervals.mean(np.array([1.0])), intervals.mean(np.array([0.3]))):
        assert found.value is not None
        assert found.low is found.se is None
        assert "one sample" in found.note


def test_a_run_without_an_error_still_has_an_interval_of_some_width() -> None:
    perfect = np.ones(60)
    assert intervals.mean(perfect).low == pytest.approx(60 / (60 + 1.959964**2))
    clustered = intervals.mean(perfect, np.repeat(np.arange(6), 10))
    assert clustered.low == pytest.approx(6 / (6 + 1.959964**2))
    assert clustered.n == 60
    assert "6 clusters" in clustered.note
    assert intervals.mean(perfect, repeated=True).low == intervals.mean(perfect).low


def test_intervals_stay_within_what_the_metric_can_be() -> None:
    values = np.array([1.0, 1, 0.4, 1, 0.3])
    assert intervals.mean(values, bounds=(0, 1)).high == 1.0
    assert intervals.mean(values).high > 1.0


def ones(share: float) -> Draw:
    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        values = rng.random(n)
        values[rng.random(n) < share] = 1.0
        return values

    return draw


def pass_at_5(a: float, b: float) -> Draw:
    missed = np.array([math.comb(10 - right, 5) / math.comb(10, 5) for right in range(11)])

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return 1 - missed[rng.binomial(10, rng.beta(a, b, n))]

    return draw


@pytest.mark.parametrize("draw", [ones(0.95), ones(0.99), pass_at_5(8, 1), pass_at_5(2, 1)])
@pytest.mark.parametrize("n", [10, 30, 100, 1000])
def test_means_near_a_bound_are_covered(draw: Draw, n: int) -> None:
    rng = np.random.default_rng(n)
    truth = float(draw(rng, 2_000_000).mean())
    covered = 0
    for _ in range(300):
        found = intervals.mean(draw(rng, n), bounds=(0.0, 1.0), repeated=True)
        assert found.low is not None and found.high is not None
        covered += found.low <= truth <= found.high
    assert covered / 300 >= 0.92


def test_the_scale_of_a_skewed_mean_is_that_of_its_bounds() -> None:
    values = np.array([1.0] * 19 + [0.2])
    share, percent = intervals.mean(values, bounds=(0, 1)), intervals.mean(100 * values, bounds=(0, 100))
    assert share.method == percent.method == "wilson" and "pile up" in share.note
    assert (percent.low, percent.high) == pytest.approx((100 * share.low, 100 * share.high))
    assert share.se == pytest.approx(intervals.mean_t(values).se)
    assert (share.low, share.high) == pytest.approx(
        (intervals.wilson(19.2, 20).low, intervals.wilson(19.2, 20).high)
    )


def test_skewed_means_without_a_bound_say_so() -> None:
    rng = np.random.default_rng(3)
    said = dict.fromkeys((0.1, 1.0, 1.5), 0)
    for sigma in said:
        for _ in range(200):
            said[sigma] += "skewed" in intervals.mean(rng.lognormal(0, sigma, 30)).note
    assert said[0.1] <= 10 and said[1.0] > 140 and said[1.5] > 190
    assert intervals.mean(rng.normal(size=50)).note == ""
    assert intervals.skewed(np.full(20, 0.1)) == "" == intervals.skewed(np.array([1.0, 9.0]))


@settings(deadline=None)
@given(VALUES)
def test_a_percentile_lies_in_its_interval(values: list[float]) -> None:
    ordered = np.sort(np.array(values))
    for q in (0.5, 0.9, 0.95, 0.99):
        found = intervals.percentile(ordered, q)
        assert found.value is not None
        if found.low is not None and found.high is not None:
            assert found.low <= found.value <= found.high


SIMULATIONS = 2000


def coverage(estimates: list[intervals.Estimate], truth: float) -> float:
    inside = [
        each.low is not None and each.high is not None and each.low <= truth <= each.high
        for each in estimates
    ]
    return sum(inside) / len(inside)


@pytest.mark.parametrize("p", [0.5, 0.2, 0.05, 0.98])
@pytest.mark.parametrize("n", [30, 100, 1000])
def test_wilson_covers_on_average(n: int, p: float) -> None:
    # Exact, not simulated: the coverage over all outcomes. Wilson oscillates around 95 % (Brown et al. 2001).
    outcomes = np.arange(n + 1)
    estimates = [intervals.wilson(int(k), n) for k in outcomes]
    inside = [e.low is not None and e.high is not None and e.low <= p <= e.high for e in estimates]
    assert 0.92 <= float(stats.binom.pmf(outcomes, n, p) @ inside) <= 0.985


@pytest.mark.parametrize("n", [30, 200])
def test_t_covers_for_bounded_scores(n: int) -> None:
    rng = np.random.default_rng(3)
    found = [intervals.mean(rng.beta(2, 1, n), bounds=(0, 1)) for _ in range(SIMULATIONS)]
    assert 0.93 <= coverage(found, 2 / 3) <= 0.97


@pytest.mark.parametrize("clusters", [20, 100])
def test_clustered_covers_where_the_plain_interval_does_not(clusters: int) -> None:
    rng = np.random.default_rng(4)
    codes = np.repeat(np.arange(clusters), 10)
    right, plain = [], []
    for _ in range(SIMULATIONS):
        chance = rng.beta(2, 2, clusters)
        values = (rng.random(len(codes)) < chance[codes]).astype(float)
        right.append(intervals.mean(values, codes))
        plain.append(intervals.mean(values))
    assert 0.92 <= coverage(right, 0.5) <= 0.97
    assert coverage(plain, 0.5) < 0.87


@pytest.mark.parametrize(("q", "n"), [(0.5, 11), (0.5, 200), (0.9, 64), (0.95, 130), (0.99, 662)])
def test_order_statistics_cover_skewed_latencies(q: float, n: int) -> None:
    rng = np.random.default_rng(5)
    truth = float(stats.lognorm.ppf(q, 1.0))
    found = [intervals.percentile(np.sort(rng.lognormal(0, 1, n)), q) for _ in range(SIMULATIONS)]
    assert all(each.method == "order-statistic" for each in found)
    assert 0.94 <= coverage(found, truth) <= 0.995


def test_bootstrap_of_kinds_and_of_units_agree_with_theory() -> None:
    rng = np.random.default_rng(6)
    hits = (rng.random(400) < 0.7).astype(float)
    statistics = np.array([[0.0, 1.0], [1.0, 1.0]])

    def share(sums: np.ndarray) -> np.ndarray:
        return sums[..., :1] / sums[..., 1:]

    counts = np.bincount(hits.astype(int), minlength=2)
    by_kind = bootstrap.bootstrap_kinds(counts, statistics, share, seed=1)
    by_unit = bootstrap.bootstrap_units(statistics[hits.astype(int)], share, seed=1)
    expected = math.sqrt(hits.mean() * (1 - hits.mean()) / 400)
    for draws in (by_kind, by_unit):
        assert draws.shape == (bootstrap.RESAMPLES, 1)
        assert draws.std() == pytest.approx(expected, rel=0.06)
        assert draws.mean() == pytest.approx(hits.mean(), abs=0.002)
    np.testing.assert_array_equal(by_kind, bootstrap.bootstrap_kinds(counts, statistics, share, seed=1))


def test_a_bootstrap_without_variation_has_no_interval() -> None:
    found = bootstrap.percentile_interval(1.0, 50, np.ones(100))
    assert (found.value, found.low) == (1.0, None)
    assert "every resample" in found.note
    assert bootstrap.percentile_interval(math.nan, 50, np.ones(100)).value is None
    assert normal_quantile(0.975) == pytest.approx(1.959963984540054)


@pytest.mark.parametrize(("hits", "n", "noted"), [(99, 100, True), (100, 100, True), (95, 100, False),
                                                  (96, 100, True), (4, 9, True), (5, 10, False)])  # fmt: skip
def test_a_share_near_0_or_1_says_that_its_interval_is_not_just_95_percent(
    hits: int, n: int, noted: bool
) -> None:
    found = intervals.mean(np.repeat([1.0, 0.0], [hits, n - hits]), bounds=(0.0, 1.0))
    assert found.method == "wilson"
    assert ("fewer than 5 hits or misses" in found.note) == noted


def test_where_no_note_stands_wilson_covers_93_percent_or_more() -> None:
    """Exactly, over all outcomes: of true shares that mostly leave no note."""
    for n in (30, 50, 100, 300):
        ends = [intervals.wilson(k, n) for k in range(n + 1)]
        silent = np.array([not intervals.near_an_end(k, n) for k in range(n + 1)])
        low, high = (np.array([getattr(each, end) for each in ends]) for end in ("low", "high"))
        for share in np.linspace(0.5, 0.999, 60):
            weights = stats.binom.pmf(np.arange(n + 1), n, share)
            covered = float(weights[(low <= share) & (share <= high)].sum())
            assert covered >= 0.918 or weights[silent].sum() < 0.6, (n, share, covered)


@pytest.mark.parametrize(("n", "q"), [(10, 0.5), (60, 0.9), (200, 0.95), (1000, 0.99), (60, 0.5)])
def test_an_interval_between_ranks_says_what_it_covers(n: int, q: float) -> None:
    """By scipy: the chance that binomial(n, q) falls between the two ranks."""
    ordered = np.arange(n, dtype=np.float64)
    found = intervals.percentile(ordered, q)
    assert found.low is not None and found.high is not None
    covers = stats.binom.cdf(found.high, n, q) - stats.binom.cdf(found.low, n, q)
    said = f"between whole ranks: covers {100 * covers:.0f} %" if covers > 0.97 else ""
    assert found.note == said
