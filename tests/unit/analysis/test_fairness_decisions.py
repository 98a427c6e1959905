"""Decisions by group against fairlearn's and scikit-learn's own values, and where those would mislead."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    demographic_parity_ratio,
    equal_opportunity_difference,
    equal_opportunity_ratio,
    equalized_odds_difference,
    equalized_odds_ratio,
    selection_rate,
)
from sklearn.metrics import recall_score
from tests.tables import sample_table

from evalrun import registry
from evalrun.analysis.definitions import definition
from evalrun.analysis.fairness import fairness_metrics
from evalrun.analysis.fairness_groups import MISSING, FairnessPlan
from evalrun.scoring.base import Scorer
from evalrun.types import MetricValue, SampleRecord, Status

Found = dict[tuple[str, frozenset[tuple[str, str]]], MetricValue]


def scorer() -> Scorer:
    kind = registry.load("scorer", "exact_match")
    made: Scorer = kind(kind.Options())
    return made


def record(number: int, target: Any, answer: Any, groups: dict[str, str | None], **more: Any) -> SampleRecord:
    base: dict[str, Any] = {
        "sample_id": f"s{number:05d}",
        "repeat": 0,
        "position": number,
        "vars": {},
        "target": target,
        "answer": answer,
        "status": Status.SCORED,
        "scores": {"exact_match": float(target == answer)},
        "sensitive": groups,
    }
    return SampleRecord(**{**base, **more})


def run(rows: Sequence[SampleRecord], **plan: Any) -> tuple[Found, dict[str, Any]]:
    plan = {"by": ["group"], "min_group": 1, **plan}
    found, details = fairness_metrics(sample_table(rows), [scorer()], FairnessPlan(**plan))
    return {(each.name, frozenset(each.slice.items())): each for each in found}, {
        name: asdict(column) for name, column in details.items()
    }


def value(found: Found, name: str, **where: str) -> float | None:
    return found[name, frozenset(where.items())].value


def data(seed: int, n: int = 400, groups: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(2, size=n), rng.integers(2, size=n), rng.integers(groups, size=n)


def plain(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def rows_of(truth: Any, answers: Any, groups: Any) -> list[SampleRecord]:
    return [
        record(n, t, a, {"group": None if g is None else f"g{g}"})
        for n, (t, a, g) in enumerate(zip(plain(truth), plain(answers), plain(groups), strict=True))
    ]


@pytest.mark.parametrize(
    ("seed", "labels"), [(0, (0, 1)), (1, ("no", "yes")), (2, ("B", "A")), (3, ("B", "A"))]
)
def test_the_criteria_are_those_of_fairlearn_for_any_labels(seed: int, labels: tuple[Any, Any]) -> None:
    truth, answers, groups = data(seed)
    rows = rows_of(
        [labels[each] for each in truth.tolist()], [labels[each] for each in answers.tolist()], groups
    )
    found, details = run(rows, positive=str(labels[1]))
    for name, function in (
        ("demographic_parity.difference", demographic_parity_difference),
        ("demographic_parity.ratio", demographic_parity_ratio),
        ("equal_opportunity.difference", equal_opportunity_difference),
        ("equal_opportunity.ratio", equal_opportunity_ratio),
        ("equalized_odds.difference", equalized_odds_difference),
        ("equalized_odds.ratio", equalized_odds_ratio),
    ):
        assert value(found, f"fairness.group.{name}") == pytest.approx(
            function(truth, answers, sensitive_features=groups)
        )
    frame = MetricFrame(
        metrics={"selection_rate": selection_rate, "true_positive_rate": recall_score},
        y_true=truth,
        y_pred=answers,
        sensitive_features=groups,
    )
    for code, row in frame.by_group.iterrows():
        for rate, expected in row.items():
            assert value(found, str(rate), group=f"g{code}") == pytest.approx(expected)
        mine = (groups == code) & (truth == 0)
        assert value(found, "false_positive_rate", group=f"g{code}") == pytest.approx(answers[mine].mean())
        assert found["false_positive_rate", frozenset({("group", f"g{code}")})].n == mine.sum()
    assert details["group"]["criteria"]["equalized_odds"]["p"] > 0.001


def test_one_label_against_the_rest_is_that_label_against_the_rest() -> None:
    rng = np.random.default_rng(5)
    names = np.array(["bug", "billing", "Other thing"])
    truth, answers, groups = (
        (names[rng.integers(3, size=600)] for _ in range(2)),
        None,
        rng.integers(3, size=600),
    )
    truth, answers = list(truth)
    found, _ = run(rows_of(truth, answers, groups), one_vs_rest=True)
    for label, slug in (("bug", "bug"), ("billing", "billing"), ("Other thing", "other_thing")):
        expected = equalized_odds_difference(truth == label, answers == label, sensitive_features=groups)
        assert value(found, f"fairness.group.equalized_odds.{slug}.difference") == pytest.approx(expected)
        assert value(found, f"selection_rate.{slug}", group="g0") == pytest.approx(
            (answers[groups == 0] == label).mean()
        )


def test_a_group_without_positives_has_no_true_positive_rate_and_a_missing_group_takes_no_part() -> None:
    truth, answers, groups = data(3, 300, 3)
    truth[groups == 2] = 0
    rows = rows_of(truth, answers, [None if n % 10 == 0 else int(g) for n, g in enumerate(groups)])
    found, _ = run(rows, positive="1")
    kept = np.arange(300) % 10 != 0
    tpr = found["true_positive_rate", frozenset({("group", "g2")})]
    assert (tpr.value, tpr.n) == (None, 0)
    two = kept & (groups != 2)
    assert value(found, "fairness.group.equal_opportunity.difference") == pytest.approx(
        equal_opportunity_difference(truth[two], answers[two], sensitive_features=groups[two])
    )
    assert value(found, "fairness.group.demographic_parity.difference") == pytest.approx(
        demographic_parity_difference(truth[kept], answers[kept], sensitive_features=groups[kept])
    )
    assert value(found, "selection_rate", group=MISSING) is not None


def test_equalized_odds_are_over_groups_that_are_large_enough_for_both_rates() -> None:
    """By hand, as {group: (answered yes, of so many)} where yes is right, and where it is wrong."""
    positives = {"a": (30, 40), "b": (20, 40), "c": (5, 40)}
    negatives = {"a": (10, 40), "b": (4, 40), "c": (9, 10)}
    rows: list[SampleRecord] = []
    for target, counts in (("yes", positives), ("no", negatives)):
        for group, (yes, total) in counts.items():
            rows += [
                record(len(rows) + n, target, "yes" if n < yes else "no", {"group": group})
                for n in range(total)
            ]
    found, details = run(rows, min_group=30, positive="yes")
    assert value(found, "fairness.group.equal_opportunity.difference") == 30 / 40 - 5 / 40
    assert value(found, "fairness.group.equal_opportunity.ratio") == (5 / 40) / (30 / 40)
    assert value(found, "fairness.group.equalized_odds.difference") == 30 / 40 - 20 / 40
    assert value(found, "fairness.group.equalized_odds.ratio") == (4 / 40) / (10 / 40)
    assert value(found, "fairness.group.demographic_parity.difference") == 40 / 80 - 14 / 50
    odds = details["group"]["criteria"]["equalized_odds"]
    assert [rates["group"] for rates in odds["groups"]] == ["a", "b"]
    assert found["fairness.group.equalized_odds.difference", frozenset()].n == 160


def test_no_ratio_where_nobody_is_given_the_label_and_nothing_at_all_where_it_does_not_exist() -> None:
    truth, _, groups = data(1)
    found, _ = run(rows_of(truth, np.zeros(400, int), groups), positive="1")
    assert value(found, "fairness.group.demographic_parity.difference") == 0
    assert value(found, "fairness.group.demographic_parity.ratio") is None
    found, details = run(rows_of(truth, truth, groups), positive="yes")
    gap = found["fairness.group.demographic_parity.difference", frozenset()]
    assert gap.value is None
    assert "neither an answer nor a target is the positive label 'yes'" in gap.note
    assert value(found, "selection_rate", group="g0") is None
    assert details["group"]["criteria"]["demographic_parity"]["difference"] is None


def test_unparsed_and_refused_answers_are_not_selected_and_stay_in() -> None:
    rows = [
        record(n, "yes", None if n % 4 == 0 else "yes", {"group": f"g{n % 2}"},
               status=Status.REFUSED if n % 4 == 0 else Status.SCORED)
        for n in range(80)
    ]  # fmt: skip
    found, _ = run(rows, positive="yes")
    assert value(found, "true_positive_rate", group="g0") == 0.5
    assert value(found, "fairness.group.refused_rate.contrast", group="g0") == 0.5
    left_out, _ = run(rows, positive="yes", exclude_unparsed=True)
    assert value(left_out, "true_positive_rate", group="g0") == 1.0


def test_whole_numbers_and_texts_of_them_are_one_label() -> None:
    rows = [record(n, 1.0 if n % 2 else 0, "1" if n % 3 else "0", {"group": "ab"[n % 2]}) for n in range(60)]
    found, _ = run(rows, positive="1")
    assert value(found, "selection_rate", group="a") == pytest.approx(2 / 3)
    assert value(found, "true_positive_rate", group="b") == pytest.approx(2 / 3)
    assert value(found, "false_positive_rate", group="b") is None


def test_intersections_name_every_column_and_the_combinations_that_are_empty() -> None:
    rows = [
        record(n, 1, int(n % 3 == 0), {"sex": "fm"[n % 2], "age": "old" if n % 4 == 1 else "young"})
        for n in range(120)
    ]
    found, details = run(rows, by=["sex"], intersections=[("sex", "age")])
    assert value(found, "exact_match", sex="m", age="old") == pytest.approx(1 / 3)
    assert found["exact_match", frozenset({("sex", "m"), ("age", "old")})].n == 30
    assert "fairness.sex-age.exact_match.gap" in {name for name, _ in found}
    assert details["sex-age"]["note"] == "1 combinations have no samples: f, old"
    assert [group["group"] for group in details["sex-age"]["metrics"]["exact_match"]["groups"]] == [
        "f, young", "m, old", "m, young",
    ]  # fmt: skip


def test_a_control_column_explains_a_gap_away() -> None:
    """Within each topic the groups do the same; only their topics differ."""
    rows = []
    for n in range(400):
        group = "ab"[n % 2]
        topic = "hard" if (n // 2) % 10 < (8 if group == "a" else 2) else "easy"
        rows.append(
            record(
                n, 1, int((n // 20) % 10 < (3 if topic == "hard" else 9)), {"group": group, "topic": topic}
            )
        )
    found, details = run(rows, control=["topic"])
    assert value(found, "fairness.group.exact_match.gap") == pytest.approx(0.36)
    for topic in ("easy", "hard"):
        assert value(found, "fairness.group.exact_match.gap", topic=topic) == pytest.approx(0, abs=0.02)
        within = details["group"]["control"]["topic"][topic]["metrics"]["exact_match"]
        frame = MetricFrame(
            metrics=recall_score,
            y_true=[row.target for row in rows],
            y_pred=[row.answer for row in rows],
            sensitive_features=[row.sensitive["group"] for row in rows],
            control_features=[row.sensitive["topic"] for row in rows],
        )
        for group in within["groups"]:
            assert group["value"] == pytest.approx(frame.by_group[topic, group["group"]])


def test_length_and_time_are_compared_and_cached_answers_have_no_time() -> None:
    rows = [
        record(n, 1, 1, {"group": "ab"[n % 2]}, completion_tokens=10 + 5 * (n % 2), e2e_s=0.1 * (1 + n % 2),
               cached=n % 4 == 0)
        for n in range(200)
    ]  # fmt: skip
    found, details = run(rows)
    assert value(found, "fairness.group.performance.completion_tokens.mean.contrast", group="b") == 5
    assert found["performance.e2e_s.mean", frozenset({("group", "a")})].n == 50
    assert value(found, "fairness.group.performance.e2e_s.mean.gap") == pytest.approx(0.1)
    assert "performance.ttft_s.mean" not in details["group"]["metrics"]


def test_withheld_groups_that_are_small_are_not_shown_at_all() -> None:
    rows = [record(n, 1, 1, {"group": "rare" if n < 5 else "ab"[n % 2]}) for n in range(105)]
    found, details = run(rows, min_group=30, withheld=frozenset({"group"}))
    assert not any(("group", "rare") in where for _, where in found)
    assert details["group"]["metrics"]["exact_match"]["withheld"] == 1
    assert "rare" not in str(details)


@pytest.mark.parametrize("plan", [{"control": ["topic"]}, {"intersections": [("group", "topic")]}])
def test_small_values_of_withheld_columns_are_named_nowhere(plan: dict[str, Any]) -> None:
    """Neither as the level of a control column nor as a combination that has no samples."""
    rows = [
        record(
            n,
            1,
            n % 2,
            {
                "group": "rare" if n < 4 else "ab"[n % 2],
                "topic": "Quechua" if n in (7, 9) else "xy"[n % 3 == 0],
            },
        )
        for n in range(200)
    ]
    found, details = run(rows, min_group=30, withheld=frozenset({"group", "topic"}), positive="1", **plan)
    said = str(details) + str(list(found.values()))
    assert "rare" not in said
    assert "Quechua" not in said
    assert "'a'" in said
    assert "'y'" in said


def test_every_metric_has_the_definition_that_its_name_leads_to() -> None:
    truth, answers, groups = data(2)
    rows = rows_of(truth, answers, groups)
    for plan in ({"positive": "1"}, {"one_vs_rest": True}):
        for (name, _), metric in run(rows, **plan)[0].items():
            info = definition(name, {info.name: info for info in scorer().metrics()})
            assert (info.name, info.unit, info.direction) == (name, metric.unit, metric.direction)
            assert "Mean of the score" not in info.definition
