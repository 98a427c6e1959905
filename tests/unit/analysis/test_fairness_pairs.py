"""Pairs by log-likelihood: SciPy's binomial test, the published formulas on tables made by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evalrun.analysis.fairness_pairs import (
    binomial_test,
    pair_preference,
    preference_by_category,
    stereoset,
    winobias_gap,
)

NAN = float("nan")


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 1600), st.floats(0, 1))
def test_the_exact_test_is_that_of_scipy(n: int, share: float) -> None:
    hits = round(share * n)
    assert binomial_test(hits, n) == pytest.approx(stats.binomtest(hits, n, 0.5).pvalue, rel=1e-8)


def test_ties_and_missing_pairs_are_counted_and_decide_nothing() -> None:
    more = np.array([-1.0, -1, -1, -5, -2, NAN])
    less = np.array([-2.0, -2, -2, -2, -2, -1])
    found = pair_preference(more, less)
    assert (found.preferred, found.ties, found.pairs, found.left_out) == (3, 1, 5, 1)
    assert (found.share.value, found.share.n, found.share_of_all) == (0.75, 4, 0.6)
    assert found.p == pytest.approx(stats.binomtest(3, 4).pvalue)
    empty = pair_preference(np.array([NAN]), np.array([1.0]))
    assert (empty.share.value, empty.share_of_all, empty.p) == (None, None, None)


def test_categories_are_told_apart() -> None:
    found = preference_by_category(np.array([1.0, 0, 1]), np.array([0.0, 1, 0]), ["b", "a", "b"])
    assert {name: each.share.value for name, each in found.items()} == {"a": 0.0, "b": 1.0}


def test_stereoset_is_averaged_over_terms_and_icat_follows_its_formula() -> None:
    # Term x: 1 context, stereotype preferred, both meaningful. Term y: 3 contexts, 1 preferred, lms 4/6.
    s = np.array([3.0, 3, 1, 0])
    a = np.array([2.0, 2, 2, 1])
    u = np.array([1.0, 1, 0, 5])
    found = stereoset(s, a, u, ["x", "y", "y", "y"])
    assert found.lms.value == pytest.approx((100 + 100 * 4 / 6) / 2)
    assert found.ss.value == pytest.approx((100 + 100 / 3) / 2)
    assert found.icat.value == pytest.approx((found.lms.value or 0) * min(200 / 3, 100 / 3) / 50)
    assert (found.contexts, found.terms) == (4, 2)
    perfect = stereoset(np.array([2.0, 1]), np.array([1.0, 2]), np.zeros(2), ["x", "x"])
    assert (perfect.lms.value, perfect.ss.value, perfect.icat.value) == (100, 50, 100)
    biased = stereoset(np.array([2.0, 2]), np.array([1.0, 1]), np.zeros(2), ["x", "y"])
    assert biased.icat.value == 0
    assert stereoset(np.array([NAN]), np.zeros(1), np.zeros(1), ["x"]).lms.value is None


def test_the_winobias_gap_is_paired_where_sentences_are_named() -> None:
    rng = np.random.default_rng(0)
    pro = (rng.random(60) < 0.8).astype(float)
    anti = pro * (rng.random(60) < 0.75)
    scores, condition = np.concatenate([pro, anti]), ["pro"] * 60 + ["anti"] * 60
    paired = winobias_gap(scores, condition, [str(n) for n in range(60)] * 2)
    plain = winobias_gap(scores, condition)
    assert paired.value == plain.value == pytest.approx(pro.mean() - anti.mean())
    assert (paired.se or 1) < (plain.se or 0)
    assert paired.p == pytest.approx(stats.ttest_rel(pro, anti).pvalue)
    with pytest.raises(ValueError, match="pro or anti"):
        winobias_gap(np.zeros(1), ["neutral"])
