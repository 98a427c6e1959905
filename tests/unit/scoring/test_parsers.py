"""What each parser reads, what it refuses, and that none of them breaks on any text."""

import contextlib
import json
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from evalrun import registry
from evalrun.scoring.base import Parser, Unparsed

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
WORDS = st.text(alphabet=st.characters(codec="utf-8", categories=["L"]), min_size=1, max_size=8)


def parser(name: str, **options: object) -> Parser:
    kind = registry.load("parser", name)
    made: Parser = kind(kind.Options(**options))
    return made


def reason(made: Parser, value: object) -> str:
    with pytest.raises(Unparsed) as caught:
        made.parse(value)
    return caught.value.reason


EXAMPLES = [
    parser("strip"),
    parser("first_line"),
    parser("last_line"),
    parser("regex", pattern=r"(?i)answer: *(\w+)"),
    parser("between", start="<a>", end="</a>"),
    parser("choice", labels=["yes", "no", "not sure"]),
    parser("choice", letters=True, options=["one man", "two men", "nobody"]),
    parser("last_number"),
    parser("json"),
    parser("json", field="a.0"),
]


@settings(max_examples=300, deadline=None)
@given(st.text() | JSON_VALUES, st.sampled_from(EXAMPLES))
def test_a_parser_gives_a_value_or_says_why_not(value: object, made: Parser) -> None:
    try:
        answer = made.parse(value)
    except Unparsed as error:
        assert error.reason
    else:
        assert answer is not None


@pytest.mark.parametrize("name", sorted(registry.built_in("parser")))
def test_every_parser_is_described(name: str) -> None:
    kind = registry.load("parser", name)
    assert kind.summary.endswith(".")
    assert all(field.description for field in kind.Options.model_fields.values())
    assert kind.shorthand is None or kind.shorthand in kind.Options.model_fields
    with pytest.raises(ValidationError):
        kind.Options(no_such_option=1)


def test_strip_takes_named_characters_as_well() -> None:
    assert parser("strip").parse(" \n bug\t") == "bug"
    assert parser("strip", characters="\"'.").parse(' "bug."\n') == "bug"
    assert parser("strip").parse(12) == "12"


@settings(deadline=None)
@given(st.lists(st.sampled_from(["", "  ", "one", " two ", "three\t"]), max_size=6))
def test_lines_skip_the_empty_ones(lines: list[str]) -> None:
    text = "\n".join(lines)
    full = [line.strip() for line in lines if line.strip()]
    if not full:
        assert reason(parser("first_line"), text) == "the output is empty"
        assert reason(parser("last_line"), text) == "the output is empty"
    else:
        assert parser("first_line").parse(text) == full[0]
        assert parser("last_line").parse(text) == full[-1]


def test_regex_takes_the_group_of_the_match_asked_for() -> None:
    text = "Label: bug\nlabel: account"
    assert parser("regex", pattern=r"Label: (\w+)").parse(text) == "bug"
    assert parser("regex", pattern=r"Label: \w+").parse(text) == "Label: bug"
    assert parser("regex", pattern=r"Label: (\w+)", ignore_case=True, which="last").parse(text) == "account"
    assert parser("regex", pattern=r"(\w+): (?P<label>\w+)", group="label").parse(text) == "bug"
    assert parser("regex", pattern=r"(\w+): (\w+)", group=0).parse(text) == "Label: bug"
    assert "Price" in reason(parser("regex", pattern=r"Price: (\d+)"), text)
    assert "group 1" in reason(parser("regex", pattern=r"(x)?Label"), text)


