"""Repeats: variance, pass@k, votes; and that repeats are never taken for samples."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.analysis.intervals import mean
from evalrun.analysis.repeats import majority, pass_at_k, pass_hat_k, spread

SCORES = st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=7), min_size=1, max_size=6)


def flat(rows: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    ids = [f"s{at}" for at, row in enumerate(rows) for _ in row]
    return np.array(ids, dtype=object), np.array([value for row in rows for value in row])


@settings(deadline=None)
@given(SCORES, st.integers(1, 7))
def test_pass_at_k_counts_all_draws(rows: list[list[float]], k: int) -> None:
    enough = [row for row in rows if len(row) >= k]
    at_least_one = [np.mean([max(each) for each in combinations(row, k)]) for row in enough]
    all_of_them = [np.mean([min(each) for each in combinations(row, k)]) for row in enough]
    some, every = pass_at_k(*flat(rows), k), pass_hat_k(*flat(rows), k)
    assert some.n == every.n == len(enough)
    if enough:
        assert some.value == pytest.approx(np.mean(at_least_one))
        assert every.value == pytest.approx(np.mean(all_of_them))
    if len(enough) < len(rows):
        assert f"{len(rows) - len(enough)} samples with fewer than {k} answers" in some.note


def test_pass_at_k_of_the_published_formula() -> None:
    ids, scores = np.zeros(200, int), (np.arange(200) < 13).astype(float)
    expected = 1 - math.comb(187, 100) / math.comb(200, 100)
    assert pass_at_k(ids, scores, 100).value == pytest.approx(expected, rel=1e-12)


def test_pass_at_k_needs_zeros_and_ones_and_a_k() -> None:
    with pytest.raises(ValueError, match="0 and 1"):
        pass_at_k([1, 1], np.array([0.5, 1]), 1)
    with pytest.raises(ValueError, match="at least 1"):
        pass_at_k([1, 1], np.array([0.0, 1]), 0)


def test_pass_at_k_is_unbiased() -> None:
    rng = np.random.default_rng(2)
    chance = rng.random(3000)
    scores = (rng.random((3000, 6)) < chance[:, None]).astype(float)
    found = pass_at_k(np.repeat(np.arange(3000), 6), scores.ravel(), 3)
    assert found.value == pytest.approx(np.mean(1 - (1 - chance) ** 3), abs=0.015)
    assert found.low < np.mean(1 - (1 - chance) ** 3) < found.high


def test_variance_is_split_as_it_was_made() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(0, 2, 2000)
    scores = truth[:, None] + rng.normal(0, 3, (2000, 4))
    found = spread(np.repeat(np.arange(2000), 4), scores.ravel())
    assert found.within == pytest.approx(9, rel=0.05)
    assert found.between == pytest.approx(4, rel=0.12)
    assert found.se == pytest.approx(math.sqrt((4 + 9 / 4) / 2000), rel=0.06)
    assert found.se_many_repeats == pytest.approx(math.sqrt(4 / 2000), rel=0.07)


def test_repeats_are_not_samples() -> None:
    # 50 samples, 20 identical answers each: the error is that of 50, not that of 1,000.
    right = np.random.default_rng(4).random(50) < 0.6
    ids, scores = np.repeat(np.arange(50), 20), np.repeat(right.astype(float), 20)
    found = spread(ids, scores)
    assert (found.samples, found.answers) == (50, 1000)
    assert found.se == pytest.approx(right.std(ddof=1) / math.sqrt(50))
    assert found.within == 0
    assert pass_at_k(ids, scores, 1).n == 50
    assert pass_at_k(ids, scores, 1).se == pytest.approx(mean(right.astype(float)).se)


def test_uneven_repeats_weigh_each_sample_alike() -> None:
    found = spread(["a"] * 9 + ["b"], np.array([1.0] * 9 + [0.0]))
    assert found.mean == 0.5


def test_missing_scores_are_left_out() -> None:
    found = spread(["a", "a", "b", "b"], np.array([1, np.nan, 0, 0.0]))
    assert (found.samples, found.answers, found.mean) == (2, 3, 0.5)


@pytest.mark.parametrize(("ids", "scores"), [([], []), (["a"], [1.0]), (["a", "a"], [1.0, 0.0])])
def test_too_little_for_a_split(ids: list[str], scores: list[float]) -> None:
    found = spread(ids, np.array(scores))
    assert (found.between, found.se) == (None, None)


def test_majority_answers_and_their_score() -> None:
    ids = ["q1", "q1", "q1", "q2", "q2", "q3", "q3", "q4"]
    answers = ["4", "5", "4", "7", "8", None, None, "1"]
    scores = np.array([1, 0, 1, 1, 0, 0, 0, 1.0])
    found = majority(ids, answers, scores)
    assert found.answers == ("4", "7", None, "1")
    assert found.tied.tolist() == [False, True, False, False]
    assert found.score.tolist() == [1, 0.5, 0, 1]  # a tie scores what a fair draw among its winners would
    assert found.agreement[:3].tolist() == pytest.approx([1 / 3, 0, 0])
    assert np.isnan(found.agreement[3])
    assert found.accuracy().n == 4
    assert found.accuracy().value == pytest.approx(2.5 / 4)
    assert found.consistency().n == 3
    assert "1 samples had ties" in found.accuracy().note


def test_the_majority_is_more_often_right_than_one_answer() -> None:
    rng = np.random.default_rng(5)
    right = rng.random((300, 9)) < 0.7
    answers = np.where(right, "right", "wrong").ravel().tolist()
    found = majority(np.repeat(np.arange(300), 9), answers, right.ravel().astype(float))
    assert found.accuracy().value == pytest.approx(0.90, abs=0.04)
    assert found.consistency().value == pytest.approx(0.7**2 + 0.3**2, abs=0.03)
