"""Scores by group: fairlearn's traps closed, small and missing groups kept apart, gaps beside chance."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score
from tests.tables import sample_table

from evalrun import registry
from evalrun.analysis.fairness import fairness_metrics
from evalrun.analysis.fairness_groups import MISSING, FairnessPlan
from evalrun.analysis.permutation import Part, by_chance, chance_of_largest, corrected_together
from evalrun.results import ByChance, Gap
from evalrun.scoring.base import Scorer
from evalrun.types import MetricValue, SampleRecord, Status


def exact_match() -> Scorer:
    kind = registry.load("scorer", "exact_match")
    made: Scorer = kind(kind.Options())
    return made


def record(number: int, group: str | None, score: float | None, **more: Any) -> SampleRecord:
    base: dict[str, Any] = {
        "sample_id": f"s{number:05d}",
        "repeat": 0,
        "position": number,
        "vars": {},
        "target": "yes",
        "answer": "yes" if score else "no",
        "status": Status.FAILED if score is None else Status.SCORED,
        "scores": {} if score is None else {"exact_match": score},
        "sensitive": {"dialect": group},
    }
    return SampleRecord(**{**base, **more})


def compare(
    rows: list[SampleRecord],
    min_group: int = 30,
    seed: int = 0,
    by: tuple[str, ...] = ("dialect",),
    least_shown: int = 0,
) -> tuple[dict[tuple[str, str], MetricValue], dict[str, Any]]:
    found, details = fairness_metrics(
        sample_table(rows),
        [exact_match()],
        FairnessPlan(by, min_group, seed=seed, least_shown=least_shown),
    )
    return {(metric.name, metric.slice.get("dialect", "")): metric for metric in found}, {
        name: asdict(column) for name, column in details.items()
    }


def rows_of(groups: dict[str | None, tuple[int, int]], start: int = 0) -> list[SampleRecord]:
    """Groups as {label: (right, wrong)}."""
    rows: list[SampleRecord] = []
    for label, (right, wrong) in groups.items():
        rows += [record(start + len(rows) + n, label, float(n < right)) for n in range(right + wrong)]
    return rows


GAP = ("fairness.dialect.exact_match.gap", "")


def test_group_values_are_those_of_fairlearn_on_labels_of_text() -> None:
    rows = rows_of({"aave": (30, 20), "sae": (45, 5), "other": (35, 15)})
    found, details = compare(rows)
    frame = MetricFrame(
        metrics=accuracy_score,
        y_true=[row.target for row in rows],
        y_pred=[row.answer for row in rows],
        sensitive_features=[row.sensitive["dialect"] for row in rows],
    )
    for label, value in frame.by_group.items():
        metric = found["exact_match", str(label)]
        assert metric.value == pytest.approx(value)
        assert (metric.n, metric.method) == (50, "wilson")
    gap = found[GAP]
    assert gap.value == pytest.approx(frame.difference(method="between_groups")) == pytest.approx(0.3)
    assert gap.n == 150
    assert gap.direction == "lower"
    assert "best sae 0.9, worst aave 0.6" in gap.note
    detail = details["dialect"]["metrics"]["exact_match"]
    assert detail["gap"]["p"] < 0.01
    assert 0.1 < detail["gap"]["chance_gap_p95"] < 0.3
    assert [group["group"] for group in detail["groups"]] == ["aave", "other", "sae"]


def test_a_group_without_data_has_no_value_and_is_neither_0_nor_1() -> None:
    rows = rows_of({"aave": (20, 20), "sae": (30, 10)}) + [record(500 + n, "ghost", None) for n in range(40)]
    found, _ = compare(rows)
    ghost = found["exact_match", "ghost"]
    assert (ghost.value, ghost.n, ghost.ci_low) == (None, 0, None)
    assert found[GAP].value == pytest.approx(0.25)
    assert found["error_rate", "ghost"].value == 1.0
    assert found["fairness.dialect.error_rate.gap", ""].value == 1.0


def test_small_groups_are_shown_and_not_compared() -> None:
    found, details = compare(rows_of({"aave": (20, 20), "sae": (30, 10), "few": (0, 5)}))
    assert found["exact_match", "few"].value == 0.0
    assert found["exact_match", "few"].n == 5
    assert "too small: fewer than 30" in found["exact_match", "few"].note
    assert found[GAP].value == pytest.approx(0.25)
    compared = {g["group"]: g["compared"] for g in details["dialect"]["metrics"]["exact_match"]["groups"]}
    assert compared == {"aave": True, "few": False, "sae": True}
    all_compared, _ = compare(rows_of({"aave": (20, 20), "sae": (30, 10), "few": (0, 5)}), min_group=1)
    assert all_compared[GAP].value == pytest.approx(0.75)


def test_groups_below_a_size_may_be_left_out() -> None:
    rows = rows_of({"aave": (20, 20), "sae": (30, 10), "ten": (5, 5), "few": (0, 9), None: (2, 3)})
    found, details = compare(rows, least_shown=10)
    assert {group for name, group in found if name == "exact_match"} == {"aave", "sae", "ten"}
    measure = details["dialect"]["metrics"]["exact_match"]
    assert [group["group"] for group in measure["groups"]] == ["aave", "sae", "ten"]
    assert measure["withheld"] == 2
    assert "'few'" not in repr(details) and found[GAP].value == pytest.approx(0.25)


def test_samples_without_a_group_are_a_row_of_their_own() -> None:
    found, _ = compare(rows_of({"aave": (20, 20), "sae": (30, 10), None: (0, 60)}))
    assert found["exact_match", MISSING].value == 0.0
    assert found["exact_match", MISSING].n == 60
    assert found[GAP].value == pytest.approx(0.25)


def test_a_gap_needs_two_groups() -> None:
    found, _ = compare(rows_of({"aave": (20, 20), "few": (3, 3)}))
    assert found[GAP].value is None
    assert "two groups" in found[GAP].note
    failed, _ = compare([record(n, "ab"[n % 2], None) for n in range(80)])
    assert failed[GAP].value is None
    assert "there is none" in failed[GAP].note


def test_unparsed_and_refused_rates_are_compared_too() -> None:
    rows = [record(n, "a", 0.0, status=Status.REFUSED if n < 20 else Status.UNPARSED) for n in range(40)]
    rows += [record(100 + n, "b", 1.0) for n in range(40)]
    found, _ = compare(rows)
    assert found["refused_rate", "a"].value == 0.5
    assert found["fairness.dialect.refused_rate.gap", ""].value == 0.5
    assert "best b 0, worst a 0.5" in found["fairness.dialect.refused_rate.gap", ""].note
    assert found["unparsed_rate", "b"].value == 0.0


def test_a_column_that_is_not_there_is_said() -> None:
    found, details = compare(rows_of({"a": (40, 0)}), by=("gender",))
    assert found == {}
    assert "no column 'gender'" in details["gender"]["note"]


def test_repeats_and_clusters_are_units_here_too() -> None:
    rows = [
        record(
            n, "a" if n < 40 else "b", float((n + k) % 2), sample_id=f"s{n}", repeat=k, cluster=f"c{n // 2}"
        )
        for n in range(80)
        for k in range(2)
    ]
    found, details = compare(rows)
    assert found["exact_match", "a"].n == 40
    assert found["exact_match", "a"].value == 0.5
    assert details["dialect"]["metrics"]["exact_match"]["gap"]["permutations"] == 0


def test_the_seed_and_not_the_order_decides() -> None:
    rows = rows_of({"aave": (25, 15), "sae": (30, 10)})
    one, other = compare(rows, seed=1)[1], compare(rows[::-1], seed=1)[1]
    assert one == other


def chance_of_gap(values: np.ndarray, groups: np.ndarray, clusters: np.ndarray | None, seed: int) -> ByChance:
    return chance_of_largest([Part(values, groups, clusters)], seed)


def rejections(draw: Any, clusters: np.ndarray | None, groups: np.ndarray, trials: int = 100) -> float:
    return float(
        np.mean([chance_of_gap(draw(), groups, clusters, seed=trial).p <= 0.05 for trial in range(trials)])
    )


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_without_a_difference_one_in_twenty_is_called_one(kind: str) -> None:
    rng = np.random.default_rng(11)
    groups = np.repeat(np.arange(4), 30)

    def draw() -> np.ndarray:
        return (rng.random(120) < 0.6).astype(float) if kind == "binary" else rng.random(120)

    assert 0.01 <= rejections(draw, None, groups) <= 0.09


def test_clusters_within_a_group_do_not_fake_a_difference() -> None:
    rng = np.random.default_rng(12)
    clusters = np.repeat(np.arange(24), 10)
    groups = clusters % 2

    def draw() -> np.ndarray:
        return (rng.random(240) < rng.beta(1, 1, 24)[clusters]).astype(float)

    assert rejections(draw, clusters, groups) <= 0.1
    assert rejections(draw, None, groups) > 0.2


def test_pairs_that_differ_only_in_the_group_show_a_small_difference() -> None:
    rng = np.random.default_rng(13)
    pairs = np.repeat(np.arange(60), 2)
    groups = np.tile([0, 1], 60)
    easy = rng.random(60) < 0.5
    values = easy[pairs].astype(float)
    flipped = np.flatnonzero(easy)[:9] * 2 + 1
    values[flipped] = 0.0
    within = chance_of_gap(values, groups, pairs, seed=0)
    assert within.how == "labels swapped between the groups of a cluster"
    assert within.p < 0.02
    assert chance_of_gap(values, groups, None, seed=0).p > 0.05


def test_the_chance_gap_is_that_of_theory() -> None:
    values = np.tile([0.0, 1.0], 100)
    chance = chance_of_gap(values, np.repeat([0, 1], 100), None, seed=0)
    assert chance.chance_gap_p95 == pytest.approx(0.14, abs=0.03)  # 1.96 * sqrt(2 * 0.25 / 100)
    assert chance.permutations == 1000


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_swapping_the_labels_of_whole_clusters_is_counted_out_by_hand() -> None:
    """Six templates with two rows a group. Of the 64 ways to swap the two groups of a template, 4 have as
    large a difference: p is 1/16 and not the 1/1000 that shuffled rows give."""
    shift = np.array([1.0, 1.0, 1.0, 1.0, 1.0, -0.2])
    clusters = np.repeat(np.arange(6), 4)
    groups = np.tile([0, 0, 1, 1], 6)
    values = np.where(groups == 1, shift[clusters], 0.0) + np.tile([0.0, 0.01], 12)
    totals = [abs(sum(signs * shift)) for signs in np.array(np.meshgrid(*[[1, -1]] * 6)).T.reshape(-1, 6)]
    exact = np.mean([total >= shift.sum() - 1e-9 for total in totals])
    assert exact == 4 / 64
    chance = chance_of_gap(values, groups, clusters, seed=0)
    assert chance.how == "labels swapped between the groups of a cluster"
    assert chance.p == pytest.approx(exact, abs=0.025)
    assert (chance_of_gap(values, groups, None, seed=0).p or 1) < 0.005


def test_a_small_group_that_spreads_widely_is_no_false_alarm() -> None:
    rng = rng_of(14)
    groups = np.repeat([0, 1], [30, 270])
    spread = np.where(groups == 0, 3.0, 1.0)
    plain = []

    def draw() -> np.ndarray:
        values = rng.normal(size=300) * spread
        shuffled = rng.permuted(np.tile(values, (200, 1)), axis=1)
        gaps = np.abs(shuffled[:, :30].mean(axis=1) - shuffled[:, 30:].mean(axis=1))
        plain.append((gaps >= abs(values[:30].mean() - values[30:].mean())).mean() <= 0.05)
        return np.asarray(values)

    assert rejections(draw, None, groups) <= 0.11
    assert np.mean(plain) > 0.2  # what shuffling without studentising says


def test_rows_of_one_cluster_and_group_keep_together() -> None:
    rng = rng_of(15)
    clusters, groups = np.repeat(np.arange(20), 10), np.tile(np.repeat([0, 1], 5), 20)

    def draw() -> np.ndarray:
        return np.asarray(rng.normal(size=(20, 2))[clusters, groups] + 0.5 * rng.normal(size=200))

    assert rejections(draw, clusters, groups) <= 0.11


def test_a_group_whose_values_are_all_equal_is_not_infinitely_far_away() -> None:
    values = np.concatenate([np.full(30, 0.9), rng_of(16).uniform(0.7, 1.0, 300)])
    groups = np.repeat([0, 1], [30, 300])
    chance = by_chance([Part(values, groups, None)], seed=0)
    assert np.isfinite(chance.t)
    assert np.isfinite(chance.result.chance_gap_p95 or np.inf)


def test_the_gaps_of_a_run_are_corrected_together() -> None:
    """Six columns of noise: one run in twenty shows any gap as wider than chance, not one in four."""
    rng = rng_of(17)
    corrected, alone = [], []
    for trial in range(60):
        chances = [
            by_chance([Part(rng.random(90), np.repeat([0, 1, 2], 30), None)], seed=7 * trial + column)
            for column in range(6)
        ]
        corrected.append(min(corrected_together(chances)) <= 0.05)
        alone.append(min(chance.result.p or 1 for chance in chances) <= 0.05)
    assert np.mean(corrected) <= 0.15
    assert np.mean(alone) > 0.15


def test_what_is_wider_than_chance_is_decided_by_the_corrected_p_and_the_page_says_so() -> None:
    rows = rows_of({"aave": (20, 20), "sae": (30, 10)})
    rows = [replace(row, sensitive={**row.sensitive, "topic": "xy"[at % 2]}) for at, row in enumerate(rows)]
    _, details = compare(rows, by=("dialect", "topic"))
    gap = details["dialect"]["metrics"]["exact_match"]["gap"]
    assert gap["p"] <= gap["p_corrected"] <= 1
    assert "corrected for all 2 gaps of this run (2 columns" in details["dialect"]["correction"]
    assert Gap(p=0.01, p_corrected=0.2).wider_than_chance is False
    assert Gap(p=0.01).wider_than_chance is True
