"""Figures over all samples: Matthews correlation, rank correlations, calibration."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference
from tests.tables import sample_table

from evalrun import registry
from evalrun.analysis.influence import smooth_interval
from evalrun.analysis.quality import score_metrics
from evalrun.scoring.base import Scorer
from evalrun.scoring.figures import aurc_smooth, auroc_smooth, kendall_smooth, spearman_smooth
from evalrun.scoring.pipeline import Pipeline
from evalrun.types import MetricValue, SampleRecord

LABELS = ["a", "b", "c"]


def scorer(name: str, /, **options: object) -> Scorer:
    kind = registry.load("scorer", name)
    made: Scorer = kind(kind.Options(**options))
    return made


def figures(
    pairs: list[tuple[object, object]], made: Scorer, *parsers: str, **more: object
) -> dict[str, MetricValue]:
    chain = [registry.load("parser", name) for name in parsers]
    pipeline = Pipeline([each(each.Options()) for each in chain], [made])
    records = []
    for number, (output, target) in enumerate(pairs):
        scored = pipeline.evaluate(str(output), target, {}, output == "REFUSED")
        records.append(
            SampleRecord(
                sample_id=f"s{number}",
                repeat=0,
                position=number,
                vars={},
                target=target,
                status=scored.status,
                answer=scored.answer,
                scores=scored.scores,
                **more,  # type: ignore[arg-type]
            )
        )
    found, _ = score_metrics(sample_table(records), [made], exclude_unparsed=False, seed=0)
    return {metric.name: metric for metric in found}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([*LABELS, "REFUSED", "neither"]), st.sampled_from(LABELS)),
        min_size=1,
        max_size=30,
    )
)
def test_mcc_and_micro_f1_are_those_of_scikit_learn(pairs: list[tuple[object, object]]) -> None:
    found = figures(pairs, scorer("classification", labels=LABELS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answers, targets = [a for a, _ in pairs], [t for _, t in pairs]
        wanted = reference.matthews_corrcoef(targets, answers)
        micro = reference.f1_score(targets, answers, labels=LABELS, average="micro")
    assert found["classification.mcc"].value == pytest.approx(wanted, abs=1e-9)
    assert found["classification.f1_micro"].value == pytest.approx(micro, abs=1e-9)


def test_mcc_with_more_classes_than_an_interval_is_made_for() -> None:
    draw = np.random.default_rng(0)
    targets = [f"t{n}" for n in draw.integers(400, size=900)]
    answers = [t if draw.random() < 0.5 else f"t{draw.integers(400)}" for t in targets]
    found = figures(list(zip(answers, targets, strict=True)), scorer("classification"))
    wanted = reference.matthews_corrcoef(targets, answers)
    assert found["classification.mcc"].value == pytest.approx(wanted, abs=1e-9)
    macro = reference.f1_score(targets, answers, average="macro")
    assert found["classification.f1_macro"].value == pytest.approx(macro, abs=1e-9)


NUMBERS = st.one_of(st.integers(-5, 5), st.floats(-1e6, 1e6).map(lambda x: round(x, 3)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=40))
def test_correlations_are_those_of_scipy(pairs: list[tuple[object, object]]) -> None:
    found = figures([(f"{a!r}", b) for a, b in pairs], scorer("correlation"))
    x, y = np.array([a for a, _ in pairs], float), np.array([b for _, b in pairs], float)
    assert found["correlation.mae"].value == pytest.approx(np.abs(x - y).mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = {
            "pearson": stats.pearsonr(x, y).statistic,
            "spearman": stats.spearmanr(x, y).statistic,
            "kendall": stats.kendalltau(x, y).statistic,
        }
    for name, value in wanted.items():
        ours = found[f"correlation.{name}"].value
        if np.isnan(value):
            assert ours is None
        else:
            assert ours == pytest.approx(value, abs=1e-9)


def test_correlations_of_numbers_far_from_zero_keep_their_digits() -> None:
    draw = np.random.default_rng(1)
    x = 1e9 + draw.normal(size=50)
    y = x + draw.normal(size=50)
    found = figures([(repr(float(a)), float(b)) for a, b in zip(x, y, strict=True)], scorer("correlation"))
    assert found["correlation.pearson"].value == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-6)


@pytest.mark.parametrize("cuts", [(), (-1.2, -0.4, 0.4, 1.2), (-2.2, -1.8, -1.3, -0.5)])
def test_intervals_of_rank_correlations_cover(cuts: tuple[float, ...]) -> None:
    """Of numbers without ties, of ratings from 1 to 5, and of ratings of which most are 5."""
    draw, hits = np.random.default_rng(2), {"spearman": 0, "kendall": 0}

    def pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = draw.normal(size=n)
        y = 0.8 * x + 0.6 * draw.normal(size=n)
        return (np.digitize(x, cuts) + 0.0, np.digitize(y, cuts) + 0.0) if cuts else (x, y)

    many = pairs(3_000)
    truth = {"spearman": spearman_smooth(*many).value, "kendall": kendall_smooth(*many).value}
    for _ in range(400):
        x, y = pairs(60)
        for name, made in (("spearman", spearman_smooth(x, y)), ("kendall", kendall_smooth(x, y))):
            found = smooth_interval(made)
            assert found.low is not None and found.high is not None
            hits[name] += found.low <= truth[name] <= found.high
    for count in hits.values():
        assert 0.91 <= count / 400 <= 0.985


@pytest.mark.parametrize("figure", [spearman_smooth, kendall_smooth, auroc_smooth, aurc_smooth])
@pytest.mark.parametrize("ties", [False, True])
def test_influences_give_the_standard_error_of_leaving_one_out(figure: Any, ties: bool) -> None:
    draw = np.random.default_rng(5)
    x = draw.random(60)
    x = np.ceil(x * 6) / 6 if ties else x
    y = (draw.random(60) < x).astype(float)
    if figure in (spearman_smooth, kendall_smooth):
        y = y + draw.integers(0, 3, 60)
    left_out = np.array([figure(np.delete(x, at), np.delete(y, at)).value for at in range(60)])
    jackknife = np.sqrt(59 / 60 * ((left_out - left_out.mean()) ** 2).sum())
    found = smooth_interval(figure(x, y))
    assert found.se == pytest.approx(jackknife, rel=0.05)
    # Every row twice, and twins in a cluster: nothing is learnt from the copies.
    twins = smooth_interval(figure(np.tile(x, 2), np.tile(y, 2)), np.tile(np.arange(60), 2))
    assert twins.se == pytest.approx(found.se, rel=0.05)


def test_correlations_say_why_there_is_no_interval_or_value() -> None:
    found = figures([("1", 1), ("2", 2), ("3", 5)], scorer("correlation"))
    assert found["correlation.spearman"].value == pytest.approx(1)
    assert found["correlation.spearman"].ci_low is None
    assert "no interval" in found["correlation.spearman"].note
    constant = figures([("1", 1), ("1", 2), ("none", 3)], scorer("correlation"))
    assert constant["correlation.pearson"].value is None
    assert constant["correlation.pearson"].n == 2
    clustered = figures([(str(n), n % 7) for n in range(30)], scorer("correlation"), cluster="one")
    assert clustered["correlation.kendall"].ci_low is None
    assert "1 clusters" in clustered["correlation.kendall"].note
    many = figures([(str(n), n) for n in range(10)], scorer("correlation", max_pairs=5))
    assert many["correlation.kendall"].value is None
    assert "max_pairs" in many["correlation.kendall"].note


def test_calibration_by_hand_and_by_scikit_learn() -> None:
    draw = np.random.default_rng(3)
    confidences = [round(float(c), 2) for c in draw.random(200)]
    right = [bool(draw.random() < c) for c in confidences]
    pairs: list[tuple[object, object]] = [
        (f'{{"answer": "{"yes" if hit else "no"}", "confidence": {c}}}', "yes")
        for c, hit in zip(confidences, right, strict=True)
    ]
    found = figures(pairs, scorer("calibration"), "json")
    wanted = reference.brier_score_loss(right, confidences)
    assert found["calibration.brier"].value == pytest.approx(wanted, abs=1e-12)
    c, hits = np.array(confidences), np.array(right, float)
    bins = np.clip(np.ceil(c * 10).astype(int) - 1, 0, 9)
    ece = sum(abs((c - hits)[bins == b].mean()) * (bins == b).mean() for b in range(10) if (bins == b).any())
    assert found["calibration.ece"].value == pytest.approx(ece, abs=1e-12)
    assert found["calibration.ece"].ci_low is None and "no interval" in found["calibration.ece"].note
    auroc, aurc = found["calibration.auroc"], found["calibration.aurc"]
    assert auroc.value == pytest.approx(reference.roc_auc_score(right, confidences))
    assert auroc.ci_low is not None and auroc.ci_low < auroc.value < auroc.ci_high
    assert aurc.ci_low is not None and aurc.ci_low < aurc.value < aurc.ci_high
    by_hand = np.mean([1 - hits[c >= at].mean() for at in c])
    assert aurc.value == pytest.approx(by_hand)
    assert found["calibration.accuracy"].value == pytest.approx(hits.mean())


def test_what_right_confidences_give_by_chance_is_told() -> None:
    draw = np.random.default_rng(6)
    from evalrun.scoring.figures import calibration_corpus

    infos = {info.name: info for info in scorer("calibration").metrics()}
    confidence = draw.beta(4, 2, 150)
    errors = []
    for _ in range(400):
        right = (draw.random(150) < confidence).astype(float)
        corpus = calibration_corpus("calibration", confidence, right, 10, infos)
        assert corpus is not None
        errors.append(corpus.fixed["calibration.ece"][0])
    told = [float(word.rstrip(",")) for word in corpus.notes["calibration.ece"].split() if word[0] == "0"]
    assert told[0] == pytest.approx(np.mean(errors), rel=0.05)
    assert told[1] == pytest.approx(np.quantile(errors, 0.95), rel=0.1)


def test_confidence_without_right_or_wrong_answers_has_no_auroc() -> None:
    sure = auroc_smooth(np.array([0.5, 0.9]), np.ones(2))
    assert np.isnan(sure.value) and "no wrong answers" in sure.note
    parted = smooth_interval(auroc_smooth(np.array([0.9, 0.8, 0.2, 0.1]), np.array([1.0, 1, 0, 0])))
    assert (parted.value, parted.low) == (1.0, None) and "2 " in parted.note


def test_calibration_leaves_out_what_states_no_confidence() -> None:
    made = scorer("calibration", scale=100, ignore_case=True)
    pairs: list[tuple[object, object]] = [
        ('{"answer": "YES", "confidence": 90}', "yes"),
        ('{"answer": "yes", "confidence": "80%"}', "no"),
        ('{"answer": "yes", "confidence": 120}', "yes"),
        ('{"answer": "yes"}', "yes"),
        ("REFUSED", "yes"),
    ]
    found = figures(pairs, made, "json")
    assert found["calibration.brier"].n == 2
    assert found["calibration.brier"].value == pytest.approx((0.01 + 0.64) / 2)
