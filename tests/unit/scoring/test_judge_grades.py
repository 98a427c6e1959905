"""Reading grades out of what judges write, and combining them into scores."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evalrun.errors import UserError
from evalrun.scoring.asking import Judged, Reply
from evalrun.scoring.scorers.judge import Judge, JudgeOptions
from evalrun.scoring.scorers.judge_grades import Menu, read_verdict
from evalrun.scoring.scorers.wrapping import Not

SCALE = Menu.of_scale(1, 5)
CHOICES = Menu.of_choices({"correct": 1, "partly correct": 0.5, "incorrect": 0})


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ('{"reason": "fine", "grade": 4}', "4"),
        ('{"grade": "4"}', "4"),
        ('{"Score": 4.0}', "4"),
        ('Sure! Here it is:\n```json\n{"reason": "a {brace}", "grade": 4}\n```\nHope it helps.', "4"),
        ('First {"grade": 1}. No, wait: {"grade": 4}', "4"),
        ("Grade: 4", "4"),
        ("**Grade:** 4", "4"),
        ("<think>Score: 2? No, it is better.</think>\n\nScore: 4", "4"),
        ('<think>{"grade": 2}\n</think> It is 4', None),
        ("The score is 4 out of 5.", "4"),
        ("Rating: 4/5 because it is short", "4"),
        ("4", "4"),
        ("It is well argued.\n\n4", "4"),
        ('{"reason": "it breaks off, "grade": 4', "4"),
        ('{"grade": 7, "reason": "splendid"}', None),
        ('{"grade": 0}', None),
        ('{"grade": 3.5}', None),
        ('{"grade": true}', None),
        ('{"grade": null}', None),
        ("Grade: 7", None),
        ("4/10", None),
        ("Style: score: 2. Content: score: 5.", None),
        ("I like 4 of these 5 points.", None),
        ("I'm sorry, but I can't grade that.", None),
        ("", None),
        ('{"grade": [4]}', None),
        ("{" * 5000, None),
    ],
)
def test_a_grade_on_a_scale(text: str, grade: str | None) -> None:
    verdict = read_verdict(text, SCALE)
    assert (None if verdict.code is None else SCALE.labels[verdict.code]) == grade
    assert bool(verdict.fault) == (grade is None)


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ('{"grade": "Correct"}', "correct"),
        ('{"grade": "partly correct", "reason": "half"}', "partly correct"),
        ("Verdict: incorrect", "incorrect"),
        ("incorrect.", "incorrect"),
        ("grade: partly correct", "partly correct"),
        ('{"grade": "mostly correct"}', None),
        ("This is not incorrect, so it could be correct.", None),
        ('{"grade": "correct or incorrect"}', None),
        ('{"verdict": "yes"}', None),
    ],
)
def test_a_grade_by_name(text: str, grade: str | None) -> None:
    verdict = read_verdict(text, CHOICES)
    assert (None if verdict.code is None else CHOICES.labels[verdict.code]) == grade


def test_the_reason_is_kept_and_the_fault_names_what_was_said() -> None:
    assert read_verdict('{"reason": " good ", "grade": 2}', SCALE).reason == "good"
    assert read_verdict('{"reason": "x", "grade": 9}', SCALE).fault == "off the menu: '9'"


@given(st.text(max_size=200))
def test_no_text_breaks_the_reading_or_gives_a_grade_that_it_does_not_hold(text: str) -> None:
    verdict = read_verdict(text, SCALE)
    assert verdict.code is None or SCALE.labels[verdict.code] in text.translate(
        {ord(each): str(int(each)) for each in text if each.isdecimal()}
    )


@given(st.integers(1, 5), st.text(max_size=60))
def test_a_verdict_as_asked_for_is_always_read(grade: int, reason: str) -> None:
    text = json.dumps({"reason": reason, "grade": grade})
    assert read_verdict(text, SCALE).code == grade - 1


def judge(**options: Any) -> Judge:
    return Judge(JudgeOptions(**{"model": "j", **options}))


def said(**codes: int | None) -> dict[str, dict[str, Reply]]:
    """One reply a model, from places on the menu."""
    return {model: {"": Reply(code, "why", "" if code is not None else "?")} for model, code in codes.items()}


def pair(ab: int | None, ba: int | None) -> dict[str, dict[str, Reply]]:
    """The verdicts of one judge in both orders: 0 the first answer, 1 the second, 2 a tie."""
    return {"j": {"ab": Reply(ab, "x", "" if ab is not None else "?"), "ba": Reply(ba, "y")}}


def test_a_grade_off_the_menu_is_unscored_and_never_zero() -> None:
    score = judge(scale=[1, 5]).judged(Judged(said(j=None), {}))
    assert score.value is None
    assert score.parts["unscored"] == 1
    assert "?" in score.reason


def test_an_empty_answer_gets_the_lowest_grade_without_asking() -> None:
    score = judge(scale=[1, 5]).judged(Judged({}, {}, "an answer without text"))
    assert (score.value, score.parts["unscored"]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("codes", "combine", "value"),
    [
        ({"a": 0, "b": 0, "c": 1}, "majority", 1.0),
        ({"a": 0, "b": 1, "c": 1}, "majority", 0.0),
        ({"a": 0, "b": 1}, "majority", 0.5),  # equally many votes: half
        ({"a": 0, "b": None, "c": None}, "majority", 1.0),  # those who gave no grade have no vote
        ({"a": 0, "b": 0, "c": 1}, "mean", 2 / 3),
    ],
)
def test_several_judges(codes: dict[str, int | None], combine: str, value: float) -> None:
    several = judge(model=list(codes), choices={"yes": 1, "no": 0}, combine=combine)
    score = several.judged(Judged(said(**codes), {}))
    assert score.value == pytest.approx(value)
    assert {name: score.parts[f"by.{name}"] for name in codes} == codes


def test_judges_on_a_scale_are_averaged_and_the_grade_rounded() -> None:
    score = judge(model=["a", "b"], scale=[1, 5]).judged(Judged(said(a=3, b=4), {}))
    assert score.value == 4.5
    assert score.parts["grade"] == 4  # 5, the upper of the two


@pytest.mark.parametrize(
    ("ab", "ba", "value", "first", "inconsistent"),
    [
        (0, 1, 1.0, 0.5, 0),  # the judged answer wins in both orders
        (1, 0, 0.0, 0.5, 0),
        (0, 0, 0.5, 1.0, 1),  # always the first: that is position, not quality
        (1, 1, 0.5, 0.0, 1),
        (2, 2, 0.5, None, 0),
        (0, 2, 0.5, 1.0, 1),
        (0, None, None, 1.0, None),
    ],
)
def test_pairs(ab: int, ba: int | None, value: float | None, first: float | None, inconsistent: int) -> None:
    score = judge(pairwise={"column": "other"}).judged(Judged(pair(ab, ba), {}))
    assert score.value == value
    assert score.parts["first_position"] == first
    assert score.parts["inconsistent"] == inconsistent


def test_a_persons_grade_may_be_a_name_or_a_value() -> None:
    one = judge(choices={"correct": 1, "incorrect": 0}, human="label")
    for label in ("Correct", 1, 1.0, True, "correct"):
        assert one.judged(Judged(said(j=0), {"label": label})).parts["human"] == 0
    for label in ("good", None, 2, ""):
        assert one.judged(Judged(said(j=0), {"label": label})).parts["human"] is None


@pytest.mark.parametrize(
    "options",
    [
        {"scale": [5, 1]},
        {"scale": [0, 100]},
        {"scale": [1, 5], "choices": ["yes", "no"]},
        {"choices": ["one"]},
        {"choices": ["Yes", "yes"]},
        {"choices": {True: 1, False: 0}},
        {"pairwise": {}},
        {"pairwise": {"column": "x", "model": "y"}},
        {"rubric": "a", "rubric_file": "b"},
        {"prompt": "a", "rubric": "b"},
        {"model": []},
        {"model": ["a", "a"]},
        {"name": "cost"},
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JudgeOptions(**{"model": "j", **options})


def test_a_list_of_choices_runs_from_one_to_nothing() -> None:
    assert judge(choices=["good", "fair", "bad"]).menu.values == (1.0, 0.5, 0.0)


def test_no_scorer_stands_around_a_judge() -> None:
    with pytest.raises(UserError, match="asks a model"):
        Not(Not.Options(scorer={"judge": {"model": "j"}}))


def test_metrics_are_those_that_this_judge_has() -> None:
    names = {info.name for info in judge(scale=[1, 5]).metrics()}
    assert names == {"judge", "judge.unscored", "judge.reasked"}
    several = {info.name for info in judge(model=["a", "b"], human="x", pairwise={"column": "y"}).metrics()}
    assert {"judge.alpha", "judge.human.kappa", "judge.first_position"} <= several
    assert "judge.human.spearman" not in several
    assert judge(scale=[1, 5]).metrics()[0].bounds == (1.0, 5.0)
