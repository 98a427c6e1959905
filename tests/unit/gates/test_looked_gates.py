"""Gates that are looked at while the answers come."""

from __future__ import annotations

import numpy as np
import pytest

from evalrun.gates.conditions import Gate, GateResult, Verdict, parse_gate
from evalrun.gates.early import LookedGate


def _gate(text: str) -> Gate:
    gate = parse_gate(text)
    assert isinstance(gate, Gate)
    return gate


def _paired(margin: float = 0.0) -> LookedGate:
    return LookedGate(_gate(f"exact_match no worse than baseline by {margin}"), "r", 0.05, True, margin)


def _told(gate: LookedGate, now: np.ndarray, before: np.ndarray | None, block: int) -> LookedGate:
    for at in range(0, len(now), block):
        gate.tell(now[at : at + block], None if before is None else before[at : at + block])
        if gate.verdict:
            break
    return gate


def _pairs(seed: int, rows: int, wins: float, losses: float) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(seed).random(rows)
    now = np.where(drawn < wins, 1.0, np.where(drawn < wins + losses, 0.0, 1.0))
    before = np.where(drawn < wins, 0.0, 1.0)
    return now, before


def test_ten_points_worse_at_thirty_percent_discordance_takes_about_221_rows() -> None:
    after = []
    for seed in range(120):
        gate = _told(_paired(), *_pairs(seed, 1000, 0.1, 0.2), 1 if seed < 20 else 10)
        assert gate.verdict == "fail"
        after.append(gate.after)
    assert 191 <= np.median(after) <= 251


def test_equal_prompts_fail_in_no_more_than_five_percent_of_sweeps() -> None:
    failed = sum(_told(_paired(), *_pairs(seed, 600, 0.1, 0.1), 25).verdict != "" for seed in range(200))
    assert failed <= 10


def test_the_same_answers_pass_a_margin() -> None:
    same = np.ones(1000)
    assert _told(_paired(0.02), same, same, 25).verdict == "pass"


@pytest.mark.parametrize(
    ("above", "rate", "said"), [(True, 0.9, "pass"), (True, 0.4, "fail"), (False, 0.4, "pass")]
)
def test_a_value_is_decided_when_it_is_shown_to_be_on_one_side(above: bool, rate: float, said: str) -> None:
    gate = LookedGate(_gate("exact_match >= 0.7"), "r", 0.05, False, 0.7, above)
    now = (np.random.default_rng(1).random(1000) < rate).astype(float)
    assert _told(gate, now, None, 25).verdict == said
    assert gate.after < 200


def test_rows_without_a_score_decide_nothing() -> None:
    now, before = _pairs(1, 600, 0.0, 0.5)
    now[::10] = np.nan
    assert _told(_paired(), now, before, 25).verdict == ""


def test_a_result_says_rows_interval_and_p_that_hold_at_any_time() -> None:
    gate = _told(_paired(0.02), *_pairs(3, 1000, 0.05, 0.25), 25)
    plain = GateResult(gate.gate.text, "r", Verdict.PASS, None)
    result = gate.result(plain, 0.0, 1.0, True, 1000)
    assert result.verdict is Verdict.FAIL and "however often one looks" in result.reason
    assert result.ci_low is not None and result.ci_high is not None and result.difference is not None
    assert result.ci_low < result.difference < result.ci_high < 0.02
    lower = gate.result(plain, 0.0, 10.0, False, 1000)
    assert lower.difference == pytest.approx(-10 * result.difference)
