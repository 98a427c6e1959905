"""The metrics of repeats in a run; above all, that repeats are never counted as samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tests.tables import sample_table

from evalrun import registry
from evalrun.analysis.definitions import definition
from evalrun.analysis.fairness_groups import FairnessPlan
from evalrun.analysis.measures import RunSamples
from evalrun.analysis.paired import paired_difference
from evalrun.analysis.performance import SystemSummary
from evalrun.analysis.quality import mean_metrics
from evalrun.analysis.repeats import repeat_metrics
from evalrun.analysis.run import AnalysisOptions, RunAnalysis, analyse
from evalrun.scoring.pipeline import Pipeline
from evalrun.scoring.scorers.translation import WordErrorRate
from evalrun.types import MetricValue, SampleRecord, Status

EXACT_MATCH = registry.load("scorer", "exact_match")
EXACT = EXACT_MATCH(EXACT_MATCH.Options())


def records(scores: Any, answers: Any = None, cluster: Any = None) -> list[SampleRecord]:
    """One record for each entry of a table of samples x repeats; a score of NaN is a failed answer."""
    found = []
    for at, row in enumerate(scores):
        for repeat, score in enumerate(row):
            failed = math.isnan(score)
            answer = str(score) if answers is None else answers[at][repeat]
            found.append(
                SampleRecord(
                    sample_id=f"s{at:05d}",
                    repeat=repeat,
                    position=at,
                    vars={},
                    target="1.0",
                    status=Status.FAILED if failed else Status.UNPARSED if answer is None else Status.SCORED,
                    answer=None if failed else answer,
                    scores={} if failed else {"exact_match": float(score)},
                    sensitive={"group": "ab"[at % 2]},
                    cluster=None if cluster is None else cluster[at],
                )
            )
    return found


def analysed(scores: Any, answers: Any = None, cluster: Any = None, **options: Any) -> RunAnalysis:
    table = sample_table(records(scores, answers, cluster))
    return analyse(table, [EXACT], SystemSummary(), AnalysisOptions(**options))


def by_name(found: RunAnalysis) -> dict[str, MetricValue]:
    return {each.name: each for each in found.metrics if not each.slice}


def test_the_trap_of_counting_repeats_as_samples() -> None:
    """Ten identical answers to each of 40 samples tell no more than one: same n, same interval, same gap."""
    one = (np.random.default_rng(0).random((40, 1)) < 0.6).astype(float)
    once, often = (
        analysed(scores, fairness=FairnessPlan(["group"])) for scores in (one, np.repeat(one, 10, axis=1))
    )
    for name in ("exact_match", "error_rate"):
        assert by_name(often)[name] == by_name(once)[name]
    slices = [
        {tuple(each.slice.items()): (each.value, each.n) for each in found.metrics if each.slice}
        for found in (once, often)
    ]
    assert slices[0]
    assert slices[0] == slices[1]
    assert all(each.n == 40 for each in often.metrics if each.name.startswith("repeats."))


def test_pass_at_k_votes_and_consistency_of_a_run() -> None:
    scores = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1]]
    answers = [["y", "x", "x"], ["y", "y", "n"], ["a", "b", None], ["y", "y", "y"]]
    found = by_name(analysed(scores, answers))
    assert found["exact_match"].value == pytest.approx(0.5)
    assert found["repeats.exact_match.pass_at_2"].value == pytest.approx(np.mean([2 / 3, 1, 0, 1]))
    assert found["repeats.exact_match.pass_at_3"].value == pytest.approx(0.75)
    assert found["repeats.exact_match.pass_hat_2"].value == pytest.approx(np.mean([0, 1 / 3, 0, 1]))
    assert found["repeats.exact_match.pass_hat_3"].value == pytest.approx(0.25)
    assert found["repeats.exact_match.majority"].value == pytest.approx(0.5)
    assert found["repeats.consistency"].value == pytest.approx(np.mean([1 / 3, 1 / 3, 0, 1]))
    for name, metric in found.items():
        if name.startswith("repeats."):
            assert metric.n == 4
            assert metric.ci_low <= metric.value <= metric.ci_high
            assert "Mean of the score" not in definition(name).definition


def test_scores_between_0_and_1_are_not_passed_or_failed() -> None:
    found = by_name(analysed([[1, 0.5], [0, 0], [1, 1]]))
    assert "repeats.exact_match.majority" in found
    assert not any("pass_" in name for name in found)


def test_a_run_without_repeats_has_no_such_metrics() -> None:
    assert not any(name.startswith("repeats.") for name in by_name(analysed([[1], [0]])))


def test_failed_repeats_are_left_out_of_their_sample_only() -> None:
    found = by_name(analysed([[1, math.nan, 0], [1, 1, 1], [math.nan] * 3, [0, 0, 0]]))
    assert found["exact_match"].n == 3
    assert found["exact_match"].value == pytest.approx(0.5)
    assert found["repeats.exact_match.pass_at_2"].n == 3
    pass_at_3 = found["repeats.exact_match.pass_at_3"]
    assert pass_at_3.n == 2
    assert "1 samples with fewer than 3 answers" in pass_at_3.note


def test_a_sample_without_a_vote_has_the_mean_of_its_scores() -> None:
    """0 for a score of correctness, and the worst, not the best, for an error rate."""
    wer = WordErrorRate(WordErrorRate.Options())
    pipeline = Pipeline([lambda text: text if text != "-" else _refuse()], [wer])
    made = []
    for repeat in range(2):
        scored = pipeline.evaluate("-", "a b", {})
        made.append(SampleRecord("s", repeat, 0, {}, "a b", scored.status, answer=None, scores=scored.scores))
    [majority] = [
        each
        for each in analyse(sample_table(made), [wer], SystemSummary()).metrics
        if each.name.endswith(".majority")
    ]
    assert majority.value == made[0].scores["wer"] == 1.0


def _refuse() -> str:
    from evalrun.scoring.base import Unparsed

    raise Unparsed("nothing there")


def drawn(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Answers of samples that are each right with a chance of their own, uniform over 0 … 1."""
    return (rng.random((n, k)) < rng.random(n)[:, None]).astype(float)


