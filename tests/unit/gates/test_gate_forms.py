"""How gates are written, and what is refused."""

import pytest

from evalrun.errors import Problem
from evalrun.gates.check import blocks
from evalrun.gates.conditions import Gate, GateResult, Verdict, check_gate, parse_gate


def read(text: str) -> Gate:
    gate = parse_gate(text)
    assert isinstance(gate, Gate), gate
    return gate


def metric(value: float | None, **changes: object) -> dict[str, object]:
    return {"name": "exact_match", "slice": {}, "value": value, "n": 100, "note": "", **changes}


def test_reads_slices_scopes_and_names() -> None:
    gate = read("exact_match[dialect=aave, age=old] >= 0.5 for model=served and prompt=direct")
    assert gate.slice == {"dialect": "aave", "age": "old"}
    assert gate.scope == {"model": "served", "prompt": "direct"}
    assert gate.covers({"model": "served", "prompt": "direct", "dataset": "d", "run": "r"})
    assert not gate.covers({"model": "other", "prompt": "direct", "dataset": "d", "run": "r"})
    assert read('"my score.x" > 1').metric == "my score.x"


@pytest.mark.parametrize(
    ("text", "baseline", "limit"),
    [
        ("exact_match >= baseline", 0.8, 0.8),
        ("exact_match >= baseline - 0.02", 0.8, 0.78),
        ("exact_match >= baseline + 0.1", 0.8, 0.9),
        ("performance.e2e_s.p95 <= baseline * 1.2", 2.0, 2.4),
    ],
)
def test_relative_bounds(text: str, baseline: float, limit: float) -> None:
    gate = read(text)
    assert (gate.kind, gate.needs_baseline) == ("relative", True)
    assert gate.limit(baseline) == pytest.approx(limit)


def test_no_worse_than() -> None:
    gate = read("exact_match no worse than baseline by 0.02 for dataset=d")
    assert (gate.kind, gate.bound, gate.strict, gate.scope) == ("no_worse", 0.02, False, {"dataset": "d"})
    assert read("exact_match strictly no worse than baseline by .02").strict
    assert read("exact_match no worse than baseline").bound == 0


@pytest.mark.parametrize(
    "text",
    [
        "exact_match >= baseline - 2%",
        "exact_match >= baseline - -1",
        "exact_match >= base",
        "exact_match[dialect] >= 0.5",
        "exact_match >= 0.5 for modle=served",
        "exact_match >= 0.5 for served",
        "exact_match no worse than baseline by 2%",
        "exact_match no better than baseline",
        "exact_match >= 0.5; import os",
    ],
)
def test_other_forms_are_problems_that_show_how(text: str) -> None:
    problem = parse_gate(text)
    assert isinstance(problem, Problem)
    assert "exact_match >= 0.5" in problem.remedy


def test_slices_are_held_apart() -> None:
    metrics = [metric(0.9), metric(0.3, slice={"dialect": "aave"})]
    assert check_gate(read("exact_match >= 0.5"), "r", metrics).verdict is Verdict.PASS
    assert check_gate(read("exact_match[dialect=aave] >= 0.5"), "r", metrics).verdict is Verdict.FAIL
    missing = check_gate(read("exact_match[dialect=sae] >= 0.5"), "r", metrics)
    assert (missing.verdict, missing.value) == (Verdict.FAIL, None)
    assert "exact_match[dialect=sae]" in missing.reason


def test_relative_gates_compare_with_the_baselines_value() -> None:
    gate = read("exact_match >= baseline - 0.02")
    held = check_gate(gate, "r", [metric(0.79)], [metric(0.8)])
    assert (held.verdict, held.baseline, held.limit) == (Verdict.PASS, 0.8, pytest.approx(0.78))
    assert check_gate(gate, "r", [metric(0.77)], [metric(0.8)]).verdict is Verdict.FAIL


@pytest.mark.parametrize("baseline", [None, [], [metric(None, note="too few")], [metric(0.1, n=0)]])
def test_a_missing_baseline_never_passes(baseline: list[dict[str, object]] | None) -> None:
    held = check_gate(read("exact_match >= baseline - 1"), "r", [metric(0.9)], baseline)
    assert held.verdict is Verdict.FAIL
    assert "baseline" in held.reason


def test_no_samples_never_pass() -> None:
    held = check_gate(read("exact_match >= 0"), "r", [metric(0.9, n=0)])
    assert (held.verdict, held.reason) == (Verdict.FAIL, "no samples")


def test_undecided_gates_stop_the_way_only_when_asked() -> None:
    undecided = [GateResult("g", "r", Verdict.INCONCLUSIVE, 0.5), GateResult("g", "r", Verdict.PASS, 0.5)]
    assert not blocks(undecided)
    assert blocks(undecided, "fail")
    assert blocks([GateResult("g", "r", Verdict.FAIL, 0.5)])
