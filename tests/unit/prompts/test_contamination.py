"""Few-shot examples that ask what is tested: counted, left out or refused; never a sample's own question."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.datasets import Item
from evalrun.errors import UserError
from evalrun.prompts import FewShotPool, compile_prompt
from evalrun.prompts.few_shot import question_of
from evalrun.suite.load import load_suite
from evalrun.suite.prompt import PromptSpec
from evalrun.sweep.prepare import prepare

COPIES = [
    str.upper,
    "{} ".format,
    " {}".format,
    "{}?".format,
    str.title,
    "“{}”".format,
    lambda q: q.replace(" ", "  "),
]


def renderer(texts: list[str], count: int = 1) -> Any:
    spec = PromptSpec(id="p", text="{{ q }}", few_shot={"count": count, "split": "train"})
    pool = FewShotPool([Item(f"e{at}", at, {"q": text}, target="a") for at, text in enumerate(texts)])
    return compile_prompt(spec, Path()).bind(pool, 1)


@pytest.mark.parametrize("copy", COPIES)
def test_a_sample_is_never_shown_a_near_copy_of_its_question(copy: Any) -> None:
    made = renderer([copy("question one"), "question two"])
    for seed in range(20):
        messages = made.render(Item(f"s{seed}", 0, {"q": "question one"})).messages
        assert messages[0].content == "question two"


@given(st.text(max_size=20), st.text(max_size=20))
def test_questions_are_alike_only_where_nothing_but_case_space_and_punctuation_differs(
    one: str, other: str
) -> None:
    alike = question_of({"q": one}, ["q"]) == question_of({"q": other}, ["q"])
    if one == other:
        assert alike
    if one.isascii() and other.isascii() and one.isalnum() and other.isalnum():
        assert alike == (one.lower() == other.lower())
    assert question_of({"q": 1}, ["q"]) != question_of({}, ["q"])


@pytest.mark.parametrize(
    ("one", "other"), [("What is 1.5?", "What is 15?"), ("3 - 2", "3 + 2"), ("-5", "5"), ("a", "b")]
)
def test_questions_that_differ_in_meaning_are_not_alike(one: str, other: str) -> None:
    assert question_of({"q": one}, ["q"]) != question_of({"q": other}, ["q"])


def suite(folder: Path, contamination: str | None) -> Path:
    questions = [f"Question {at}" for at in range(5)]
    data = [f'{{"q": "{q}", "a": "x", "out": "x"}}' for q in questions]
    (folder / "data.jsonl").write_text("\n".join(data))
    shots = [f'{{"q": "{q.lower()} ", "a": "x"}}' for q in questions[:3]]
    shots += [f'{{"q": "Other {at}", "a": "x"}}' for at in range(4)]
    (folder / "shots.jsonl").write_text("\n".join(shots))
    option = "" if contamination is None else f", contamination: {contamination}"
    path = folder / "suite.yaml"
    path.write_text(
        "name: s\nmodels: [{id: r, provider: recorded, column: out}]\n"
        f"prompts: [{{id: p, text: '{{{{ q }}}}', few_shot: {{count: 4, path: shots.jsonl{option}}}}}]\n"
        "datasets: [{id: d, path: data.jsonl, target: a}]\nscorers: [exact_match]\n"
    )
    return path


def test_tested_rows_among_the_examples_are_counted(tmp_path: Path) -> None:
    (said,) = prepare(load_suite(suite(tmp_path, None)), tmp_path).datasets["d"].warnings
    assert "shows 5 of 5 samples other tested rows" in said
    assert "3 of the 7 few-shot examples" in said


def test_they_are_left_out_or_refused_where_the_suite_says_so(tmp_path: Path) -> None:
    prepared = prepare(load_suite(suite(tmp_path, "leave_out")), tmp_path)
    assert "they are left out" in prepared.datasets["d"].warnings[0]
    (made,) = prepared.renderers.values()
    for item in prepared.datasets["d"]:
        texts = [str(message.content) for message in made.render(item).messages[:-1:2]]
        assert sorted(texts) == [f"Other {at}" for at in range(4)]
    with pytest.raises(UserError, match="3 of the 7 few-shot examples"):
        prepare(load_suite(suite(tmp_path, "error")), tmp_path)
