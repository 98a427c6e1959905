"""Scores that are formulas over others, through a run: their figures, reasons and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.test_sweep import metric
from tests.program import evalrun
from tests.recorded import document_of, recorded_suite, yes_no

import evalrun as evalrun_package

SCORERS = ["exact_match", {"includes": {"values": ["e"], "of": "output"}}]


def suite_of(folder: Path, **derive: str) -> Path:
    return recorded_suite(
        folder, yes_no([at != 3 for at in range(12)]), ["m"], scorers=SCORERS, derive=derive
    )


def test_figures_lie_within_what_the_formula_can_give(project: Path) -> None:
    """Of twelve answers eleven are right: 11/24 is so near to 1/2 that an interval would reach beyond it."""
    suite = suite_of(
        project, half="0.5 * exact_match", thrice="half + half + half", gap="exact_match - half - 0.5"
    )
    (run,) = document_of(suite, "--no-report")["runs"]
    half, thrice, gap = (metric(run, name) for name in ("half", "thrice", "gap"))
    assert [each["value"] for each in (half, thrice, gap)] == pytest.approx([11 / 24, 11 / 8, 11 / 24 - 0.5])
    assert all(
        (each["unit"], each["direction"], each["n"]) == ("score", "higher", 12) for each in (half, gap)
    )
    assert half["ci_low"] < half["value"] < half["ci_high"] <= 0.5
    assert thrice["value"] < thrice["ci_high"] <= 1.5
    assert gap["value"] < gap["ci_high"] <= 0.5


def test_the_reason_has_the_scores_it_was_made_of(project: Path) -> None:
    sweep = evalrun_package.run(suite_of(project, both="min(exact_match, includes)"), write_report=False)
    samples = sweep.runs[0].samples().set_index("sample_id")
    assert samples["score.both"]["s0003"] == 0
    assert samples["reason.both"]["s0003"] == "min(exact_match, includes) with exact_match = 0, includes = 0"
    assert samples["score.both"]["s0004"] == 1


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        ("exact_mach + 1", ["derive.b: there is no score 'exact_mach'", "Did you mean 'exact_match'?"]),
        ("bleu", ["derive.b: there is no score 'bleu'", "There are: exact_match, includes."]),
        ("exact_match +", ["suite.yaml:1: 'exact_match +' is not a formula", "Write it like"]),
        ("open('x')", ["suite.yaml:1: there is no function 'open'", "There are: abs, max, min."]),
    ],
)
def test_what_cannot_be_computed_is_refused_with_its_place(
    project: Path, formula: str, said: list[str]
) -> None:
    refused = evalrun(suite_of(project, b=formula), "--no-report")
    assert refused.returncode == 2
    assert all(words in refused.stderr for words in said), refused.stderr
    assert not list(project.glob(".evalrun/sweeps/*"))


def test_all_that_is_wrong_is_said_at_once(project: Path) -> None:
    refused = evalrun(suite_of(project, a="blue", b="green + red"), "--no-report")
    assert [name for name in ("blue", "green", "red") if f"no score '{name}'" not in refused.stderr] == []


def test_a_figure_of_all_samples_is_no_score_of_one(project: Path) -> None:
    scorers = [{"classification": {"labels": ["yes", "no"]}}]
    derive = {"a": "classification.f1_macro"}
    suite = recorded_suite(project, yes_no([True, False]), ["m"], scorers=scorers, derive=derive)
    refused = evalrun(suite, "--no-report")
    assert refused.returncode == 2
    assert "derive.a: 'classification.f1_macro' is a figure of all samples together" in refused.stderr
