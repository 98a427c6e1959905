"""Every number has a definition, and the whole analysis holds together."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from tests.tables import sample_table

from evalrun import registry
from evalrun.analysis.definitions import definition, metric_reference
from evalrun.analysis.fairness_groups import FairnessPlan
from evalrun.analysis.performance import SystemSummary
from evalrun.analysis.run import AnalysisOptions, analyse
from evalrun.scoring.base import Scorer
from evalrun.types import SampleRecord, Status


def scorer(name: str, /, **options: object) -> Scorer:
    kind = registry.load("scorer", name)
    made: Scorer = kind(kind.Options(**options))
    return made


def records(n: int = 200) -> list[SampleRecord]:
    rng = np.random.default_rng(0)
    rows = []
    for at in range(n):
        answer = ["yes", "no"][rng.integers(2)]
        right = float(answer == "yes")
        rows.append(
            SampleRecord(
                sample_id=f"{at}", repeat=0, position=at, vars={}, target="yes", status=Status.SCORED,
                answer=answer, e2e_s=0.5, ttft_s=0.1, tpot_s=0.01, client_queue_s=0.0, sent_s=at * 0.5,
                done_s=at * 0.5 + 0.5, prompt_tokens=5, completion_tokens=9, attempts=1, cost_usd=0.001,
                scores=dict.fromkeys(("exact_match", "classification", "mine"), right),
                sensitive={"dialect.code": "ab"[at % 2]},
            )
        )  # fmt: skip
    return rows


SCORERS = [scorer("exact_match"), scorer("classification"), scorer("includes", name="mine")]
SYSTEM = SystemSummary(10**9, 10**8, 30.0, 5.0, 100.0, 0.002)


def test_every_metric_of_a_run_is_defined_and_agrees_with_its_definition() -> None:
    analysis = analyse(
        sample_table(records()),
        SCORERS,
        SYSTEM,
        AnalysisOptions(fairness=FairnessPlan(["dialect.code"], seed=1), stream=True, seed=1),
    )
    names = {metric.name for metric in analysis.metrics}
    assert {
        "performance.ttft_s.p95",
        "memory.engine_peak_bytes",
        "cost.usd",
        "classification.f1_macro",
    } <= names
    assert "fairness.dialect.code.classification.accuracy.gap" in names
    for metric in analysis.metrics:
        info = definition(metric.name, {info.name: info for one in SCORERS for info in one.metrics()})
        assert info.name == metric.name
        assert (info.unit, info.direction) == (metric.unit, metric.direction)
        assert info.definition.endswith(".")
        assert len(info.definition) > 40
        low, high = info.bounds
        for value in (metric.value, metric.ci_low, metric.ci_high):
            assert value is None or ((low is None or value >= low) and (high is None or value <= high))
    assert "dialect.code" in definition("fairness.dialect.code.classification.accuracy.gap").definition
    assert (
        "classification.accuracy"
        in definition("fairness.dialect.code.classification.accuracy.gap").definition
    )


def test_definitions_travel_with_the_run_and_metrics_name_their_scorer() -> None:
    analysis = analyse(
        sample_table(records()), SCORERS, SYSTEM, AnalysisOptions(fairness=FairnessPlan(["dialect.code"]))
    )
    definitions = analysis.details.definitions
    assert set(definitions) == {metric.name for metric in analysis.metrics}
    assert definitions["mine"].bounds == (0.0, 1.0)
    scorers = {metric.name: metric.scorer for metric in analysis.metrics}
    assert scorers["mine"] == "mine" and scorers["classification.f1_macro"] == "classification"
    assert scorers["error_rate"] == "" and scorers["fairness.dialect.code.mine.gap"] == ""
    assert all(metric.scorer for metric in analysis.metrics if metric.name == "mine"), "of groups too"
    assert "holds the target" in analysis.details.definitions["mine"].definition


def test_the_analysis_can_be_written_as_json_and_made_again() -> None:
    table = sample_table(records())
    options = AnalysisOptions(fairness=FairnessPlan(["dialect.code"], seed=5), stream=True, seed=5)
    one, other = (analyse(table, SCORERS, SYSTEM, options) for _ in range(2))
    assert one == other
    text = json.dumps(
        {"metrics": [asdict(m) for m in one.metrics], "details": asdict(one.details)}, allow_nan=False
    )
    assert len(text) < 200_000
    assert one.counts.samples == 200


def test_the_reference_holds_every_metric_once() -> None:
    text = metric_reference()
    for name in (
        "exact_match",
        "classification.f1_macro",
        "classification.recall.<label>",
        "error_rate",
        "performance.ttft_s.p99",
        "performance.output_tokens_per_s",
        "memory.client_peak_bytes",
        "cost.usd",
        "fairness.<column>.<metric>.gap",
    ):
        assert text.count(f"### `{name}`") == 1
    assert "lower is better" in text


@pytest.mark.parametrize("name", ["classification.recall.billing", "performance.e2e_s.p95", "whatever"])
def test_a_definition_keeps_the_name_it_was_asked_for(name: str) -> None:
    assert definition(name).name == name


def test_definitions_of_fairness_name_their_column_and_metric() -> None:
    for name, column, direction in (
        ("fairness.age.demographic_parity.difference", "age", "lower"),
        ("fairness.age.group.demographic_parity.ratio", "age.group", "higher"),
        ("fairness.age.equal_opportunity.billing.difference", "age", "lower"),
    ):
        found = definition(name)
        assert (found.name, found.direction, found.bounds) == (name, direction, (0.0, 1.0))
        assert f"groups of {column}. " in found.definition or f"groups of {column}; " in found.definition
        assert ("above zero all the same" in found.definition) is name.endswith("difference")
    contrast = definition("fairness.age.exact_match.contrast")
    assert contrast.direction == "none"
    assert (
        contrast.definition.startswith("exact_match of the group")
        and " group of age, " in contrast.definition
    )


@pytest.mark.parametrize("name", ["performance.e2e_s.p95", "cost.usd", "repeats.exact_match.variance_within"])
def test_times_sums_and_variances_have_no_upper_bound(name: str) -> None:
    assert definition(name).bounds == (0.0, None)
