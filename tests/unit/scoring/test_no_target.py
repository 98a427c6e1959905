"""A row without a target is none of a scorer's: it has no score, leaves n, and is not lost."""

from __future__ import annotations

from typing import Any

import pytest

from evalrun.scoring.base import is_lost
from evalrun.scoring.pipeline import Pipeline, suite_scorers
from evalrun.suite.load import parse_suite

SCORERS = [
    "exact_match", "includes", "regex", "starts_with", "numeric", "math", "classification", "squad",
    "token_f1", "rouge", "bleu", "edit_distance",
]  # fmt: skip


def _pipeline(*scorers: Any) -> Pipeline:
    suite = parse_suite(
        {
            "name": "s",
            "models": [{"id": "m", "provider": "recorded", "column": "a"}],
            "prompts": [{"id": "p", "text": "x"}],
            "datasets": [{"id": "d", "rows": [{"a": "1"}]}],
            "scorers": list(scorers),
        }
    )
    return Pipeline((), suite_scorers(suite))


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_null_target_is_not_lost(scorer: str) -> None:
    scored = _pipeline(scorer).evaluate("5", None, {})
    assert scored.scores[scorer] is None
    assert not is_lost(scored.reasons[scorer])


@pytest.mark.parametrize("scorer", ["numeric", {"classification": {"labels": ["yes", "no"]}}])
def test_a_target_that_is_none_of_the_scorers_is_not_lost_either(scorer: Any) -> None:
    pipeline = _pipeline(scorer)
    scored = pipeline.evaluate("5", "five", {})
    name = pipeline.scorers[0].name
    assert scored.scores[name] is None
    assert not is_lost(scored.reasons[name])
