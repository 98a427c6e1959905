"""What each scorer calls right, and the reasons it gives."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from evalrun import registry
from evalrun.scoring.base import Scorer, ScoringInput
from evalrun.types import Score, Status

NEEDED: dict[str, dict[str, object]] = {
    "json_schema": {"schema": {"type": "object"}},
    "length": {"max": 10},
    "not": {"scorer": "includes"},
    "threshold": {"scorer": "token_f1", "at_least": 0.5},
}
"""Options without which a scorer cannot be made."""

APART = {"code", "embedding", "evaluate", "hub", "judge", "meteor"}
"""Scorers that run programs, ask models or load what is not installed: each has tests of its own."""

PLAIN = sorted(set(registry.built_in("scorer")) - APART)
"""Scorers that look at one sample and nothing else."""


def scorer(name: str, /, **options: object) -> Scorer:
    kind = registry.load("scorer", name)
    made: Scorer = kind(kind.Options(**{**NEEDED.get(name, {}), **options}))
    return made


def score(made: Scorer, answer: object, target: object, output: str | None = None) -> Score:
    raw = output if output is not None else str(answer)
    return made.score(ScoringInput(answer, raw, target, Status.SCORED, {}))


ANY = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.text())


@settings(max_examples=300, deadline=None)
@given(ANY, ANY, st.sampled_from([scorer(name) for name in PLAIN]))
@example(math.inf, math.inf, scorer("correlation"))
@example(10**400, "1", scorer("correlation"))
@example(1e308, -1e308, scorer("correlation"))
def test_a_scorer_bears_any_answer_and_target(answer: object, target: object, made: Scorer) -> None:
    verdict = score(made, answer, target)
    infos = {info.name: info for info in made.metrics()}
    values = {made.metrics()[0].name: verdict.value}
    values |= {f"{made.name}.{part}": value for part, value in verdict.parts.items()}
    for name, value in values.items():
        low, high = infos[name].bounds if name in infos else (None, None)
        assert value is None or low is None or low <= value
        assert value is None or high is None or value <= high + 1e-9
    assert verdict.value is None or set(verdict.parts) == set(made.parts)
    assert verdict.reason


@pytest.mark.parametrize("name", PLAIN)
def test_a_sample_without_an_answer_has_a_score_or_a_reason(name: str) -> None:
    made = scorer(name)
    sample = ScoringInput(None, "", "yes", Status.UNPARSED, {})
    verdict = made.unanswered(sample, "unparsed: no label")
    assert verdict.reason
    if made.metrics()[0].direction == "lower" and made.correctness:
        assert verdict.value is None or verdict.value > 0
    elif made.correctness and name not in (
        "assertions",
        "bbq",
        "winobias",
    ):  # which look at the row even then
        assert verdict.value == 0


@pytest.mark.parametrize("name", sorted(registry.built_in("scorer")))
def test_every_scorer_is_described(name: str) -> None:
    kind = registry.load("scorer", name)
    assert kind.registered == name
    assert kind.summary.endswith(".")
    for key, field in kind.Options.model_fields.items():
        assert field.description, f"say what {key} means: Annotated[…, Field(description=…)]"
    assert kind.shorthand is None or kind.shorthand in kind.Options.model_fields
    for info in kind.describe(name):
        assert info.name.split(".")[0] == name
        assert info.definition.endswith(".")
    if name in PLAIN:
        assert scorer(name, name="mine").metrics()[0].name.split(".")[0] == "mine"
    with pytest.raises(ValidationError):
        kind.Options(name="performance")


def test_exact_match_strips_and_says_what_is_wrong() -> None:
    made = scorer("exact_match")
    assert score(made, " billing", "billing\n").value == 1
    wrong = score(made, "billing", "account")
    assert (wrong.value, wrong.reason) == (0, "answer 'billing' is not the target 'account'")
    assert score(made, "Billing", "billing").value == 0
    assert score(made, "", "").value == 1


def test_exact_match_normalises_only_what_it_is_told_to() -> None:
    assert score(scorer("exact_match", ignore_case=True), "STRASSE", "straße").value == 1
    assert score(scorer("exact_match", ignore_punctuation=True), "it's €5!", "its 5").value == 1
    assert score(scorer("exact_match", ignore_whitespace=True), "a \n b", "a b").value == 1
    assert score(scorer("exact_match"), "a  b", "a b").value == 0


@pytest.mark.parametrize(
    ("answer", "target", "value"),
    [
        (18, "18", 1),
        (18.0, "18", 1),
        (1000, "1,000", 1),
        (18, "$18.00", 1),
        (18, 18.0, 1),
        (18, "eighteen", 0),
        (True, "true", 1),
        (True, 1, 0),
        ("a", ["b", "a"], 1),
        ("c", ["b", "a"], 0),
        (["a"], ["a"], 1),
        ({"a": 1}, {"a": 1}, 1),
        ({"a": 1}, {"a": 2}, 0),
        (None, None, None),
        ("", None, None),
    ],
)
def test_exact_match_compares_values_of_all_kinds(answer: object, target: object, value: int | None) -> None:
    assert score(scorer("exact_match"), answer, target).value == value


def test_includes_looks_for_the_target_or_given_texts() -> None:
    assert score(scorer("includes"), "It is PARIS.", "paris").value == 1
    assert score(scorer("includes", ignore_case=False), "It is PARIS.", "paris").value == 0
    assert score(scorer("includes", whole_word=True), "parisian", "paris").value == 0
    assert score(scorer("includes"), "a b", ["x", "b"]).value == 1
    missing = score(scorer("includes", need="all"), "a b", ["a", "c"])
    assert missing.value == 0
    assert "'c'" in missing.reason
    assert score(scorer("includes", values="sorry"), "I am sorry", "ignored").value == 1
    assert score(scorer("includes", of="output"), "b", "a", output="a so b").value == 1
    assert score(scorer("includes"), "anything", "").value is None


def test_regex_takes_its_pattern_or_the_target() -> None:
    assert score(scorer("regex", pattern=r"\d{4}"), "in 2019", "ignored").value == 1
    assert score(scorer("regex", pattern=r"\d{4}", full=True), "in 2019", None).value == 0
    assert score(scorer("regex"), "cats", "cats?").value == 1
    assert score(scorer("regex"), "dog", ["cats?", "dogs?"]).value == 1
    bad = score(scorer("regex"), "dog", "(")
    assert bad.value is None
    assert "not a regular expression" in bad.reason
    with pytest.raises(ValidationError):
        scorer("regex", pattern="(")


@pytest.mark.parametrize(
    ("options", "answer", "target", "value"),
    [
        ({}, "so it is 1,234.50", "1234.5", 1),
        ({}, 0.1 + 0.2, 0.3, 1),
        ({}, 3.01, 3, 0),
        ({"abs_tolerance": 0.01}, 3.01, 3, 1),
        ({"rel_tolerance": 0.1}, 109, 100, 1),
        ({"rel_tolerance": 0.1}, 111, 100, 0),
        ({}, "none", 3, 0),
        ({}, 3, "none", None),
        ({}, 5, [4, 5], 1),
        ({}, 10**400, "7", 0),
        ({}, True, "1", 0),
    ],
)
def test_numeric_compares_within_the_tolerance(
    options: dict[str, float], answer: object, target: object, value: int | None
) -> None:
    assert score(scorer("numeric", **options), answer, target).value == value


@pytest.mark.parametrize(
    ("answer", "target", "value"),
    [
        ("The cat sat.", "a cat sat", 1.0),
        ("the cat", "cat dog", 2 / 3),
        ("cat cat", "cat", 2 / 3),
        ("dog", "cat", 0.0),
        ("", "", 1.0),
        ("", "cat", 0.0),
        ("the", "a", 0.0),
        ("", "A", 0.0),
        ("-5", "5", 0.0),
        ("3.14", "314", 0.0),
        ("C++", "C", 0.0),
        ("x y", ["z", "x y"], 1.0),
        ("x", [], None),
    ],
)
def test_token_f1_is_that_of_squad_but_for_signs_points_and_nothing(
    answer: str, target: object, value: float | None
) -> None:
    assert score(scorer("token_f1"), answer, target).value == pytest.approx(value)


def test_classification_scores_labels() -> None:
    made = scorer("classification", labels=["billing", "bug"])
    assert score(made, "bug", "bug").value == 1
    assert score(made, "bug", "billing").reason == "answer 'bug' is not the target 'billing'"
    assert "none of the labels" in score(made, "other", "bug").reason
    assert score(made, "bug", "other").value is None
    assert score(made, "bug", None).value is None
    assert score(scorer("classification", ignore_case=True), "Bug", "bug").value == 1
    with pytest.raises(ValidationError, match="quote it"):
        scorer("classification", labels=[True, False])
