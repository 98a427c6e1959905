"""Samples without a target have no score, whatever became of their answer; and what a wrapper hands on."""

from __future__ import annotations

from typing import Any

import pytest

from evalrun import registry
from evalrun.scoring.base import Scorer, ScoringInput
from evalrun.scoring.functions import FunctionScorer
from evalrun.scoring.pipeline import Pipeline
from evalrun.suite.components import ScorerSpec
from evalrun.types import Status

OPTIONS: dict[str, dict[str, Any]] = {"classification": {"labels": ["a", "b"]}}
COMPARING = [
    "bleu",
    "cer",
    "chrf",
    "classification",
    "contains_all",
    "contains_any",
    "correlation",
    "edit_distance",
    "ends_with",
    "exact_match",
    "includes",
    "json_fields",
    "math",
    "numeric",
    "rouge",
    "squad",
    "starts_with",
    "ter",
    "token_f1",
    "tool_calls",
    "wer",
]


def built(entry: Any) -> Scorer:
    made: Scorer = ScorerSpec.model_validate(entry).build()
    return made


@pytest.mark.parametrize("name", COMPARING)
@pytest.mark.parametrize("answer", ["", "a", '{"a": 1}', None])
def test_nothing_is_said_of_a_sample_without_a_target(name: str, answer: str | None) -> None:
    kind = registry.load("scorer", name)
    made: Scorer = kind(kind.Options(**OPTIONS.get(name, {})))
    verdict = made.score(ScoringInput(answer, answer or "", None, Status.SCORED, {}))
    assert verdict.value is None
    for status in (Status.UNPARSED, Status.REFUSED):
        sample = ScoringInput(None, answer or "", None, status, {})
        assert made.unanswered(sample, "unparsed: x").value is None
        # With a target it is a wrong answer.
        wrong = made.unanswered(ScoringInput(None, "", "a", status, {}), "unparsed: x").value
        assert wrong is None or wrong in (0.0, 1.0, 100.0)


def test_given_texts_need_no_target() -> None:
    made = built({"includes": {"values": ["x"]}})
    assert made.unanswered(ScoringInput(None, "", None, Status.UNPARSED, {}), "unparsed").value == 0.0


@pytest.mark.parametrize("entry", [{"not": "exact_match"}, {"threshold": {"token_f1": {}, "at_least": 0.5}}])
def test_a_wrapped_scorer_keeps_its_silence(entry: Any) -> None:
    made = built(entry)
    assert made.score(ScoringInput("a", "a", None, Status.SCORED, {})).value is None
    assert made.unanswered(ScoringInput(None, "", None, Status.UNPARSED, {}), "unparsed").value is None
    assert made.unanswered(ScoringInput(None, "", "a", Status.UNPARSED, {}), "unparsed").value == 0.0


def test_the_parsers_of_a_wrapped_scorer_are_used() -> None:
    inner = {"exact_match": {"parse": [{"regex": "Label: (.*)"}]}}
    scores = Pipeline([], [built({"not": inner}), built(inner)]).evaluate("Label: a", "a", {}).scores
    assert scores == {"not_exact_match": 0.0, "exact_match": 1.0}


@pytest.mark.parametrize(
    "entry",
    [
        {"not": {"code": {"tests": "gone"}}},
        {"threshold": {"code": {"tests": "gone"}, "at_least": 1}},
        {"not": {"threshold": {"calibration": {"column": "gone"}, "at_most": 0.2}}},
    ],
)
def test_what_keeps_a_wrapped_scorer_from_scoring_is_found_beforehand(entry: Any) -> None:
    problems = built(entry).check(["here"], "dataset d")
    assert any("'gone'" in problem.what for problem in problems)


def test_a_wrapped_perplexity_reads_likelihoods() -> None:
    made = built({"threshold": {"perplexity": {}, "at_most": 30}})
    assert made.reads_likelihood


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_function_of_your_own_that_gives_no_number_gives_no_score(value: float) -> None:
    def odd(answer: Any) -> float:
        return value

    verdict = FunctionScorer(odd).score(ScoringInput("a", "a", None, Status.SCORED, {}))
    assert verdict.value is None
    assert "which is no score" in verdict.reason
