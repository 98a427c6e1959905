"""What scorers and parsers do where the suite gives no option, and at the ends of what they take."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from evalrun import registry
from evalrun.scoring.base import Parser, Scorer, ScoringInput, Unparsed
from evalrun.scoring.guard import GuardedPattern
from evalrun.scoring.text import stands_alone, whole_phrase
from evalrun.types import JSON, Score, Status


def scorer(name: str, /, **options: object) -> Scorer:
    kind = registry.load("scorer", name)
    made: Scorer = kind(kind.Options(**options))
    return made


def parsed(name: str, value: JSON, /, **options: object) -> JSON:
    kind = registry.load("parser", name)
    made: Parser = kind(kind.Options(**options))
    return made.parse(value)


def score(made: Scorer, answer: JSON, target: JSON = None, row: dict[str, JSON] | None = None) -> Score:
    raw = answer if isinstance(answer, str) else json.dumps(answer)
    return made.score(ScoringInput(answer, raw, target, Status.SCORED, row or {}))


@pytest.mark.parametrize(
    ("entry", "answer", "target", "value"),
    [
        (scorer("exact_match"), "paris", "Paris", 0),
        (scorer("exact_match"), "Paris.", "Paris", 0),
        (scorer("exact_match"), "New  York", "New York", 0),
        (scorer("exact_match"), " Paris\n", "Paris", 1),
        (scorer("exact_match", ignore_case=True), "paris.", "Paris", 0),
        (scorer("exact_match", ignore_punctuation=True), "Paris.", "Paris", 1),
        (scorer("exact_match", ignore_punctuation=True), "paris.", "Paris", 0),
        (scorer("exact_match", ignore_whitespace=True), "New  York", "New York", 1),
        (scorer("regex", pattern="paris"), "PARIS", None, 0),
        (scorer("regex", pattern="paris", ignore_case=True), "PARIS", None, 1),
        (scorer("regex", pattern="aris"), "in paris now", None, 1),
        (scorer("regex"), "room 12", r"\d+", 1),
        (scorer("includes"), "scattered", "CAT", 1),
        (scorer("includes", whole_word=True), "scattered", "cat", 0),
        (scorer("contains_any", values=["cat", "dog"]), "Scattered", None, 1),
        (scorer("contains_all", values=["cat", "dog"]), "Scattered", None, 0),
        (scorer("contains_all", values=["cat", "red"]), "SCATTERED", None, 1),
        (scorer("contains_any", values=["cat"], whole_word=True), "scattered", None, 0),
        (scorer("contains_any", values=["cat"], ignore_case=False), "SCATTERED", None, 0),
        (scorer("json_valid"), "```json\n[]\n```", None, 0),
        (scorer("json_valid", fenced=True), "```json\n[]\n```", None, 1),
        (scorer("classification"), "Bug", "bug", 0),
        (scorer("classification"), "bug", ["bug"], 1),
        (scorer("classification"), "bug", ["bug", "account"], None),
        (scorer("classification"), "bug", [], None),
    ],
    ids=lambda each: each.registered if isinstance(each, Scorer) else None,
)
def test_scorers_as_they_come(entry: Scorer, answer: JSON, target: JSON, value: float | None) -> None:
    assert score(entry, answer, target).value == value


def test_a_length_counts_from_the_first_character_to_the_last() -> None:
    characters = scorer("length", unit="characters", max=5)
    assert score(characters, " \n a b \n").parts == {"count": 3.0}
    assert score(scorer("length", max=2), " a  b\n").parts == {"count": 2.0}
    for given in ({"min": 1}, {"max": 1}, {"min": 2, "max": 2}):
        scorer("length", **given)


def test_a_schema_from_the_row_is_checked_before_it_is_used() -> None:
    made = scorer("json_schema", column="shape")
    right, wrong = {"type": "object"}, {"type": "strnig"}
    assert score(made, {"a": 1}, row={"shape": json.dumps(right)}).parts == {"errors": 0.0}
    for shape in (wrong, json.dumps(wrong), "no json", None):
        found = score(made, {"a": 1}, row={"shape": shape})
        assert found.value is None and "holds no JSON Schema" in found.reason


def test_fields_that_are_wrong_are_named_up_to_five() -> None:
    made = scorer("json_fields")
    target = dict.fromkeys("abcdef", 1)
    assert score(made, {}, target).reason == "0 of 6 fields are right; not a, b, c, d, e and others"
    assert score(made, {"f": 1}, target).reason == "1 of 6 fields are right; not a, b, c, d, e"
    named = scorer("json_fields", fields=["$Price ($)", "price", "All"])
    assert named.parts == ("all", "price", "price_2", "all_2")


@pytest.mark.parametrize("given", ["ab", 3, None, {"0": "a"}, ["a"], ["b", "a"]])
def test_a_list_equals_nothing_but_its_like(given: JSON) -> None:
    made = scorer("json_fields", fields=["tags"])
    assert score(made, {"tags": given}, {"tags": ["a", "b"]}).value == 0
    assert score(made, {"tags": ["a", "b"]}, {"tags": given}).value == 0
    assert score(made, {"tags": given}, {"tags": given}).value == 1


def test_synonyms_of_options_are_refused_as_those_of_no_label() -> None:
    with pytest.raises(ValidationError, match="'yep', which is not among the labels"):
        parsed("choice", "yep", options=["yes", "no"], letters=True, synonyms={"yep": ["yes"]})


def test_token_f1_says_which_side_has_no_words() -> None:
    made = scorer("token_f1")
    both, one = score(made, " ", ""), score(made, "", "Paris")
    assert (both.value, both.reason) == (1.0, "answer and target have no words")
    assert (one.value, one.reason) == (0.0, "answer or target has no words")
    assert score(made, "...", "the").value == 0


def test_options_are_fixed_once_made() -> None:
    made = scorer("exact_match")
    with pytest.raises(ValidationError, match="frozen"):
        made.options.ignore_case = True


def test_a_number_goes_through_last_number_as_it_is() -> None:
    found = [parsed("last_number", value) for value in (12, -2.5, 0)]
    assert found == [12, -2.5, 0] and list(map(type, found)) == [int, float, int]
    assert parsed("last_number", "x" * 200_000 + " 7 ") == 7
    with pytest.raises(Unparsed, match="no number"):
        parsed("last_number", True)


def test_regex_parsers_mind_the_case_and_take_the_first() -> None:
    assert parsed("regex", "label: a, Label: b, Label: c", pattern=r"Label: (\w)") == "b"
    assert parsed("regex", "label: a, Label: b", pattern=r"Label: (\w)", ignore_case=True) == "a"
    assert parsed("regex", "label: a", pattern=r"\w$") == "a"


@pytest.mark.parametrize("path", ["items.x", "items.2", "items.-3", "items.--1", "items.1.0", "other"])
def test_a_path_that_leads_nowhere_is_unparsed(path: str) -> None:
    with pytest.raises(Unparsed, match="is not in the JSON"):
        parsed("json", '{"items": ["a", "b"]}', field=path)


def test_a_path_may_count_from_the_end() -> None:
    text = 'So: {"items": ["a", "b"]}.'
    found = [parsed("json", text, field=path) for path in ("items.0", "items.1", "items.-1", "items.-2")]
    assert found == ["a", "b", "b", "a"]
    for nothing in ("no json at all", "[1, {"):
        with pytest.raises(Unparsed, match="no valid JSON"):
            parsed("json", nothing)


@pytest.mark.parametrize(
    ("text", "part", "alone"),
    [
        ("a cat sat", "cat", True),
        ("cat", "cat", True),
        ("cats", "cat", False),
        ("scat", "cat", False),
        ("cat_", "cat", False),
        ("cat.", "cat", True),
        ("在北京吗", "北京", True),
        ("x北京x", "北京", True),
        ("在cat吗", "cat", True),
        ("カcatカ", "cat", True),
        ("A北京", "A", True),
        ("北京A", "A", True),
    ],
)
def test_what_stands_alone_in_scripts_with_and_without_spaces(text: str, part: str, alone: bool) -> None:
    start = text.index(part)
    assert stands_alone(text, start, start + len(part)) is alone
    assert (GuardedPattern(whole_phrase(part)).first(text) is not None) is alone