@pytest.mark.parametrize(
    "bad", [{"pattern": "("}, {"pattern": "a", "group": 1}, {"pattern": "(a)", "group": "x"}]
)
def test_regex_is_checked_before_any_model_is_asked(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        parser("regex", **bad)


@pytest.mark.parametrize("pattern", [r"(a+)+b", r"(a|aa)+$", r"a*a*a*a*a*a*b", r"(a?){40}a{40}b"])
def test_a_catastrophic_pattern_ends_in_bounded_time(pattern: str) -> None:
    started = time.process_time()
    said = reason(parser("regex", pattern=pattern), "a" * 4000 + "!")
    assert time.process_time() - started < 4
    assert "took longer" in said or "nothing matches" in said


def test_a_time_limit_leaves_no_timer_or_handler_behind() -> None:
    import signal

    before = signal.getsignal(signal.SIGALRM)
    parser("regex", pattern=r"(x+)+y").parse("xxy")
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_between_takes_the_marks_literally() -> None:
    made = parser("between", start="<answer>", end="</answer>")
    assert made.parse("so <answer> 4 </answer> and <answer>5</answer>") == "4"
    assert (
        parser("between", start="<answer>", end="</answer>", which="last").parse(
            "<answer>4</answer><answer>5</answer>"
        )
        == "5"
    )
    assert parser("between", start="####").parse("work #### 18 ") == "18"
    assert "'<answer>'" in reason(made, "nothing")
    assert "'</answer>'" in reason(made, "<answer> 4")


LABELS = ["billing", "bug", "account", "other", "not a bug"]


def test_choice_finds_the_one_label_as_a_whole_word() -> None:
    made = parser("choice", labels=LABELS)
    assert made.parse("Billing") == "billing"
    assert made.parse("The label is: **BUG**.") == "bug"
    assert made.parse("This is not a bug") == "not a bug"
    assert made.parse("not  a\nbug") == "not a bug"
    assert made.parse("bug, clearly a bug") == "bug"
    assert "none of the labels" in reason(made, "debugging bugs")
    assert reason(made, "bug or billing").startswith("ambiguous: both 'bug' and 'billing'")


def test_choice_picks_only_when_told_to() -> None:
    text = "It could be billing, but I say bug."
    assert parser("choice", labels=LABELS, pick="first").parse(text) == "billing"
    assert parser("choice", labels=LABELS, pick="last").parse(text) == "bug"


def test_choice_knows_synonyms_and_labels_with_odd_characters() -> None:
    made = parser("choice", labels=["C++", "yes", "no"], synonyms={"yes": ["yep", "of course"], "no": "nope"})
    assert made.parse("yep!") == "yes"
    assert made.parse("Of  course.") == "yes"
    assert made.parse("nope") == "no"
    assert made.parse("I use C++ here") == "C++"


@settings(deadline=None)
@given(st.lists(WORDS, min_size=2, max_size=6, unique_by=str.casefold), st.data())
def test_choice_reads_back_any_label_alone_or_in_a_sentence(labels: list[str], data: st.DataObject) -> None:
    label = data.draw(st.sampled_from(labels))
    made = parser("choice", labels=labels)
    assert made.parse(f"  {label}\n") == label
    assert made.parse(f"123 {label}, 456") == label


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"labels": []},
        {"labels": [True, False]},
        {"labels": ["a", "a"]},
        {"labels": ["a"], "synonyms": {"b": ["c"]}},
        {"options": ["x", "y"]},
        {"letters": True},
        {"letters": True, "labels": ["a"], "options": ["b"]},
    ],
)
def test_choice_refuses_options_that_say_nothing_clear(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        parser("choice", **bad)


def test_a_bare_yes_in_yaml_is_explained() -> None:
    with pytest.raises(ValidationError, match="quote it"):
        parser("choice", labels=[True, False])


OPTIONS = ["The grandfather", "The grandson", "Not enough info"]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(C)", "C"),
        ("B.", "B"),
        ("A) The grandfather", "A"),
        ("The answer is B", "B"),
        ("Answer: (c)", "C"),
        ("the answer is b.", "B"),
        ("answer: b\nbecause she said so", "B"),
        ("the answer is a person", None),
        ("Answer: (C)", "C"),
        ("I think the answer is: **A**, because", "A"),
        ("A person would say B", "B"),
        ("the grandson", "B"),
        ("It was the grandson.", "B"),
        ("Not enough info.", "C"),
        ("A. The grandfather\nB. The grandson", None),
        ("I do not know", None),
        ("D", None),
        ("", None),
    ],
)
def test_letters_are_read_where_they_are_meant(text: str, letter: str | None) -> None:
    made = parser("choice", letters=True, options=OPTIONS)
    if letter is None:
        assert reason(made, text)
    else:
        assert made.parse(text) == letter


def test_options_may_differ_from_row_to_row() -> None:
    made = parser("choice", letters=True, option_columns=["ans0", "ans1"])
    assert made.reads_row
    row = {"ans0": "Maria", "ans1": "Susan"}
    assert made.parse_with_row("It was Susan", row) == "B"
    assert made.parse_with_row("A", row) == "A"
    with pytest.raises(Unparsed):
        made.parse_with_row("C", row)
    listed = parser("choice", letters=True, option_columns="choices")
    assert listed.parse_with_row("blue", {"choices": ["red", "green", "blue"]}) == "C"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("So 1,234.5 in all", 1234.5),
        ("$18", 18),
        ("-3", -3),
        ("\u22123", -3),
        ("-$18.50", -18.5),
        ("$-18", -18),
        ("45%", 45),
        ("16-3", 3),
        ("(16)-3", 3),
        ("1/2", 2),
        (".5", 0.5),
        ("18.", 18),
        ("18.00", 18.0),
        ("in 2019,300 came", 300),
        ("1,2345", 1.2345),
        ("12,345,678", 12345678),
        ("1.5e-3", 0.0015),
        ("€7", 7),
        ("70,000", 70000),
        (" 9 dollars", 9),
    ],
)
def test_last_number_reads_numbers_as_people_write_them(text: str, value: float) -> None:
    found = parser("last_number").parse(text)
    assert found == value
    assert type(found) is type(value)


