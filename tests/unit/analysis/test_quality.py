"""Scores into metrics: equal to scikit-learn; repeats, endings, clusters; published figures to the digit."""

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from tests.tables import sample_table

from evalrun import registry
from evalrun.analysis.performance import SystemSummary
from evalrun.analysis.quality import Units, corpus_estimates, rate_metrics, score_metrics
from evalrun.analysis.run import analyse
from evalrun.analysis.samples import SampleTable
from evalrun.scoring.base import Corpus, MetricInfo, Scorer
from evalrun.scoring.figures import stereoset_figures
from evalrun.scoring.pipeline import Pipeline
from evalrun.types import MetricValue, SampleRecord, Status

LABELS = ["account", "billing", "bug", "other"]


def scorer(name: str, /, **options: object) -> Scorer:
    kind = registry.load("scorer", name)
    made: Scorer = kind(kind.Options(**options))
    return made


def record(number: int, target: object, output: str | None, pipeline: Pipeline, **more: Any) -> SampleRecord:
    """What the runner would make of an answer; an output of None is a failed sample, "REFUSED" a refusal."""
    base = {
        "sample_id": f"s{number:05d}",
        "repeat": 0,
        "position": number,
        "vars": {},
        "target": target,
        **more,
    }
    if output is None:
        return SampleRecord(**base, status=Status.FAILED, error="timeout: too slow")
    scored = pipeline.evaluate(output, target, {}, output == "REFUSED")
    return SampleRecord(
        **base,
        status=scored.status,
        output=output,
        answer=scored.answer,
        error=scored.error,
        scores=scored.scores,
        reasons=scored.reasons,
    )


def table_of(
    pairs: Iterable[tuple[object, str | None]], scorers: list[Scorer], parse: bool = True, **more: Any
) -> SampleTable:
    choice = registry.load("parser", "choice")
    parsers = [choice(choice.Options(labels=LABELS))] if parse else []
    pipeline = Pipeline(parsers, scorers)
    return sample_table(
        record(number, target, output, pipeline, **more) for number, (target, output) in enumerate(pairs)
    )


def by_name(found: Iterable[MetricValue]) -> dict[str, MetricValue]:
    return {metric.name: metric for metric in found}


def quality(
    table: SampleTable, scorers: list[Scorer], exclude: bool = False, seed: int = 0
) -> dict[str, MetricValue]:
    return by_name(score_metrics(table, scorers, exclude_unparsed=exclude, seed=seed)[0])


