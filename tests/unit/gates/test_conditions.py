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