TRUE = {
    "exact_match": 0.5,
    "repeats.exact_match.pass_at_2": 2 / 3,
    "repeats.exact_match.pass_at_5": 5 / 6,
    "repeats.exact_match.pass_hat_2": 1 / 3,
    "repeats.exact_match.variance_within": 1 / 6,
    "repeats.exact_match.variance_between": 1 / 12,
}


def test_intervals_cover_the_truth_with_repeats() -> None:
    rng = np.random.default_rng(5)
    runs, n, k = 120, 60, 5
    hits = dict.fromkeys(TRUE, 0)
    for _ in range(runs):
        one = sample_table(records(drawn(rng, n, k)))
        options = {"exclude_unparsed": False, "seed": 0}
        found = {each.name: each for each in repeat_metrics(one, [EXACT], **options)}
        found["exact_match"] = mean_metrics(one, EXACT, exclude_unparsed=False)[0]
        for name, truth in TRUE.items():
            hits[name] += found[name].ci_low <= truth <= found[name].ci_high
    for name, count in hits.items():
        assert 0.89 <= count / runs <= 0.99, (name, count / runs)  # 95 % within the simulation's own error


def test_clusters_of_samples_widen_the_intervals() -> None:
    rng = np.random.default_rng(3)
    scores = np.repeat(drawn(rng, 50, 3), 4, axis=0)  # four samples alike in each cluster
    alone = by_name(analysed(scores))
    together = by_name(analysed(scores, cluster=[f"c{at // 4}" for at in range(200)]))
    for name in TRUE:
        if name in alone and not name.endswith("pass_at_5"):
            widths = [each[name].ci_high - each[name].ci_low for each in (alone, together)]
            assert widths[1] > 1.5 * widths[0], name
            assert together[name].n == 200


def test_a_comparison_sees_samples_and_not_answers() -> None:
    """`by_id` is what comparisons and gates read: one value a sample id, so p cannot shrink by repeating."""
    rng = np.random.default_rng(4)
    a, b = drawn(rng, 60, 1), drawn(rng, 60, 1)
    values = []
    for scores in (a, np.repeat(a, 8, axis=1), b, np.repeat(b, 8, axis=1)):
        table = sample_table(records(scores))
        run = object.__new__(RunSamples)
        run.__dict__["table"] = table
        values.append(run.by_id(table.scores["exact_match"], table.answered))
    once, often = paired_difference(values[0], values[2]), paired_difference(values[1], values[3])
    assert once == often
    assert often.n == 60
