"""What parsers and scorers of somebody's own give, in whatever class of number, is taken as a number."""

from typing import Any

import numpy as np
import pytest

from evalrun.scoring.base import MetricInfo, Scorer, ScorerOptions, as_text, plain_value
from evalrun.scoring.pipeline import Pipeline
from evalrun.types import Score


def scored(parsers: list[Any], scorers: list[Any], output: str = "1") -> Any:
    return Pipeline(parsers, scorers).evaluate(output, "1", {})


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (np.bool_(True), 1.0),
        (np.float32(0.5), 0.5),
        (np.float64(0.25), 0.25),
        (np.int64(3), 3.0),
        (np.array(0.75), 0.75),
        (True, 1.0),
        (np.float64("nan"), None),
        ((np.bool_(False), "because"), 0.0),
        ((np.float32(0.5), np.str_("because")), 0.5),
    ],
)
def test_a_function_may_return_numbers_of_numpy(given: Any, value: float | None) -> None:
    def mine(answer: str) -> Any:
        return given

    result = scored([], [mine])
    assert result.scores["mine"] == value
    assert type(result.scores["mine"]) in (float, type(None))
    assert "broke" not in result.reasons["mine"]
    assert isinstance(result.reasons["mine"], str)


def test_a_class_may_give_scores_and_parts_of_numpy() -> None:
    class Mine(Scorer[ScorerOptions]):
        parts = ("a", "b")
        defined = (MetricInfo("", "score", "higher", "Mean."),)

        def score(self, sample: Any) -> Score:
            return Score(np.bool_(True), "x", {"a": np.float32(0.5), "b": np.float64("inf")})  # type: ignore[arg-type]

    result = scored([], [Mine(ScorerOptions(name="mine"))])
    assert result.scores == {"mine": 1.0, "mine.a": 0.5, "mine.b": None}
    assert {type(value) for value in result.scores.values()} == {float, type(None)}


def test_what_is_no_number_is_no_score_and_no_crash() -> None:
    def mine(answer: str) -> Any:
        return np.array([1.0, 2.0])

    result = scored([], [mine])
    assert result.scores["mine"] is None
    assert "the scorer broke" in result.reasons["mine"]


@pytest.mark.parametrize(
    ("made", "answer"),
    [
        (np.int64(1), 1),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.array([1, 2]), [1, 2]),
        ({"a": np.int64(1)}, {"a": 1}),
        ((1, np.int64(2)), [1, 2]),
        (np.str_("x"), "x"),
    ],
)
def test_a_parser_may_return_values_of_numpy(made: Any, answer: Any) -> None:
    def parse(value: str) -> Any:
        return made

    result = scored([parse], [lambda answer: 1])
    assert result.answer == answer
    assert type(result.answer) is type(answer)
    assert as_text(made) == as_text(answer)
    assert plain_value(made) == answer
