"""Agreement among judges and with people: published examples, reference libraries, intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tables import sample_table

from evalrun.analysis.influence import smooth_interval
from evalrun.analysis.quality import corpus_metrics
from evalrun.scoring.base import ScoreColumns
from evalrun.scoring.scorers import judge_agreement as agreement
from evalrun.scoring.scorers.judge import Judge, JudgeOptions
from evalrun.types import SampleRecord, Status

N = None
KRIPPENDORFF_2011 = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]
"""Four observers, twelve units: the example of "Computing Krippendorff's alpha-reliability" (2011)."""


def counts_of(ratings: list[list[int | None]], size: int) -> np.ndarray:
    """Counts of grades (units, grades) from one row of grades 1, 2, … an observer."""
    return np.array(
        [
            [sum(row[unit] == grade + 1 for row in ratings) for grade in range(size)]
            for unit in range(len(ratings[0]))
        ],
        np.float64,
    )


def alpha(ratings: list[list[int | None]], level: str, size: int = 5) -> float:
    together = agreement.coincidences(counts_of(ratings, size)).sum(0)
    return float(agreement.alpha(together, level, np.arange(1.0, size + 1)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_published_example(level: str, value: float) -> None:
    assert alpha(KRIPPENDORFF_2011, level) == pytest.approx(value, abs=5e-4)


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.one_of(st.none(), st.integers(1, 4)), min_size=3, max_size=3), min_size=2, max_size=20
    )
)
def test_alpha_equals_the_library(units: list[list[int | None]]) -> None:
    krippendorff = pytest.importorskip("krippendorff")
    ratings = [list(column) for column in zip(*units, strict=True)]
    for level in ("nominal", "ordinal", "interval"):
        data = np.array([[np.nan if grade is None else grade for grade in row] for row in ratings], float)
        try:
            with np.errstate(all="ignore"):
                expected = krippendorff.alpha(data, level_of_measurement=level, value_domain=[1, 2, 3, 4])
        except ValueError:  # one grade only: alpha is not defined
            expected = np.nan
        found = alpha(ratings, level, 4)
        if np.isfinite(found) or np.isfinite(expected):
            assert found == pytest.approx(expected, abs=1e-9)


def table_of(human: np.ndarray, machine: np.ndarray, size: int) -> np.ndarray:
    table = np.zeros((size, size))
    np.add.at(table, (human, machine), 1)
    return table


def test_kappa_of_the_published_example() -> None:
    """Cohen's kappa for 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no is 0.4."""
    assert float(agreement.kappa(np.array([[20.0, 5], [10, 15]]), quadratic=False)) == pytest.approx(0.4)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=60))
def test_agreement_with_people_equals_the_libraries(pairs: list[tuple[int, int]]) -> None:
    from scipy.stats import kendalltau, spearmanr
    from sklearn.metrics import cohen_kappa_score

    human, machine = (np.array(column) for column in zip(*pairs, strict=True))
    table = table_of(human, machine, 5)
    if len(set(human)) > 1 and len(set(machine)) > 1:
        assert float(agreement.spearman(table)) == pytest.approx(spearmanr(human, machine).statistic)
        assert float(agreement.kendall(table)) == pytest.approx(kendalltau(human, machine).statistic)
        for quadratic in (False, True):
            expected = cohen_kappa_score(
                human, machine, labels=range(5), weights="quadratic" if quadratic else None
            )
            assert float(agreement.kappa(table, quadratic=quadratic)) == pytest.approx(expected)


def test_nothing_to_compare_is_no_agreement_figure() -> None:
    nothing = np.zeros((3, 3))
    assert np.isnan(agreement.alpha(nothing, "nominal", np.arange(3.0)))
    assert np.isnan(agreement.kappa(nothing, quadratic=True))
    assert np.isnan(agreement.spearman(nothing))
    assert np.isnan(agreement.kendall(nothing))


