"""Parsers and scorers put together: the four endings, names, plain functions, speed."""

import re
import time
from collections.abc import Callable
from functools import partial

import pytest

from evalrun import registry
from evalrun.errors import UserError
from evalrun.scoring.base import MetricInfo, Scorer, ScorerOptions, ScoringInput, Unparsed
from evalrun.scoring.pipeline import Pipeline
from evalrun.types import Score, Status


def build(kind: str, name: str, /, **options: object) -> object:
    made = registry.load(kind, name)  # type: ignore[arg-type]
    return made(made.Options(**options))


class Length(Scorer):
    """Not about being right: has no value where there is no answer."""

    Options = ScorerOptions
    registered = "length"
    correctness = False
    parts = ("words",)

    def score(self, sample: ScoringInput) -> Score:
        text = str(sample.answer)
        return Score(float(len(text)), "counted", {"words": float(len(text.split()))})

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        return (MetricInfo(name, "count", "none", "Characters."),)


def test_parsers_chain_and_scores_follow() -> None:
    pipeline = Pipeline(
        [
            build("parser", "regex", pattern=r"Label: (.*)"),
            build("parser", "choice", labels=["bug", "billing"]),
        ],
        [build("scorer", "exact_match"), build("scorer", "includes")],
    )
    scored = pipeline.evaluate("Label: a BUG", "bug", {})
    assert scored.status is Status.SCORED
    assert scored.answer == "bug"
    assert scored.scores == {"exact_match": 1.0, "includes": 1.0}
    assert set(scored.reasons) == {"exact_match", "includes"}
    assert scored.error is None


def test_without_parsers_the_answer_is_the_stripped_output() -> None:
    assert Pipeline([], [build("scorer", "exact_match")]).evaluate(" bug\n", "bug", {}).answer == "bug"


def test_unparsed_and_refused_score_zero_only_where_being_right_is_judged() -> None:
    pipeline = Pipeline(
        [build("parser", "last_number")], [build("scorer", "numeric"), Length(ScorerOptions())]
    )
    unparsed = pipeline.evaluate("no idea", "7", {})
    assert unparsed.status is Status.UNPARSED
    assert unparsed.error == "there is no number in the output"
    assert unparsed.scores == {"numeric": 0.0, "length": None, "length.words": None}
    assert unparsed.reasons["numeric"] == "unparsed: there is no number in the output"
    refused = pipeline.evaluate("I cannot help", "7", {}, True)
    assert refused.status is Status.REFUSED
    assert refused.answer is None
    assert refused.scores == {"numeric": 0.0, "length": None, "length.words": None}
    scored = pipeline.evaluate("7", "7", {})
    assert scored.scores == {"numeric": 1.0, "length": 1.0, "length.words": 1.0}


def test_a_parser_that_needs_the_row_gets_it() -> None:
    pipeline = Pipeline(
        [build("parser", "choice", letters=True, option_columns=["a", "b"])], [build("scorer", "exact_match")]
    )
    assert pipeline.evaluate("red", "B", {"a": "blue", "b": "red"}).scores == {"exact_match": 1.0}


def test_two_scorers_of_one_name_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(UserError, match="two scorers are named 'includes'"):
        Pipeline([], [build("scorer", "includes"), build("scorer", "includes")])
    two = Pipeline(
        [], [build("scorer", "includes"), build("scorer", "includes", name="polite", values="please")]
    )
    assert two.evaluate("please", "x", {}).scores == {"includes": 0.0, "polite": 1.0}


def halve(value: object, by: int = 2) -> float:
    return float(str(value)) / by


def no_parse(value: object) -> object:
    raise Unparsed("never")


def close(answer: float, target: str) -> tuple[bool, str]:
    return abs(answer - float(target)) < 1, "near enough?"


def unsure(row: dict[str, object]) -> None:
    return None


def test_plain_functions_are_parsers_and_scorers() -> None:
    pipeline = Pipeline([partial(halve, by=4)], [close, unsure])
    scored = pipeline.evaluate("12", "3", {})
    assert scored.scores == {"close": 1.0, "unsure": None}
    assert scored.reasons["close"] == "near enough?"
    assert pipeline.evaluate("twelve", "3", {}).status is Status.UNPARSED
    assert Pipeline([no_parse], [close]).evaluate("12", "3", {}).error == "never"


def test_a_scorer_function_with_an_unknown_argument_is_refused() -> None:
    with pytest.raises(UserError, match="'question'"):
        Pipeline([], [lambda question: 1.0])


def test_a_scorer_may_not_take_the_name_of_another_metric() -> None:
    def error_rate(answer: object) -> float:
        return 0.0

    with pytest.raises(UserError, match="'error_rate' is a metric of evalrun's own"):
        Pipeline([], [error_rate])


def test_broken_extensions_lose_no_sample() -> None:
    def breaks(answer: object) -> float:
        raise RuntimeError("no table")

    scored = Pipeline([], [breaks, build("scorer", "exact_match")]).evaluate("a", "a", {})
    assert scored.scores == {"breaks": None, "exact_match": 1.0}
    assert "no table" in scored.reasons["breaks"]
    failed = Pipeline([lambda value: {}["x"]], [build("scorer", "exact_match")]).evaluate("a", "a", {})
    assert failed.status is Status.FAILED
    assert failed.error is not None
    assert failed.error.startswith("application: ")
    assert failed.scores == {}


def test_one_evaluation_costs_little_more_than_its_parts() -> None:
    """Measured against a bare search and comparison, since machines differ: nine times on an idle one."""
    pipeline = Pipeline([build("parser", "regex", pattern=r"Label: (\w+)")], [build("scorer", "exact_match")])
    pattern = re.compile(r"Label: (\w+)")

    def bare() -> bool:
        found = pattern.search("Label: billing")
        return found is not None and found[1] == "bug"

    whole = _cpu_seconds(lambda: pipeline.evaluate("Label: billing", "bug", {}))
    assert whole < 40 * _cpu_seconds(bare)


def _cpu_seconds(work: Callable[[], object]) -> float:
    """Processor time of 200 calls, the least of 50 times."""
    times = []
    for _ in range(50):
        started = time.process_time()
        for _ in range(200):
            work()
        times.append(time.process_time() - started)
    return min(times)