@settings(deadline=None)
@given(st.integers(-(10**15), 10**15), st.text(alphabet="abc xyz,.!?\n", max_size=30))
def test_last_number_gives_back_any_integer(number: int, before: str) -> None:
    made = parser("last_number")
    assert made.parse(f"12 {before} {number}") == number
    assert made.parse(f"{before} ${abs(number):,} or so") == abs(number)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_last_number_gives_back_any_float_exactly(number: float) -> None:
    found = parser("last_number").parse(f"about {number!r}.")
    assert found == number
    assert math.copysign(1, found) == math.copysign(1, number) or found == 0


@pytest.mark.parametrize("text", ["", "none at all", "9" * 5000, "1e999"])
def test_last_number_refuses_what_is_none(text: str) -> None:
    assert reason(parser("last_number"), text)


def test_last_number_is_linear_in_the_length_of_the_text() -> None:
    made = parser("last_number")
    started = time.process_time()
    for text in ("1,111" * 20_000, "," * 100_000, "1,11" * 25_000, "+-" * 50_000, "." * 100_000):
        with contextlib.suppress(Unparsed):
            made.parse(text)
    assert time.process_time() - started < 3


@settings(deadline=None)
@given(JSON_VALUES)
def test_json_reads_any_value(value: object) -> None:
    text = json.dumps(value)
    if value is None:
        assert "null" in reason(parser("json"), text)
        return
    assert parser("json").parse(f" {text}\n") == value
    if isinstance(value, dict | list):
        assert parser("json").parse(f"Here it is:\n```json\n{text}\n```\nDone.") == value
        assert parser("json").parse(value) == value


def test_json_takes_a_field_by_its_path() -> None:
    made = parser("json", field="answers.0.label")
    assert made.parse('{"answers": [{"label": "bug"}]}') == "bug"
    assert "'answers.0'" in reason(made, '{"answers": []}')
    assert "'answers'" in reason(made, '{"a": 1}')
    assert "null" in reason(parser("json", field="a"), '{"a": null}')
    assert parser("json", field="a").parse('{not json} {"a": 0}') == 0


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "{'a': 1}", "NaN", '{"a": NaN}', "plain"])
def test_json_refuses_what_is_none(text: str) -> None:
    started = time.process_time()
    assert reason(parser("json"), text)
    assert time.process_time() - started < 3


def test_labels_that_are_letters_are_not_found_in_every_article() -> None:
    made = parser("choice", labels=["A", "B", "C"])
    assert made.parse("This is a clear case for (B).") == "B"
    assert made.parse("A") == "A"


@pytest.mark.parametrize(
    ("labels", "text", "label"),
    [
        (["正面", "负面"], "这是正面的评论。", "正面"),
        (["正面", "负面"], "这条评论的情感是,负面", "负面"),
        (["はい", "いいえ"], "答え「いいえ」", "いいえ"),
        (["はい", "いいえ"], "答えはいいえです", None),
        (["肯定", "否定"], "これは肯定です", "肯定"),
        (["긍정", "부정"], "이 문장은 긍정입니다.", "긍정"),
        (["บวก", "ลบ"], "ข้อความนี้เป็นบวกครับ", "บวก"),
        (["yes", "no"], "答案是yes。", "yes"),
        (["да", "нет"], "Ответ: да.", "да"),
        (["да", "нет"], "Это удача", None),
        (["no", "maybe"], "nobody knows", None),
    ],
)
def test_a_label_is_found_in_scripts_with_and_without_spaces(
    labels: list[str], text: str, label: str | None
) -> None:
    made = parser("choice", labels=labels)
    if label is None:
        assert reason(made, text)
    else:
        assert made.parse(text) == label


def test_an_option_is_found_by_its_text_in_a_script_without_spaces() -> None:
    assert parser("choice", letters=True, options=["祖父", "孙子"]).parse("是祖父问的。") == "A"


@pytest.mark.parametrize(
    "text",
    ["(" * 20_000, "[[" * 9_000, "answer" + " " * 20_000, "answer is" + "(" * 20_000, "yes no " * 2_900],
    ids=["brackets", "pairs", "spaces", "stated", "options"],
)
def test_letters_are_sought_in_time_that_grows_with_the_text(text: str) -> None:
    made = parser("choice", letters=True, options=["yes", "no", "yes no"])
    started = time.process_time()
    with contextlib.suppress(Unparsed):
        made.parse(text)
    assert time.process_time() - started < 1