def records(judge: Judge, grades: list[list[int | None]], human: list[int | None]) -> list[SampleRecord]:
    """Samples with a column of grades a judge."""
    made = []
    for at, (codes, person) in enumerate(zip(grades, human, strict=True)):
        known = [code for code in codes if code is not None]
        scores = {
            judge.name: float(np.mean(known)) if known else None,
            f"{judge.name}.grade": float(round(float(np.mean(known)))) if known else None,
            f"{judge.name}.human": None if person is None else float(person),
            **{f"{judge.name}.by.{m}": c for m, c in zip(judge.models, codes, strict=True)},
        }
        made.append(SampleRecord(str(at), 0, at, {}, None, Status.SCORED, scores=scores))
    return made


def test_alpha_and_kappa_as_metrics_with_intervals() -> None:
    judge = Judge(JudgeOptions(model=["a", "b", "c"], scale=(1, 4), human="h"))
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 4, 200)
    noisy = np.clip(truth[:, None] + rng.integers(-1, 2, (200, 3)), 0, 3)
    table = sample_table(records(judge, noisy.tolist(), truth.tolist()))
    metrics, _ = corpus_metrics(table, judge, exclude_unparsed=False, seed=1)
    found = {metric.name: metric for metric in metrics}
    assert set(found) == {
        f"judge.{name}"
        for name in ("alpha", "human.accuracy", "human.kappa", "human.spearman", "human.kendall")
    }
    together = agreement.coincidences(
        np.stack([(noisy == code).sum(1) for code in range(4)], 1).astype(float)
    )
    expected = float(agreement.alpha(together.sum(0), "ordinal", np.arange(4.0)))
    for metric in metrics:
        assert metric.n == 200
        assert metric.value is not None and metric.ci_low is not None and metric.ci_high is not None
        assert metric.ci_low < metric.value < metric.ci_high
    assert found["judge.alpha"].value == pytest.approx(expected)


def test_only_samples_with_both_grades_count_towards_agreement_with_people() -> None:
    judge = Judge(JudgeOptions(model=["a"], choices={"good": 1, "bad": 0}, human="h"))
    made = records(judge, [[0], [1], [None], [0], [1]], [0, 1, 0, None, 0])
    table = sample_table(made)
    metrics, _ = corpus_metrics(table, judge, exclude_unparsed=False, seed=1)
    accuracy = next(metric for metric in metrics if metric.name == "judge.human.accuracy")
    assert (accuracy.n, accuracy.value) == (3, pytest.approx(2 / 3))


@pytest.mark.parametrize(("prevalence", "value"), [(0.5, 0.6), (0.9, 0.6), (0.95, 0.3)])
def test_intervals_of_kappa_cover_where_nearly_all_grades_are_alike(prevalence: float, value: float) -> None:
    judge = Judge(JudgeOptions(model=["a"], choices={"good": 1, "bad": 0}, human="h"))
    chance = prevalence**2 + (1 - prevalence) ** 2
    off = (1 - chance) * (1 - value) / 2
    shares = [prevalence - off, off, off, 1 - prevalence - off]
    pairs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    rng = np.random.default_rng(3)
    covered = told = 0
    for counts in rng.multinomial(40, shares, 250):
        drawn = np.repeat(pairs, counts, axis=0)
        columns = ScoreColumns(
            value=drawn[:, 1].astype(float),
            parts={"human": drawn[:, 0].astype(float), "grade": drawn[:, 1].astype(float)},
            status=np.zeros(40, np.int8),
            texts=lambda: None,  # type: ignore[arg-type, return-value]
        )
        smooth = agreement.agreement_corpus(judge, columns).smooth["judge.human.kappa"]
        found = smooth_interval(smooth, bounds=(-1.0, 1.0))
        if found.low is not None and found.high is not None:
            told += 1
            covered += found.low <= value <= found.high
    assert told > 200
    assert 0.92 <= covered / told <= 1.0


def test_full_agreement_of_a_few_has_an_interval() -> None:
    judge = Judge(JudgeOptions(model=["a", "b"], choices={"good": 1, "bad": 0}, human="h"))
    made = records(judge, [[at % 2, at % 2] for at in range(12)], [at % 2 for at in range(12)])
    metrics, _ = corpus_metrics(sample_table(made), judge, exclude_unparsed=False, seed=1)
    for metric in metrics:
        assert metric.value == 1.0 == metric.ci_high, metric.name
        assert metric.ci_low is not None and 0 < metric.ci_low < 0.95, metric.name
