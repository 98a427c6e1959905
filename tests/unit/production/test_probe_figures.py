"""What turns come to: outages with bounds, availability of failures that come together, burn-rate alarms."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evalrun.analysis.sequential import BETS
from evalrun.errors import UserError
from evalrun.gates.alarms import Alarm, acknowledge, current, episodes, tell
from evalrun.gates.alerts import Alert, parse_alert
from evalrun.production.conditions import over_turns
from evalrun.production.records import History, Turn, append, append_turn, read
from evalrun.production.slo import (
    BURN_RULES,
    LEVEL,
    BurnRule,
    Counts,
    Rules,
    binomial_tail,
    burn_alarms,
    burns,
    level_of,
)
from evalrun.production.summary import available, buckets, outages, summarise
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

MONTH_S = 720 * 3600.0


def turn(at: float, ok: int = 1, requests: int = 1, **more: Any) -> Turn:
    """A turn of a probe that is taken every five minutes, 0.4 s after it was due."""
    state = "up" if ok == requests else "down" if 2 * ok < requests else "degraded"
    values = {"state": state, "good": ok, "every_s": 300.0, **more}
    return Turn("r", int(at // 300), at, at + 0.4, at + 1, requests=requests, ok=ok, **values)


def series(states: str, start: float = 0.0) -> list[Turn]:
    """Turns five minutes apart: `u`p or `d`own."""
    return [turn(start + 300 * at, int(state == "u")) for at, state in enumerate(states)]


def test_an_outage_has_two_bounds() -> None:
    """It began after the last good turn and before the first bad one."""
    (first,) = outages(series("uudddu"))
    assert (first.turns, first.over) == (3, True)
    assert (first.least_s, first.most_s) == (pytest.approx(600), pytest.approx(1200))
    (open_,) = outages(series("uud"))
    assert (open_.least_s, open_.most_s, open_.over) == (0.0, None, False)
    assert outages(series("uuuu")) == ()


def test_turns_that_nobody_knows_of_end_no_outage_and_begin_none() -> None:
    known = (*series("ud"), turn(600, 0, state="unknown"), turn(900, 0), turn(1200))
    told = summarise("p", History(known, begun=((4, 1200.0),)), Rules(None), 1210.0)
    assert [each.turns for each in told.runs[0].outages] == [2]
    assert told.runs[0].unknown == 1
    assert told.runs[0].availability.n == 4


def test_failures_that_come_together_widen_the_interval() -> None:
    apart, together = [1] * 2000, [1] * 2000
    for at in range(0, 2000, 100):
        apart[at] = 0
    together[1000:1020] = [0] * 20
    one, _ = available([turn(300.0 * at, ok) for at, ok in enumerate(apart)])
    other, effective = available([turn(300.0 * at, ok) for at, ok in enumerate(together)])
    assert one.value == other.value == 0.99
    assert one.low is not None
    assert other.low is not None
    assert other.low < one.low - 0.01
    assert effective is not None
    assert effective < 200


def test_the_interval_covers_availability_whose_failures_come_in_outages() -> None:
    """Days of turns whose outages begin by chance and last 30 minutes: 95 % intervals hold the truth."""
    rng = np.random.default_rng(3)
    hits, many = 0, 60
    for _ in range(many):
        down = np.zeros(1440, bool)
        for at in np.flatnonzero(rng.random(1440) < 0.006):
            down[at : at + 6] = True
        share, _ = available([turn(300.0 * at, int(not bad)) for at, bad in enumerate(down)])
        assert share.low is not None
        assert share.high is not None
        hits += share.low <= (1 - 0.006) ** 6 <= share.high
    assert hits / many >= 0.88


def test_nothing_failed_is_no_proof_that_nothing_fails() -> None:
    share, _ = available([turn(300.0 * at, 5, 5) for at in range(100)])
    assert share.value == 1
    assert share.low == pytest.approx(1 / (1 + 1.959964**2 / 100), abs=1e-6)  # Wilson for 100 of 100


def test_fast_burn_spends_two_per_cent_of_a_month() -> None:
    fast, burn, slow = BURN_RULES
    assert fast.budget(MONTH_S) == pytest.approx(0.02)
    assert burn.budget(MONTH_S) == pytest.approx(0.05)
    assert slow.budget(MONTH_S) == pytest.approx(0.1)


@given(st.integers(1, 400), st.integers(0, 400), st.floats(1e-6, 0.999))
def test_the_tail_of_a_binomial_is_that_of_scipy(n: int, least: int, p: float) -> None:
    least = min(least, n)
    exact = stats.binom.sf(least - 1, n, p)
    assert binomial_tail(n, least, p) == pytest.approx(exact, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("every_s", "objective"), [(120.0, 0.99), (300.0, 0.99), (300.0, 0.995), (600.0, 0.995), (300.0, 0.999)]
)
def test_an_outage_of_half_an_hour_opens_one_fast_burn_alarm_and_closes_it(
    tmp_path: Path, every_s: float, objective: float
) -> None:
    store, rules = Store(tmp_path), Rules(objective)
    turns: list[Turn] = []
    opened_at = 0.0
    for at in range(int(12 * 3600 / every_s)):
        now = at * every_s
        bad = 6 * 3600 <= now < 6.5 * 3600
        turns.append(dataclasses.replace(turn(now, int(not bad)), every_s=every_s))
        if now > 5 * 3600:
            on, _ = tell(store, "p", burn_alarms(History(tuple(turns)), rules, now), None, now)
            opened_at = opened_at or (now if on else 0.0)
    fast = [each for each in episodes(store, "p") if each.name == "SLO fast burn"]
    assert [each.state for each in fast] == ["closed"]
    assert fast[0].closed is not None
    assert 6 * 3600 < fast[0].opened <= 6.5 * 3600 < fast[0].closed < 7.5 * 3600


def _windows(values: Any, wide: int) -> Any:
    sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), 1)
    first = np.maximum(0, np.arange(1, values.shape[1] + 1) - wide)
    return sums[:, 1:] - sums[:, first]


@pytest.mark.parametrize(("objective", "rows"), [(0.995, 1), (0.99, 4)])
def test_a_deployment_that_just_keeps_its_promise_is_alarmed_about_in_five_months_of_a_hundred_at_most(
    objective: float, rows: int
) -> None:
    """The null simulation of all three rules at each of a month's turns, every ten minutes. Where chance is
    not asked, the same months are alarmed about nearly always."""
    rng = np.random.default_rng(5)
    months, turns, every_s = 100, 4320, 600.0
    bad = rng.binomial(rows, 1 - objective, (months, turns))
    alarmed, naive = np.zeros(months, bool), np.zeros(months, bool)
    for rule in BURN_RULES:
        long, short = (max(1, int(hours * 3600 / every_s)) for hours in (rule.long_h, rule.short_h))
        n = np.minimum(np.arange(1, turns + 1), long)
        enough = rule.factor * (1 - objective) * rows
        on = (_windows(bad, long) >= np.maximum(3, enough * n)) & (
            _windows(bad, short) >= enough * np.minimum(n, short)
        )
        naive |= on.any(1)
        hit = _windows((bad > 0).astype(int), long)
        whole = _windows((bad >= rows).astype(int), long)
        keys = np.stack([np.broadcast_to(n, on.shape)[on], hit[on], whole[on]])
        kinds, code = np.unique(keys, axis=1, return_inverse=True)
        rare = np.array([_is_rare(*map(int, kind), rows, objective, rule) for kind in kinds.T], bool)
        alarmed[np.nonzero(on)[0][rare[code.ravel()]]] = True
    assert alarmed.mean() <= LEVEL
    assert naive.mean() > 0.9


def _is_rare(n: int, hit: int, whole: int, rows: int, objective: float, rule: BurnRule) -> bool:
    """Whether so many turns with any bad request, and only such ones, are no chance."""
    bad = np.array([rows] * whole + [1] * (hit - whole) + [0] * (n - hit), np.float64)
    counts = Counts(np.zeros(n), np.full(n, float(rows)), bad)
    return counts.chance(objective) <= level_of(rule, MONTH_S, n)


def test_an_hour_in_which_all_is_bad_is_no_chance() -> None:
    counts = Counts.of([turn(300.0 * at, 0) for at in range(12)])
    on, said = burns(counts, BURN_RULES[0], Rules(0.995), 3300.0)
    assert on
    assert said == "12 of 12 requests bad in 1 h: 200 times the rate that lasts"
    assert counts.chance(0.995) == pytest.approx(2 * 0.005**12)


def test_a_probe_without_an_slo_tells_that_it_is_down_after_two_turns() -> None:
    one = burn_alarms(History(tuple(series("uud"))), Rules(None), 600.0)
    two = burn_alarms(History(tuple(series("uudd"))), Rules(None), 900.0)
    assert ([each.on for each in one], [each.on for each in two]) == ([False], [True])


def test_an_alarm_that_flickers_is_one_episode(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for at, on in enumerate([True, False, True, False, False, False, False, False, True]):
        tell(store, "p", [Alarm("slow", "r", on, "seen")], None, 300.0 * at)
    told = episodes(store, "p")
    assert [(each.state, each.opened, each.closed) for each in told] == [
        ("closed", 0.0, 1800.0), ("open", 2400.0, None),
    ]  # fmt: skip
    assert episodes(store, "another") == []


def test_an_open_alarm_is_acknowledged_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    tell(store, "p", [Alarm("slow", "r", True), Alarm("down", "r", True)], None, 0.0)
    acknowledge(store, "p", "slow")
    states = {name: each.state for (name, _), each in current(episodes(store, "p")).items()}
    assert states == {"slow": "acknowledged", "down": "open"}
    with pytest.raises(UserError, match="Did you mean 'down'") as caught:
        acknowledge(store, "p", "dwn")
    assert caught.value.exit_code == 2


def test_records_outlive_torn_and_damaged_lines(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    append(folder, "begin", {"turn": 1, "slot": 0.0})
    append_turn(folder, dataclasses.replace(turn(0.0), turn=1))
    with (tmp_path / "probe.jsonl").open("ab") as file:
        file.write(b'{"kind":"turn","ru')  # a kill tore it
    append(folder, "begin", {"turn": 2, "slot": 300.0})
    with (tmp_path / "probe.jsonl").open("ab") as file:
        file.write(b'{"kind":"turn","run":7,"crc32":"00000000"}\n')
    kept = read([folder])
    assert [each.slot for each in kept.turns] == [0.0]
    assert kept.begun == ((1, 0.0), (2, 300.0))
    assert kept.lines_lost == 2
    told = summarise("p", kept, Rules(None), 310.0)
    assert told.ended == 1
    assert not told.stale


@pytest.mark.parametrize(("now", "stale"), [(610.0, False), (890.0, False), (901.0, True), (-301.0, True)])
def test_a_probe_is_dead_after_two_periods_or_when_its_turns_lie_in_the_future(
    now: float, stale: bool
) -> None:
    told = summarise("p", History(tuple(series("uu")), begun=((1, 0.0), (2, 300.0))), Rules(None), now)
    assert told.stale is stale
    assert bool(told.why_stale) is stale


def test_nothing_recorded_is_a_dead_probe() -> None:
    assert summarise("p", History(), Rules(None), 0.0).why_stale == "no turn was ever taken"


def test_long_series_are_drawn_in_stretches_that_hide_no_outage() -> None:
    turns = series("u" * 3000 + "d" + "u" * 999)
    drawn = buckets(turns, most=100)
    assert len(drawn) <= 101
    assert sum(each.turns for each in drawn) == 4000
    assert [each.state for each in drawn].count("down") == 1


def test_a_month_s_tail_is_finite() -> None:
    assert math.isfinite(binomial_tail(43_200, 500, 0.005))


def _today(scores: list[list[float]], **more: Any) -> list[Turn]:
    return [
        turn(300.0 * at, len(of), len(of), scores=tuple(of), scorer="acc", **more)
        for at, of in enumerate(scores)
    ]


def _fires(text: str, turns: list[Turn]) -> bool:
    alert = parse_alert(text)
    assert isinstance(alert, Alert)
    alarm = over_turns(alert, turns)
    assert alarm is not None
    return alarm.on


def test_a_condition_at_its_very_bound_is_alarmed_about_in_one_month_of_twenty_at_most() -> None:
    """288 looks a day on five rows: the plain mean is below its bound on most days."""
    rng = np.random.default_rng(8)
    values = rng.binomial(5, 0.7, (600, 288)) / 5
    wealth = np.zeros((600, len(BETS)))
    fired = np.zeros(600, bool)
    for at in range(288):
        hits = 5 * values[:, at, None]
        wealth += hits * np.log1p((0.7 - 1) / 0.7 * BETS) + (5 - hits) * np.log1p(BETS)
        fired |= np.exp(wealth).mean(1) >= 30 / 0.05
    assert fired.mean() * 30 <= 0.1  # 0.05 and what chance adds to so few days
    assert (np.cumsum(values, 1) / np.arange(1, 289) < 0.7)[:, :20].any(1).mean() > 0.5
    # The alarm is that very bet.
    day = _today([[1.0] * round(5 * share) + [0.0] * round(5 - 5 * share) for share in values[0]])
    assert _fires("acc < 0.7", day) == bool(np.exp(wealth[0]).mean() >= 30 / 0.05)


def test_what_truly_falls_is_alarmed_about_soon() -> None:
    assert not _fires("acc < 0.5", _today([[1.0] * 5] * 288))
    assert not _fires("acc < 0.5", _today([[0.0] * 5]))
    assert _fires("acc < 0.5", _today([[0.0] * 5] * 3))
    slow = [turn(300.0 * at, 5, 5, e2e_s=(9.0,) * 5) for at in range(13)]
    assert _fires("performance.e2e_s.p95 > 5", slow)
    assert not _fires("performance.e2e_s.p95 > 10", slow)
    assert _fires("error_rate > 0.1", [turn(300.0 * at, 0, 5) for at in range(13)])
    assert not _fires("error_rate > 0.1", [turn(300.0 * at, 5, 5) for at in range(12)])


@pytest.mark.parametrize("text", ["cost.usd > 1", "performance.e2e_s.p95 < 1", "acc worse than last 5"])
def test_other_conditions_are_checked_on_the_day_s_sweep(text: str) -> None:
    alert = parse_alert(text)
    assert isinstance(alert, Alert)
    assert over_turns(alert, _today([[1.0]])) is None
