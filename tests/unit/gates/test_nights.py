"""Gates and alerts of a suite that runs every night: levels of a year, pooled baselines, drops that last."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.nights import PLAN, night

from evalrun.analysis.conclude import conclude_sweep
from evalrun.analysis.nights import cusum_limit, false_alarm_sentence, lasting_changes
from evalrun.errors import Problem
from evalrun.gates.alerts import Alert, AlertResult, check_alerts, parse_alert
from evalrun.gates.check import FAIL_ALPHA, check_sweep, fail_alpha
from evalrun.gates.conditions import Gate, GateResult, Verdict, check_gate, parse_gate
from evalrun.sweep_results import GateVerdict
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def gate_of(text: str) -> Gate:
    gate = parse_gate(text)
    assert isinstance(gate, Gate), gate
    return gate


def held(text: str, folder: SweepFolder, baseline: SweepFolder | None = None) -> GateResult:
    (result,) = check_sweep([gate_of(text)], folder, PLAN, baseline)
    return result


def scores(n: int, wrong: int, seed: int = 0) -> list[float]:
    order = set(random.Random(seed).sample(range(n), wrong))
    return [float(at not in order) for at in range(n)]


@pytest.mark.parametrize("gate", ["exact_match strictly no worse than baseline by 0.02",
                                  "exact_match strictly no worse than baseline",
                                  "exact_match no worse than baseline by 0.001",
                                  "exact_match strictly no worse than last 3 by 0.02"])  # fmt: skip
def test_the_very_same_answers_never_fail(store: Store, gate: str) -> None:
    """Of 150 pairs without a difference the interval is +-0.025, which no margin of 0.02 holds."""
    first, second = night(store, scores(150, 40)), night(store, scores(150, 40))
    result = held(gate, second, first)
    assert result.verdict is Verdict.PASS
    assert "answers are the same" in result.reason


def test_the_same_score_from_other_answers_is_no_sameness(store: Store) -> None:
    first, second = night(store, scores(150, 40)), night(store, scores(150, 40, seed=1))
    result = held("exact_match strictly no worse than baseline by 0.02", second, first)
    assert (result.verdict, result.difference) == (Verdict.FAIL, 0.0)


@pytest.mark.parametrize(
    ("gate", "value", "ends", "verdict", "said"),
    [
        ("s >= 0.7 confidently", 0.75, (0.71, 0.79), Verdict.PASS, "95 % interval 0.71 to 0.79"),
        ("s >= 0.7 confidently", 0.72, (0.66, 0.78), Verdict.INCONCLUSIVE, "reaches both sides"),
        ("s >= 0.7 confidently", 0.60, (0.55, 0.65), Verdict.FAIL, "95 % interval 0.55 to 0.65"),
        ("s < 0.7 confidently for model=m", 0.60, (0.55, 0.65), Verdict.PASS, "interval"),
        ("s >= 70% confidently", 0.72, (None, None), Verdict.INCONCLUSIVE, "no interval"),
        ("s >= 0.7", 0.72, (0.66, 0.78), Verdict.PASS, "by the value alone"),
        ("s >= 0.7", 0.69, (0.66, 0.78), Verdict.FAIL, "by the value alone"),
        ("s >= 0.7", 0.75, (0.71, 0.79), Verdict.PASS, ""),
    ],
)
def test_a_gate_may_go_by_the_interval_and_says_when_it_does_not(
    gate: str, value: float, ends: tuple[float | None, float | None], verdict: Verdict, said: str
) -> None:
    metric = {"name": "s", "slice": {}, "value": value, "n": 9, "ci_low": ends[0], "ci_high": ends[1]}
    result = check_gate(gate_of(gate), "run", [metric])
    assert result.verdict is verdict
    assert said in result.reason
    assert bool(said) == bool(result.reason)


def test_confidently_is_for_numbers() -> None:
    problem = parse_gate("s >= baseline - 0.1 confidently")
    assert isinstance(problem, Problem)
    assert "no worse than baseline" in problem.remedy


def test_the_level_of_a_check_spends_the_years_chance_evenly() -> None:
    def suite(**nightly: Any) -> dict[str, Any]:
        return {"suite": {"resolved": {"nightly": nightly}}}

    assert fail_alpha({"suite": {"resolved": {}}}, 20) == FAIL_ALPHA
    yearly = suite(false_alarms_a_year=0.05, nights=365)
    alpha = fail_alpha(yearly, 6)
    assert alpha / 2 * 6 * 365 == pytest.approx(0.05)
    assert fail_alpha(suite(false_alarms_a_year=0.5, nights=1), 1) == FAIL_ALPHA
    said = false_alarm_sentence([1 - alpha] * 6)
    assert "6 paired gate checks" in said
    assert "in at most 5 % of years" in said
    assert "at most 1.8 false alarms in a year" in false_alarm_sentence([0.99])
    assert false_alarm_sentence([]) == ""


def test_a_year_of_nights_where_nothing_changed_stays_within_its_chance() -> None:
    """A baseline of 300 shared by all nights, held at the level of the year and at 99 % each night."""
    from evalrun.analysis.paired import score_interval

    rng, years, nights = np.random.default_rng(3), 40, 365
    alpha = fail_alpha(
        {"suite": {"resolved": {"nightly": {"false_alarms_a_year": 0.1, "nights": nights}}}}, 1
    )
    failed = plain = 0
    for _ in range(years):
        chance = rng.beta(3, 1, 300)
        baseline = rng.random(300) < chance
        tonight = rng.random((nights, 300)) < chance
        lost, won = (baseline & ~tonight).sum(axis=1), (~baseline & tonight).sum(axis=1)
        seen = {(int(x), int(y)) for x, y in zip(lost, won, strict=True) if (x - y) / 300 > 0.02}
        failed += any(score_interval(x, y, 300, 1 - alpha)[1] < 0 for x, y in seen)
        plain += any(score_interval(x, y, 300, 0.99)[1] < 0 for x, y in seen)
    assert failed / years <= 0.2
    assert plain > failed


def test_the_suite_says_the_level_and_the_sweep_how_often_it_is_wrong(store: Store) -> None:
    nightly = {"resolved": {"nightly": {"false_alarms_a_year": 0.05, "nights": 365}}}
    first = night(store, scores(400, 100))
    second = night(store, scores(400, 120), suite=nightly)
    result = held("exact_match no worse than baseline by 0.02", second, first)
    assert result.level == pytest.approx(1 - 2 * 0.05 / 365)
    assert "it fails at 99.9726 %" in result.reason
    document = conclude_sweep(second, [{"gate": "g", "run": "m-p-d", "verdict": "fail", "level": 0.99}])
    assert "1 paired gate check" in str(document["results"]["false_alarms"])  # type: ignore[index,call-overload]
    assert GateVerdict("g", "r", "pass").level is None


def test_a_pooled_baseline_is_the_mean_of_the_nights_before(store: Store) -> None:
    for seed, wrong in enumerate((100, 110, 90, 104)):
        night(store, scores(400, wrong, seed=seed))
    tonight = night(store, scores(400, 180, seed=9))
    result = held("exact_match no worse than last 3 by 0.02", tonight)
    assert result.verdict is Verdict.FAIL
    assert result.baseline == pytest.approx(1 - (110 + 90 + 104) / 1200)
    assert result.difference == pytest.approx((110 + 90 + 104) / 1200 - 180 / 400)
    assert "against the mean of 3 sweeps before" in result.reason


def test_the_first_night_has_nothing_to_be_compared_with(store: Store) -> None:
    result = held("exact_match no worse than last 3 by 0.02", night(store, scores(100, 20)))
    assert result.verdict is Verdict.FAIL
    assert "no complete sweep before" in result.reason


# Drops that last


def alarms(values: list[float], limit: float) -> list[int]:
    return [change.at for change in lasting_changes(values, -1.0, limit)]


def test_a_year_without_a_change_has_a_false_alarm_in_one_of_twenty() -> None:
    rng, limit = np.random.default_rng(4), cusum_limit()
    years = [bool(alarms(rng.normal(0.7, 0.02, 120).tolist(), limit)) for _ in range(120)]
    assert np.mean(years) <= 0.06  # a third of a year
    assert cusum_limit(10) > limit > cusum_limit(1, 50)


def test_a_small_drop_that_lasts_is_found_and_dated() -> None:
    """Two standard deviations of a night, which a window of five nights forgets."""
    rng, limit, found = np.random.default_rng(5), cusum_limit(), []
    for _ in range(20):
        values = [*rng.normal(0.70, 0.02, 40), *rng.normal(0.66, 0.02, 20)]
        changes = [change for change in lasting_changes(values, -1.0, limit) if change.at >= 40]
        found += [(change.since, change.at) for change in changes[:1]]
    assert len(found) >= 18
    assert np.median([at for _, at in found]) <= 50
    assert abs(np.median([since for since, _ in found]) - 40) <= 3


def test_equal_nights_are_no_alarm_and_one_bad_night_is_none() -> None:
    limit = cusum_limit()
    assert alarms([0.7] * 100, limit) == []
    assert alarms([0.1 + 0.2, 0.3] * 50, limit) == []
    assert alarms([*([0.7] * 20), 0.2, *([0.7] * 20)], limit) == []
    assert alarms([*([0.7] * 20), *([0.6] * 5)], limit) == [22]


def check(store: Store, folder: SweepFolder, text: str) -> AlertResult:
    alert = parse_alert(text)
    assert isinstance(alert, Alert), alert
    (result,) = check_alerts([alert], folder, PLAN, store)
    return result


def test_an_alert_tells_of_a_drop_that_lasts_once(store: Store) -> None:
    rng = random.Random(6)
    for _ in range(12):
        folder = night(store, scores(40, rng.choice([9, 10, 11])))
        assert not check(store, folder, "exact_match lastingly worse").fired
    told = []
    for _ in range(6):
        folder = night(store, scores(40, rng.choice([15, 16])))
        result = check(store, folder, "exact_match lastingly worse")
        told.append(result.fired)
        if result.fired:
            assert "CUSUM" in result.reason
            assert (result.difference or 0) < -0.05
            assert not check(store, folder, "exact_match lastingly better").fired
    assert sum(told) == 1


def test_a_change_that_lasts_needs_nights_before(store: Store) -> None:
    result = check(store, night(store, scores(40, 9)), "exact_match lastingly worse for model=m")
    assert (result.fired, result.checked) == (False, False)
    assert isinstance(parse_alert("exact_match lastingly"), Problem)
