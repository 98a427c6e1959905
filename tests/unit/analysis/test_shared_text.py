"""Rows that share a template are seen; rows that only speak of like things are not."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from tests.tables import sample_table

from evalrun import registry
from evalrun.analysis.run import AnalysisOptions, SystemSummary, analyse
from evalrun.analysis.shared_text import LEAST, like_others
from evalrun.suite.dataset import DatasetSpec
from evalrun.types import MetricValue, SampleRecord, Status

NAMES = ["Anna", "Bob", "Carl", "Dora", "Emil", "Fay", "Gus", "Hal"]
TEMPLATES = [
    "{} feels {} after the long meeting of this morning",
    "The conversation with {} was {}",
    "Yesterday {} told us about a {} evening at the theatre in the old town",
]
FEELINGS = ["angry", "sad", "happy", "anxious"]


def words(rng: np.random.Generator, count: int) -> str:
    return " ".join(f"w{number}x" for number in rng.integers(4000, size=count))


@pytest.mark.parametrize("template", range(3))
def test_rows_of_a_template_are_told_from_others(template: int) -> None:
    made = [TEMPLATES[template].format(name, feeling) for name in NAMES for feeling in FEELINGS]
    rng = np.random.default_rng(template)
    found = like_others(made + [words(rng, 12) for _ in range(50)])
    assert found.rows == 32 and found.looked_at == 82
    assert "names no cluster" in found.sentence() and "32 of 82 rows" in found.sentence()


def test_rows_that_differ_in_numbers_share_their_text() -> None:
    found = like_others([f"What is {n} times {n * n + 0.5}?" for n in range(40)])
    assert (found.rows, found.templates) == (40, 1)
    assert "one template" in found.sentence()


def test_a_few_alike_rows_or_short_ones_are_not_mentioned() -> None:
    rng = np.random.default_rng(1)
    texts = [words(rng, 20) for _ in range(200)]
    assert like_others(texts).rows == 0
    assert like_others([*texts, *texts[: LEAST - 1]]).sentence() == ""
    assert like_others([f"row {n}" for n in range(100)]).rows == 0
    assert like_others([]).sentence() == "" == like_others(["one text only here"]).sentence()


def test_text_without_a_letter_or_word_is_no_template() -> None:
    assert like_others(["", "?", "!!"] * 20).rows == 0


def records(cluster: bool) -> list[SampleRecord]:
    rows = [(n, name, feeling) for n, name in enumerate(NAMES) for feeling in FEELINGS]
    base: dict[str, Any] = {"repeat": 0, "target": "x", "status": Status.SCORED, "answer": "x"}
    return [
        SampleRecord(
            sample_id=f"s{at}",
            position=at,
            vars={"text": TEMPLATES[0].format(name, feeling), "kind": "all the same text in every row"},
            scores={"exact_match": float(at % 3 > 0)},
            cluster=name if cluster else None,
            **base,
        )
        for at, (_, name, feeling) in enumerate(rows)
    ]


def metric_of(cluster: bool) -> tuple[MetricValue, tuple[str, ...]]:
    kind = registry.load("scorer", "exact_match")
    scorers = [kind(kind.Options())]
    found = analyse(sample_table(records(cluster)), scorers, SystemSummary(), AnalysisOptions())
    return next(metric for metric in found.metrics if metric.name == "exact_match"), found.warnings


def test_figures_of_rows_that_share_a_template_say_so_unless_a_cluster_is_named() -> None:
    alone, warnings = metric_of(False)
    assert "rows share a template and no cluster is named" in alone.note
    assert len(warnings) == 1 and "32 of 32 rows" in warnings[0]
    clustered, warnings = metric_of(True)
    assert "template" not in clustered.note and warnings == ()
    assert clustered.clusters is not None and clustered.clusters.count == 8


def test_runs_that_end_side_by_side_may_each_look() -> None:
    """Of many data sets, in threads that are switched as often as can be."""
    table = sample_table(records(False))
    specs = [DatasetSpec(id=f"d{at}", path="rows.jsonl") for at in range(200)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            said = set(
                threads.map(
                    lambda spec: analyse(table, [], SystemSummary(), AnalysisOptions(dataset=spec)).warnings,
                    specs,
                )
            )
    finally:
        sys.setswitchinterval(before)
    assert len(said) == 1 and "32 of 32 rows" in str(said)
