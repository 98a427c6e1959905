import pytest

from evalrun.errors import Problem
from evalrun.gates.conditions import Gate, Verdict, check_gate, parse_gate

METRICS = [
    {"name": "exact_match", "slice": {"dialect": "x"}, "value": 0.1, "note": ""},
    {"name": "exact_match", "slice": {}, "value": 0.5, "note": ""},
    {"name": "performance.ttft_s.p99", "slice": {}, "value": None, "note": "needs 662 samples"},
]


def _gate(text: str) -> Gate:
    gate = parse_gate(text)
    assert isinstance(gate, Gate)
    return gate


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("exact_match >= 0.5", Verdict.PASS),
        ("exact_match > 0.5", Verdict.FAIL),
        ("exact_match <= 50%", Verdict.PASS),
        ("exact_match<.5", Verdict.FAIL),
    ],
)
def test_compares_the_metric_over_all_samples(text: str, verdict: Verdict) -> None:
    result = check_gate(_gate(text), "run", METRICS)
    assert (result.verdict, result.value) == (verdict, 0.5)


def test_a_missing_metric_never_passes() -> None:
    result = check_gate(_gate("rouge <= 1"), "run", METRICS)
    assert result.verdict is Verdict.FAIL
    assert "no metric 'rouge'" in result.reason


def test_a_metric_without_a_value_never_passes_and_says_why() -> None:
    result = check_gate(_gate("performance.ttft_s.p99 <= 100"), "run", METRICS)
    assert (result.verdict, result.reason) == (Verdict.FAIL, "needs 662 samples")


@pytest.mark.parametrize("text", ["exact_match", "exact_match = 0.5", ">= 0.5", "exact_match >= high", ""])
def test_what_is_no_condition_is_a_problem(text: str) -> None:
    assert isinstance(parse_gate(text), Problem)


@pytest.mark.parametrize(
    ("value", "text", "holds"),
    [
        ((0.7 + 0.7 + 0.7) / 3, "s >= 0.7", True),
        (0.1 + 0.2, "s <= 0.3", True),
        (0.1 + 0.2, "s > 0.3", False),
        (1 - 0.9, "s < 0.1", False),
        (0.1 + 0.2 - 0.3, "s <= 0", True),
        (0.6 + 0.3 + 0.1, "s >= 100%", True),
        (0.6999, "s >= 0.7", False),
        (10_000_000_001.0, "s <= 10000000000", False),  # whole numbers are exact
    ],
)
def test_a_gate_is_blind_to_rounding_and_to_nothing_else(value: float, text: str, holds: bool) -> None:
    metrics = [{"name": "s", "slice": {}, "value": value, "note": ""}]
    assert check_gate(_gate(text), "run", metrics).verdict == (Verdict.PASS if holds else Verdict.FAIL)


def test_a_limit_made_from_the_baseline_is_blind_to_rounding_too() -> None:
    now, before = ([{"name": "s", "slice": {}, "value": value}] for value in (0.8 - 2e-16, 0.82))
    assert check_gate(_gate("s >= baseline - 0.02"), "run", now, before).verdict is Verdict.PASS
    assert check_gate(_gate("s > baseline - 0.02"), "run", now, before).verdict is Verdict.FAIL
