"""Figures of speed and cost that lost rows, and the worst-case bounds of what is made of scores."""

from itertools import product
from typing import Any

import pytest
from tests.tables import sample_table
from tests.unit.analysis.test_performance import record

from evalrun import registry
from evalrun.analysis.catalogue import performance_info
from evalrun.analysis.lost import Losses, mark_incomplete
from evalrun.analysis.performance import SystemSummary, performance_metrics
from evalrun.analysis.worst_case import tight_bounds
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


def figures_of(targets: str, answers: str) -> dict[str, float]:
    """Macro and micro F1 and recall, and those of class a, by scikit-learn."""
    from sklearn.metrics import precision_recall_fscore_support as prf

    labels = sorted(set(targets) | set(answers) - {"-"})
    target = [*targets]
    known = prf(target, [*answers], labels=labels, zero_division=0)
    found = {f"f1.{label}": known[2][at] for at, label in enumerate(labels)}
    found |= {f"recall.{label}": known[1][at] for at, label in enumerate(labels)}
    found["f1_macro"], found["recall_macro"] = known[2].mean(), known[1].mean()
    found["f1_micro"] = prf(target, [*answers], labels=labels, average="micro", zero_division=0)[2]
    return found


@pytest.mark.parametrize(
    ("targets", "answers"),
    [
        ("aabbbcc???", "abbbaccxyz"),
        ("aaaabb", "aaab??"),
        ("abcabc", "abca??"),
        ("aab", "???"),
        ("aabb", "ab?b"),
    ],
)
def test_bounds_of_f1_and_recall_are_those_of_the_worst_and_best_answers(targets: str, answers: str) -> None:
    """Every answer that the lost rows might have given, one after the other, through scikit-learn."""
    targets, answers = targets.replace("?", "a"), answers
    lost = [at for at, answer in enumerate(answers) if answer in "?xyz"]
    records = [
        record(at, target=target, status=Status.FAILED if at in lost else Status.SCORED,
               answer=None if at in lost else answers[at], output="x",
               scores={} if at in lost else {"classification": float(answers[at] == target)})
        for at, target in enumerate(targets)
    ]  # fmt: skip
    kind = registry.load("scorer", "classification")
    scorer = kind(kind.Options(labels=["a", "b", "c"]))
    table = sample_table(records)
    column = Losses(table, [scorer], exclude_unparsed=False).columns()["classification.accuracy"]
    seen: dict[str, list[float]] = {}
    for given in product("abc", repeat=len(lost)):
        filled = [*answers]
        for at, answer in zip(lost, given, strict=True):
            filled[at] = answer
        for name, value in figures_of(targets, "".join(filled)).items():
            seen.setdefault(name, []).append(value)
    for name, values in seen.items():
        bounds = tight_bounds(f"classification.{name}", column, table, scorer)
        if name.startswith("recall.") and name[-1] not in targets:
            assert bounds == (None, None), "0 of 0, whatever is answered"
            continue
        assert bounds is not None and bounds[0] is not None and bounds[1] is not None
        assert bounds[0] <= min(values) + 1e-12 and max(values) - 1e-12 <= bounds[1], name
        assert bounds[1] == pytest.approx(max(values)), name
        if name in ("f1_micro", "f1.a", "recall.a") or {*targets} >= {*"abc"}:
            assert bounds[0] == pytest.approx(min(values)), name


def test_bounds_of_pass_at_k_are_those_of_right_and_wrong_answers() -> None:
    scores: list[list[float | None]] = [[1, 0, None, 0], [None, None, 1, 1], [0, 0, 0, 0]]
    records = [
        record(10 * n + k, sample_id=f"s{n}", repeat=k,
               status=Status.FAILED if score is None else Status.SCORED,
               scores={} if score is None else {"exact_match": float(score)})
        for n, row in enumerate(scores) for k, score in enumerate(row)
    ]  # fmt: skip
    kind = registry.load("scorer", "exact_match")
    scorer = kind(kind.Options())
    table = sample_table(records)
    column = Losses(table, [scorer], exclude_unparsed=False).columns()["exact_match"]
    low, high = tight_bounds("repeats.exact_match.pass_at_2", column, table, scorer) or (None, None)
    # C(4 - c, 2) / 6 for c = 1, 2, 0 right answers at worst, and 2, 4, 0 at best.
    assert low == pytest.approx(1 - (3 + 1 + 6) / 18) and high == pytest.approx(1 - (1 + 0 + 6) / 18)
