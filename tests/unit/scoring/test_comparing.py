"""When two texts are the same answer: Unicode, punctuation, numbers within texts, truth values, nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun import registry
from evalrun.scoring.base import Scorer, ScoringInput
from evalrun.scoring.text import composed, label_text, normalised
from evalrun.types import Score, Status

LOOSE = {"ignore_case": True, "ignore_punctuation": True, "ignore_whitespace": True}


def scorer(name: str, /, **options: object) -> Scorer:
    kind = registry.load("scorer", name)
    made: Scorer = kind(kind.Options(**options))
    return made


def score(name: str, answer: object, target: object, /, **options: object) -> Score:
    return scorer(name, **options).score(ScoringInput(answer, str(answer), target, Status.SCORED, {}))


@pytest.mark.parametrize(
    "one", ["cafe\u0301", "\ufeffcafé", "café\u200b", "ca\u00adfé", "\u200ecafé\u200f", "café\u2060"]
)
@pytest.mark.parametrize(
    "name",
    [
        "exact_match",
        "includes",
        "starts_with",
        "ends_with",
        "squad",
        "token_f1",
        "rouge",
        "classification",
        "regex",
    ],
)
def test_what_looks_the_same_is_the_same(name: str, one: str) -> None:
    assert score(name, one, "café").value == 1
    assert score(name, "café", one).value == 1


def test_full_width_letters_are_the_same_where_that_is_asked_for_and_told_where_not() -> None:
    assert score("exact_match", "Ｂ", "B", unicode="NFKC").value == 1
    strict = score("exact_match", "Ｂ", "B")
    assert strict.value == 0
    assert "U+FF22 (fullwidth latin capital letter b) for U+0042 (latin capital letter b)" in strict.reason
    assert score("exact_match", "cafe\u0301", "café", unicode="none").value == 0
    assert "U+00A0 (no-break space)" in score("exact_match", "a\u00a0b", "a b").reason
    assert "encoded" not in score("exact_match", "café", "cafe").reason


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20))
def test_composing_twice_changes_nothing(text: str) -> None:
    assert composed(composed(text)) == composed(text)
    assert normalised(normalised(text, True, True, True), False, False, True) == normalised(
        text, True, True, True
    )


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("-", "+"),
        (">", "<"),
        ("-5", "5"),
        ("–5", "5"),
        ("3.14", "314"),
        ("1.0", "10"),
        ("C++", "C"),
        ("C#", "C"),
        ("B-", "B"),
        ("A+", "A"),
        ("", "A"),
        ("...", ""),
        ("?", "!"),
        ("x < y", "x > y"),
        ("x = 1", "x 1"),
        ("1/2", "12"),
        ("12:30", "1230"),
        ("0,5", "05"),
        ("x^2", "x2"),
        (".5", "5"),
        ("$-5", "$5"),
        ("5-3", "53"),
        ("-x", "x"),
        ("2*3", "23"),
        ("10%", ""),
    ],
)
def test_punctuation_that_says_something_is_not_ignored(answer: str, target: str) -> None:
    assert score("exact_match", answer, target, **LOOSE).value == 0
    assert score("exact_match", target, answer, **LOOSE).value == 0
    if target:
        assert score("token_f1", answer, target).value < 1


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("it's €5!", "its 5"),
        ("Paris.", "Paris"),
        ("**Paris**", "Paris"),
        ("U.S.A.", "USA"),
        ("1,000,000", "1000000"),
        ("yes!", "Yes"),
        ("3.14.", "3.14"),
        ("(5)", "5"),
        ("−5", "-5"),
        ("well-known", "wellknown"),
        ("a, b; c", "a b c"),
        ("“x”", "x"),
        ("- item", "item"),
        ("...", "…"),
    ],
)
def test_other_punctuation_is_ignored(answer: str, target: str) -> None:
    same = score("exact_match", answer, target, **LOOSE).value
    assert same == (0 if answer == "..." else 1)


def test_squad_is_true_to_its_script_and_says_so() -> None:
    verdict = score("squad", "-5", "5")
    assert verdict.value == 1
    assert "only because SQuAD deletes signs" in verdict.reason
    assert "only because" not in score("squad", "The cat!", "cat").reason
    assert score("squad", "", "A").value == score("squad", "the", "A").value == 0
    assert score("squad", "", []).value == 1


@pytest.mark.parametrize("name", ["regex", "includes", "contains_all", "starts_with", "ends_with"])
@pytest.mark.parametrize("target", [None, "", [], [None], [""]])
def test_nothing_to_look_for_is_found_nowhere(name: str, target: object) -> None:
    assert score(name, "wrong", target).value is None
    assert score(name, "", target).value is None


def test_an_empty_one_among_several_targets_is_passed_over() -> None:
    assert score("regex", "wrong", ["", "right"]).value == 0
    assert score("regex", "right", [None, "right"]).value == 1


@pytest.mark.parametrize(
    ("text", "wanted", "there"),
    [
        ("The answer is 25", "5", 0),
        ("2.5", "5", 0),
        ("-5", "5", 0),
        ("50,000", "50", 0),
        ("0.5", "5", 0),
        ("15", "5", 0),
        ("5,5", "5", 0),
        ("–5", "5", 0),
        ("500", "50", 0),
        ("It is 5.", "5", 1),
        ("5 apples", "5", 1),
        ("(5)", "5", 1),
        ("$5", "5", 1),
        ("5%", "5", 1),
        ("5, 6", "5", 1),
        ("5.0", "5", 1),
        ("50,000", "50000", 1),
        ("-5", "-5", 1),
        ("3-5", "5", 1),
        ("1.5", "1.5", 1),
        ("11.5", "1.5", 0),
        ("1,5 l", "1.5", 1),
        ("15 apples", "5 apples", 0),
        ("2.5 apples", "5 apples", 0),
        ("5 apples", "5 apples", 1),
        ("room 50", "room 5", 0),
        ("room 5.", "room 5", 1),
        ("Version 2.5.1", "2.5", 0),
        ("in 1999", "1999", 1),
        ("in 21999", "1999", 0),
        ("½", "0.5", 1),
    ],
)
def test_a_number_is_found_as_a_number(text: str, wanted: str, there: int) -> None:
    assert score("includes", text, wanted).value == there
    assert score("includes", text, wanted, whole_word=True).value == there
    assert score("contains_any", text, None, values=[wanted]).value == there


def test_a_number_in_a_word_is_a_whole_word_only_alone() -> None:
    assert score("includes", "A1", "1").value == 1
    assert score("includes", "A1", "1", whole_word=True).value == 0
    assert score("includes", "1st", "1", whole_word=True).value == 0


@pytest.mark.parametrize(
    ("name", "text", "wanted", "there"),
    [
        ("starts_with", "50 apples", "5", 0),
        ("starts_with", "5.5", "5", 0),
        ("starts_with", "5 apples", "5", 1),
        ("starts_with", "5.", "5", 1),
        ("ends_with", "is 15", "5", 0),
        ("ends_with", "0.5", "5", 0),
        ("ends_with", "-5", "5", 0),
        ("ends_with", "is 5", "5", 1),
    ],
)
def test_a_text_begins_or_ends_with_a_whole_number(name: str, text: str, wanted: str, there: int) -> None:
    assert score(name, text, wanted).value == there


@pytest.mark.parametrize("name", ["exact_match", "classification"])
@pytest.mark.parametrize(
    ("answer", "target", "value"),
    [
        ("True", True, 1),
        ("true", True, 1),
        ("TRUE", True, 1),
        ("False", True, 0),
        ("Yes", True, 0),
        ("1", True, 0),
        ("False", False, 1),
        ("1", 1.0, 1),
        ("1.0", 1, 1),
        ("1", "1", 1),
        ("2", 1.0, 0),
        ("01", "1", 0),
        ("1.10", "1.1", 0),
        ("True", "True", 1),
        ("true", "True", 0),
    ],
)
def test_labels_are_equal_by_one_rule(name: str, answer: str, target: object, value: int) -> None:
    assert score(name, answer, target).value == value


@pytest.mark.parametrize(
    ("answer", "target"),
    [(1, 1.0), ("1.0", 1), ("1", "1.0"), (True, "true"), ("True", True), ("cafe\u0301", "café")],
)
def test_calibration_counts_what_is_the_same_as_right(answer: object, target: object) -> None:
    verdict = score("calibration", {"answer": answer, "confidence": 1.0}, target)
    assert verdict.parts["accuracy"] == 1


def test_a_label_text_keeps_what_is_no_whole_number() -> None:
    assert [label_text(text) for text in ("1.0", "-2.00", "1.10", "007.0", "v1.0", "1.")] == [
        "1",
        "-2",
        "1.10",
        "007.0",
        "v1.0",
        "1.",
    ]
