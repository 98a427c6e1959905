"""Drift: the reference's values, alarms that hold their level, planted drifts that are found."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evalrun.analysis import drift_tests as tests
from evalrun.analysis.drift import Asked, Side, drift
from evalrun.drift_results import DriftResults


def side(columns: dict[str, Any], **more: Any) -> Side:
    return Side("x", columns, len(next(iter(columns.values()))), **more)


def test_psi_and_jensen_shannon_of_known_shares() -> None:
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.3, 0.3])
    assert tests.psi_of(p, q) == pytest.approx(0.062861, abs=5e-7)
    assert tests.jensen_shannon(p, q) == pytest.approx(0.106199, abs=5e-7)
    assert tests.jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1


def test_kolmogorov_smirnov_of_known_numbers() -> None:
    usual = stats.ks_2samp(range(1, 6), range(3, 9))
    assert (usual.statistic, usual.pvalue) == (0.5, pytest.approx(0.357143, abs=5e-7))
    assert tests.number_test(np.arange(1.0, 6), np.arange(3.1, 9)) == (
        "Kolmogorov-Smirnov", pytest.approx(stats.ks_2samp(range(1, 6), np.arange(3.1, 9)).pvalue)
    )  # fmt: skip
    name, p = tests.number_test(np.arange(1.0, 6), np.arange(3.0, 9))
    assert name.endswith("permuted") and p < usual.pvalue  # three values are on both sides


def test_psi_is_decided_by_its_law_and_not_by_a_threshold() -> None:
    """Two samples of 200 of one source: the law holds its level, PSI > 0.1 is wrong in a third of them."""
    rng = np.random.default_rng(0)
    found = [
        tests.psi_test(tests.binned(a, e := tests.quantile_edges(a)), tests.binned(b, e))
        for a, b in (rng.normal(size=(2, 200)) for _ in range(2_000))
    ]
    assert 0.035 <= np.mean([each.p <= 0.05 for each in found]) <= 0.065
    assert np.mean([each.psi > 0.1 for each in found]) > 0.25


def test_the_least_psi_is_found_with_power_of_80_percent() -> None:
    rng = np.random.default_rng(1)
    least = tests.psi_test(np.full(10, 100.0), np.full(10, 100.0)).least
    base = np.full(10, 0.1)
    lean = base * (1 + np.linspace(-1, 1, 10) * 0.2737)
    assert tests.psi_of(base, lean) == pytest.approx(least, rel=0.15)
    found = [
        tests.psi_test(rng.multinomial(1000, base).astype(float), rng.multinomial(1000, lean).astype(float)).p
        for _ in range(400)
    ]
    assert 0.7 <= np.mean(np.array(found) <= 0.05) <= 0.95


def test_numbers_with_ties_keep_the_level() -> None:
    """The usual law rejects 1 % of Poisson counts; permuted it is 5 %."""
    rng = np.random.default_rng(2)
    found = [tests.number_test(*rng.poisson(30, (2, 150)).astype(float), seed=at)[1] for at in range(150)]
    assert np.mean(np.array(found) <= 0.05) <= 0.1 and 0.1 <= np.mean(np.array(found) <= 0.2) <= 0.3
    assert min(found) > 0


def test_small_tables_agree_with_an_exact_test() -> None:
    table = np.array([[12.0, 3.0], [5.0, 9.0]])
    name, p = tests.class_test(table[0], np.array([5.0, 3.0]))
    assert name == "chi-squared, permuted" and 0 < p <= 1
    exact = stats.fisher_exact([[12, 3], [2, 6]]).pvalue
    assert tests.class_test(np.array([12.0, 3.0]), np.array([2.0, 6.0]))[1] == pytest.approx(exact, abs=0.05)


def texts(rng: np.random.Generator, n: int, shift: float = 1.0) -> list[str]:
    weights = np.ones(100)
    weights[:10] *= shift
    words = np.array([f"{a}{b}{c}" for a, b, c in itertools.product("kmrt", "aeiou", "lnspz")])
    return [" ".join(rng.choice(words, 12, p=weights / weights.sum())) for _ in range(n)]


def test_texts_of_one_source_are_not_told_apart() -> None:
    rng = np.random.default_rng(3)
    found = [tests.classifier_test(texts(rng, 60), texts(rng, 60), seed=at) for at in range(15)]
    assert np.mean([each is not None and each.p <= 0.05 for each in found]) <= 0.2


def test_shifted_words_are_found_and_named() -> None:
    rng = np.random.default_rng(4)
    first, second = texts(rng, 200), texts(rng, 200, shift=3)
    told = tests.classifier_test(first, second)
    assert told is not None and told.p < 0.01 and told.low > 0.5
    shifted = {f"{a}{b}{c}" for a, b, c in itertools.islice(itertools.product("kmrt", "aeiou", "lnspz"), 10)}
    words = tests.separating_words(first, second)
    assert {word for word, *_ in words[:4]} <= shifted and words[0][2] > words[0][1]


def test_mmd_keeps_its_level_and_is_never_zero() -> None:
    rng = np.random.default_rng(5)
    found = [tests.mmd_test(*rng.normal(size=(2, 20, 5)), seed=at)[1] for at in range(30)]
    assert np.mean(np.array(found) <= 0.05) <= 0.17
    same = rng.normal(size=(60, 5))
    assert tests.mmd_test(same, same)[1] > 0.5
    assert tests.mmd_test(same, same + 9)[1] == pytest.approx(0.001)


SCORES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(SCORES, SCORES)
def test_mix_and_quality_add_up(one: list[tuple[float, int]], other: list[tuple[float, int]]) -> None:
    a, b = (
        (np.array([v for v, _ in rows]), np.array([s for _, s in rows], np.int64)) for rows in (one, other)
    )
    (mix, _), (quality, _) = tests.decompose(a, b, 4)
    assert mix + quality == pytest.approx(b[0].mean() - a[0].mean(), abs=1e-12)


def test_errors_of_mix_and_quality_are_those_of_a_bootstrap() -> None:
    rng = np.random.default_rng(6)
    n, m = 500, 400
    a = (rng.random(n), rng.choice(3, n, p=[0.5, 0.3, 0.2]))
    b = (rng.random(m) * 0.8, rng.choice(3, m, p=[0.3, 0.3, 0.4]))
    a[0][a[1] == 2] *= 0.4
    (_, mix), (_, quality) = tests.decompose(a, b, 3)
    drawn = []
    for _ in range(800):
        i, j = rng.integers(n, size=n), rng.integers(m, size=m)
        (x, _), (y, _) = tests.decompose((a[0][i], a[1][i]), (b[0][j], b[1][j]), 3)
        drawn.append((x, y))
    assert np.std(drawn, axis=0) == pytest.approx([mix, quality], rel=0.12)


def window(
    rng: np.random.Generator, n: int, shares: tuple[float, ...], right: tuple[float, ...]
) -> dict[str, Any]:
    topic = rng.choice(3, n, p=shares)
    return {
        "topic": [["billing", "bug", "other"][t] for t in topic],
        "tokens": rng.poisson(40, n).astype(float),
        "latency": rng.lognormal(0, 1, n),
        "score.exact_match": (rng.random(n) < np.array(right)[topic]).astype(float),
    }


def compared(seed: int, shares: tuple[float, ...], right: tuple[float, ...], n: int = 800) -> DriftResults:
    rng = np.random.default_rng(seed)
    first = window(rng, n, (0.5, 0.3, 0.2), (0.9, 0.8, 0.5))
    return drift(side(first), side(window(rng, n, shares, right)), Asked(by="topic"))


def test_inputs_that_changed_are_told_from_answers_that_got_worse() -> None:
    inputs = compared(1, (0.2, 0.3, 0.5), (0.9, 0.8, 0.5))
    assert inputs.inputs_changed and not inputs.answers_worse
    assert inputs.scores[0].mix.value < -0.08 and abs(inputs.scores[0].quality.value) < 0.05
    answers = compared(2, (0.5, 0.3, 0.2), (0.75, 0.65, 0.3))
    assert answers.answers_worse and not answers.inputs_changed
    assert answers.scores[0].quality.value < -0.08
    assert "Answers got worse" in answers.sentences[1]
    assert compared(3, (0.2, 0.3, 0.5), (0.95, 0.9, 0.7)).answers_worse is False


def test_a_window_without_drift_is_an_alarm_in_5_percent() -> None:
    found = [compared(seed, (0.5, 0.3, 0.2), (0.9, 0.8, 0.5), 200) for seed in range(80)]
    assert np.mean([each.drifted for each in found]) <= 0.1
    assert np.mean([bool(each.answers_worse) for each in found]) <= 0.06


def test_clusters_are_not_drift() -> None:
    """Each person asks ten times in a way of their own: without clusters nearly every window drifts."""
    alarms, naive = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sides = []
        for _ in range(2):
            person = np.repeat(np.arange(30), 10)
            columns = {
                "length": rng.normal(size=30)[person] + 0.3 * rng.normal(size=300),
                "topic": [str(t) for t in rng.integers(0, 4, 30)[person]],
            }
            sides.append((columns, person))
        alarms.append(drift(*(side(c, clusters=p) for c, p in sides)).drifted)
        naive.append(drift(*(side(c) for c, _ in sides)).drifted)
    assert np.mean(alarms) <= 0.12 and np.mean(naive) > 0.7


def test_weights_of_a_stratified_sample_are_not_drift() -> None:
    rng = np.random.default_rng(8)
    topic = np.r_[np.zeros(500), np.ones(500)]
    live = side({"topic": [str(t) for t in topic]}, weights=np.where(topic == 0, 9.0, 1.0))
    reference = side({"topic": [str(t) for t in rng.choice(2, 1000, p=[0.9, 0.1]) * 1.0]})
    assert not drift(reference, live).drifted
    assert drift(reference, side(dict(live.columns))).drifted


def test_few_rows_say_nothing() -> None:
    rng = np.random.default_rng(9)
    found = drift(side({"x": rng.normal(size=40)}), side({"x": rng.normal(5, 1, 40)}))
    assert found.columns[0].drift is None and "too few" in found.columns[0].note
    assert found.inputs_changed is None and not found.drifted


@pytest.mark.parametrize(
    "values",
    [
        ([None] * 60, ["a"] * 60),
        ([""] * 60, [""] * 60),
        (np.full(60, np.nan), np.arange(60.0)),
        (np.full(60, 1e308), np.full(60, -1e308)),
        (np.zeros((60, 3)), np.ones((60, 3))),
        ([str(n) for n in range(60)], [str(n) for n in range(60)]),
        (["a"] * 60, np.arange(60.0)),
    ],
    ids=["all missing", "empty", "no number", "extremes", "constant vectors", "ids", "other types"],
)
def test_odd_columns_end_well(values: tuple[Any, Any]) -> None:
    found = drift(side({"x": values[0]}), side({"x": values[1]}))
    assert all(each.p is None or 0 <= each.p <= 1 for each in found.columns)