OUTPUTS = st.sampled_from([*LABELS, "I cannot say", "REFUSED", None])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(LABELS), OUTPUTS), min_size=1, max_size=40), st.booleans())
def test_classification_equals_scikit_learn(pairs: list[tuple[str, str | None]], labels_given: bool) -> None:
    made = scorer("classification", labels=LABELS if labels_given else None)
    found = quality(table_of(pairs, [made]), [made])
    answered = [
        (target, output if output in LABELS else "-") for target, output in pairs if output is not None
    ]
    if not answered:
        assert found["classification.accuracy"].value is None
        assert set(found) == {"classification.accuracy"}
        return
    targets, answers = zip(*answered, strict=True)
    occurring = sorted(({*targets} | {*answers}) - {"-"})
    assert found["classification.accuracy"].value == pytest.approx(
        reference.accuracy_score(targets, answers), abs=1e-12
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        macro = reference.precision_recall_fscore_support(
            targets, answers, labels=occurring, average="macro", zero_division=0
        )
        each = reference.precision_recall_fscore_support(
            targets, answers, labels=occurring, average=None, zero_division=np.nan
        )
    for name, expected in zip(("precision", "recall", "f1"), macro[:3], strict=True):
        assert found[f"classification.{name}_macro"].value == pytest.approx(expected, abs=1e-12)
    for at, label in enumerate(occurring):
        for name, expected in zip(("precision", "recall", "f1"), each, strict=False):
            value = found[f"classification.{name}.{label}"].value
            assert (
                np.isnan(expected[at]) if value is None else value == pytest.approx(expected[at], abs=1e-12)
            )
        assert found[f"classification.recall.{label}"].n == each[3][at]


def test_the_confusion_matrix_has_columns_for_what_is_no_label() -> None:
    pairs = [("bug", "bug"), ("bug", "billing"), ("bug", "hm"), ("billing", "REFUSED"), ("billing", None)]
    made = scorer("classification")
    _, details = score_metrics(table_of(pairs, [made]), [made], exclude_unparsed=False, seed=0)
    assert details["classification"]["confusion"] == {
        "labels": ["billing", "bug"],
        "columns": ["billing", "bug", "(unparsed)", "(refused)"],
        "counts": [[0, 0, 0, 1], [1, 1, 1, 0]],
        "note": "",
    }


def test_answers_off_the_list_are_wrong_and_targets_off_the_list_are_not_scored() -> None:
    made = scorer("classification", labels=["bug", "other"])
    pairs = [("bug", "bug"), ("bug", "account"), ("billing", "bug")]
    table = table_of(pairs, [made], parse=False)
    found, details = score_metrics(table, [made], exclude_unparsed=False, seed=0)
    values = by_name(found)
    assert values["classification.accuracy"].value == 0.5
    assert values["classification.accuracy"].n == 2
    assert "left out: 1 answered" in values["classification.accuracy"].note
    assert values["classification.recall.bug"].value == 0.5
    assert details["classification"]["confusion"]["columns"][-1] == "(other)"


def test_numbers_and_spellings_are_the_same_label() -> None:
    made = scorer("classification", ignore_case=True)
    table = table_of([("Bug", "bug "), (3, "3"), ("other", "OTHER")], [made], parse=False)
    found = quality(table, [made])
    assert found["classification.f1_macro"].value == 1
    assert found["classification.accuracy"].value == 1


def test_free_text_as_labels_ends_in_a_note_and_not_in_memory() -> None:
    made = scorer("classification")
    pairs = [(f"target {n}", f"answer {n}" if n % 3 else f"target {n}") for n in range(3000)]
    found = quality(table_of(pairs, [made], parse=False), [made])
    assert set(found) == {
        "classification.accuracy",
        "classification.f1_macro",
        "classification.precision_macro",
        "classification.recall_macro",
        "classification.f1_micro",
        "classification.mcc",
    }
    f1 = found["classification.f1_macro"]
    assert f1.value == pytest.approx(1000 / 5000)
    assert f1.ci_low is None
    assert "too many" in f1.note


def test_f1_has_an_interval_that_covers() -> None:
    rng = np.random.default_rng(8)
    made = scorer("classification")
    # Answers are right with 70 %, else uniform over the other three: F1 of every class is 0.7.
    inside = 0
    for trial in range(120):
        targets = rng.integers(4, size=150)
        right = rng.random(150) < 0.7
        answers = np.where(right, targets, (targets + rng.integers(1, 4, size=150)) % 4)
        table = table_of([(LABELS[t], LABELS[a]) for t, a in zip(targets, answers, strict=True)], [made])
        found = quality(table, [made], seed=trial)["classification.f1_macro"]
        assert found.method == "bootstrap"
        assert found.ci_low is not None
        assert found.ci_high is not None
        inside += found.ci_low <= 0.7 <= found.ci_high
    assert 0.88 <= inside / 120 <= 0.99


def test_the_four_endings_are_counted_apart() -> None:
    pairs = [("bug", "bug")] * 6 + [("bug", "hm")] * 2 + [("bug", "REFUSED")] + [("bug", None)]
    made = scorer("exact_match")
    table = table_of(pairs, [made])
    rates = by_name(rate_metrics(table))
    assert (rates["error_rate"].value, rates["error_rate"].n) == (0.1, 10)
    assert (rates["unparsed_rate"].value, rates["unparsed_rate"].n) == (pytest.approx(2 / 9), 9)
    assert (rates["refused_rate"].value, rates["refused_rate"].n) == (pytest.approx(1 / 9), 9)
    assert all(rate.method == "wilson" for rate in rates.values())
    counted = quality(table, [made])["exact_match"]
    assert (counted.value, counted.n) == (pytest.approx(6 / 9), 9)
    excluded = quality(table, [made], exclude=True)["exact_match"]
    assert (excluded.value, excluded.n) == (1.0, 6)


def test_a_published_accuracy_comes_out_to_the_digit() -> None:
    # Counts and accuracies as leaderboards print them; unparsed answers were counted as wrong.
    made = scorer("exact_match")
    for right, wrong, unreadable, published in ((7473, 2301, 268, 0.7442), (688, 480, 4, 0.5870)):
        pairs = [("bug", "bug")] * right + [("bug", "other")] * wrong + [("bug", "hm")] * unreadable
        found = quality(table_of(pairs, [made]), [made])["exact_match"]
        assert found.value is not None
        assert round(found.value, 4) == published
        assert found.n == right + wrong + unreadable


def test_repeats_are_averaged_within_a_sample_and_are_no_samples() -> None:
    made = scorer("exact_match")
    outputs = {"a": ["bug", "bug", "bug"], "b": ["bug", "other"], "c": ["other"]}
    pipeline = Pipeline([], [made])
    rows = [
        SampleRecord(
            sample_id=sample, repeat=k, position=0, vars={}, target="bug", status=Status.SCORED,
            answer=output, scores=pipeline.evaluate(output, "bug", {}).scores,
        )
        for sample, outputs_of in outputs.items()
        for k, output in enumerate(outputs_of)
    ]  # fmt: skip
    found = quality(sample_table(rows), [made])["exact_match"]
    assert (found.value, found.n, found.method) == (0.5, 3, "t")
    assert found.se == pytest.approx(np.std([1, 0.5, 0], ddof=1) / np.sqrt(3))


def test_copies_of_a_sample_make_nothing_more_certain() -> None:
    made = [scorer("exact_match"), scorer("classification")]
    pairs = [("bug", "bug" if n % 3 else "other") for n in range(60)]
    pipeline = Pipeline([], made)
    rows = [record(n, t, o, pipeline) for n, (t, o) in enumerate(pairs)]
    copies = [replace(row, repeat=k) for k in range(4) for row in rows]
    once, often = (quality(sample_table(each), made) for each in (rows, copies))
    for name in ("exact_match", "classification.f1_macro"):
        assert once[name].value == pytest.approx(often[name].value)
        assert often[name].n == 60
        assert often[name].se == pytest.approx(once[name].se, rel=0.1)


def test_clusters_widen_the_interval() -> None:
    made = [scorer("exact_match"), scorer("classification")]
    pipeline = Pipeline([], made)
    rows = [
        record(n, "bug", "bug" if (n // 10) % 3 else "other", pipeline, cluster=f"t{n // 10}")
        for n in range(600)
    ]
    found = quality(sample_table(rows), made)
    assert found["exact_match"].method == "clustered-t"
    assert found["exact_match"].se == pytest.approx(np.sqrt(2 / 3 * 1 / 3 / 59), rel=1e-6)
    plain = np.sqrt(2 / 3 * 1 / 3 / 599)
    recall = found["classification.recall.bug"]
    assert recall.method == "bootstrap"
    assert recall.se is not None
    assert recall.se > 2.5 * plain


def test_order_and_seed_decide_as_they_should() -> None:
    made = [scorer("classification")]
    pipeline = Pipeline([], made)
    rng = np.random.default_rng(1)
    rows = [record(n, LABELS[rng.integers(4)], LABELS[rng.integers(4)], pipeline) for n in range(80)]
    one = quality(sample_table(rows), made, seed=3)
    other = quality(sample_table(rows[::-1]), made, seed=3)
    assert one == other
    third = quality(sample_table(rows), made, seed=4)
    assert one["classification.f1_macro"].ci_low != third["classification.f1_macro"].ci_low


@pytest.mark.parametrize("n", [0, 1])
def test_almost_no_data_is_no_accident(n: int) -> None:
    needed: dict[str, dict[str, object]] = {
        "json_schema": {"schema": {}},
        "length": {"max": 9},
        "not": {"scorer": "includes"},
        "threshold": {"scorer": "token_f1", "at_least": 0.5},
    }
    # Those that run programs, ask models or load what is not installed have tests of their own.
    plain = sorted(
        set(registry.built_in("scorer")) - {"code", "embedding", "evaluate", "hub", "judge", "meteor"}
    )
    made = [scorer(name, **needed.get(name, {})) for name in plain]
    analysis = analyse(table_of([("bug", "bug")] * n, made), made, SystemSummary())
    # Of a label there is no number, no confidence, no JSON and no question of a benchmark to score.
    silent = ("assertions", "numeric", "correlation", "calibration", "json_fields", "json_schema",
              "tool_calls", "bbq", "crows_pairs", "option_likelihood", "perplexity", "stereoset",
              "winobias")  # fmt: skip
    for metric in analysis.metrics:
        assert metric.n == n or (metric.name.split(".")[0] in silent and metric.n == 0)
        assert metric.ci_low is None
        assert metric.note
        assert (metric.value is None) == (metric.n == 0)


def test_a_run_in_which_everything_failed_has_no_scores_and_an_error_rate() -> None:
    made = [scorer("exact_match"), scorer("classification")]
    found = by_name(analyse(table_of([("bug", None)] * 5, made), made, SystemSummary()).metrics)
    assert found["exact_match"].value is None
    assert found["error_rate"].value == 1
    assert found["unparsed_rate"].value is None


def test_figures_of_a_run_say_what_clusters_do_to_them() -> None:
    """Every row five times over, in a cluster: five times the variance, nothing between rows of a cluster."""
    made = scorer("classification", labels=LABELS)
    choice = registry.load("parser", "choice")
    pipeline = Pipeline([choice(choice.Options(labels=LABELS))], [made])
    rng = np.random.default_rng(3)
    rows = []
    for at in range(60):
        target, answer = LABELS[at % 4], LABELS[at % 4] if rng.random() < 0.6 else str(rng.choice(LABELS))
        rows += [record(5 * at + copy, target, answer, pipeline, cluster=f"c{at}") for copy in range(5)]
    found = by_name(score_metrics(sample_table(rows), [made], exclude_unparsed=False, seed=0)[0])
    for name in ("accuracy", "f1_macro", "mcc", "recall.bug"):
        metric = found[f"classification.{name}"]
        assert metric.clusters is not None, name
        assert metric.clusters.count == 60 and metric.clusters.effective == pytest.approx(60)
        assert metric.clusters.design_effect == pytest.approx(5, rel=0.05), name
        assert metric.clusters.icc == pytest.approx(1, abs=1e-6), name
        assert "60 clusters, design effect" in metric.note


def test_the_lesser_of_two_figures_is_covered_where_they_meet() -> None:
    """ICAT is lms min(ss, 100 - ss) / 50; at ss = 50 its bootstrap lies below the truth in most samples."""
    rng, n, covered, plain = np.random.default_rng(1), 80, 0, 0
    for trial in range(60):
        share = rng.beta(3, 3, n)
        hits = (rng.random((n, 4)) < share[:, None]).mean(axis=1)
        statistics = np.column_stack([np.full(n, 90.0), 100 * hits, np.ones(n)])
        infos = {
            name: MetricInfo(name, "percent", "none", "", (0.0, 100.0)) for name in ("lms", "ss", "icat")
        }
        lesser = {"icat": (3, 4)}
        corpus = Corpus(np.arange(n), statistics, stereoset_figures, tuple(infos), infos, least_of=lesser)
        own = Units(hits, np.arange(n), np.arange(n), None, False)
        ours = corpus_estimates(corpus, own, trial)[2]
        bare = corpus_estimates(replace(corpus, least_of={}), own, trial)[2]
        covered += (ours.low or 0) <= 90.0 <= (ours.high or 0)
        plain += (bare.low or 0) <= 90.0 <= (bare.high or 0)
        assert ours.value == bare.value
    assert covered >= 53
    assert plain < covered
