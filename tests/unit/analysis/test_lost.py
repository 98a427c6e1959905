"""Figures of speed and cost that lost rows, and the worst-case bounds of what is made of scores."""

from typing import Any

import pytest
from tests.tables import sample_table
from tests.unit.analysis.test_performance import record

from evalrun.analysis.catalogue import performance_info
from evalrun.analysis.lost import Losses, mark_incomplete
from evalrun.analysis.performance import SystemSummary, performance_metrics
from evalrun.types import MetricValue, SampleRecord, Status


def marked(rows: list[SampleRecord], tolerate: float = 0.05) -> dict[str, MetricValue]:
    table = sample_table(rows)
    metrics, _ = performance_metrics(table, SystemSummary(), stream=True)
    losses = Losses(table, [], exclude_unparsed=False)
    if not losses.any:
        return {metric.name: metric for metric in metrics}
    found = mark_incomplete(
        metrics,
        table,
        losses,
        tolerate=tolerate,
        bounds_of=lambda name: performance_info(name).bounds,
        plan=None,
    )
    return {metric.name: metric for metric in found}


def rows(answered: int, failed: int, **more: Any) -> list[SampleRecord]:
    none = {"e2e_s": None, "ttft_s": None, "tpot_s": None, "sent_s": None, "done_s": None}
    lost = [record(answered + n, status=Status.FAILED, **none) for n in range(failed)]
    return [record(n, chunk_gaps=[50_000] * 15, **more) for n in range(answered)] + lost


def test_rates_gaps_and_costs_with_too_many_failed_requests_are_incomplete() -> None:
    found = marked(rows(90, 10, cost_usd=0.01))
    for name in ("requests_per_s", "output_tokens_per_s", "icl_s.p95"):
        metric = found[f"performance.{name}"]
        assert metric.incomplete and (metric.bound_low, metric.bound_high) == (0.0, None)
        assert metric.note.startswith("incomplete: 10 of 100")
    cost = found["cost.usd"]
    assert cost.incomplete and cost.bound_high is None
    assert cost.bound_low == cost.value == pytest.approx(0.9), "what is known was paid"


def test_few_failed_requests_are_borne() -> None:
    found = marked(rows(96, 4, cost_usd=0.01))
    assert not any(metric.incomplete for metric in found.values())


def test_a_cost_of_answers_without_a_known_price_is_incomplete() -> None:
    priced, unknown = rows(90, 0, cost_usd=0.01), [record(90 + n) for n in range(10)]
    found = marked([*priced, *unknown])
    assert found["cost.usd"].incomplete and found["cost.usd"].bound_low == pytest.approx(0.9)
    assert not found["performance.requests_per_s"].incomplete
    assert "cost.usd" not in marked(rows(20, 0)), "no price at all is no loss"
