"""Prompts that ask for a choice or a perplexity, and messages with parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evalrun.datasets import Item
from evalrun.errors import UserError
from evalrun.prompts import Prompt, compile_prompt
from evalrun.prompts.few_shot import FewShotPool
from evalrun.suite.prompt import PromptSpec
from evalrun.types import Ask


def compiled(folder: Path, api: Any = "completions", **settings: Any) -> Prompt:
    return compile_prompt(PromptSpec(id="p", **{"text": "Q: {{ q }}\nA:", **settings}), folder, api)


def ask_of(prompt: Prompt, **row: Any) -> Ask | None:
    return prompt.bind(None, 1).render(Item("s", 0, row)).ask


def choose(**settings: Any) -> dict[str, Any]:
    return {"choose": settings}


@pytest.mark.parametrize(
    "options",
    [["{{ a }}", "{{ b }} b"], "list", "{{ list }}", "{{ [a, b ~ ' b'] }}", "{{ row.list }}"],
)
def test_options_come_from_templates_a_column_or_an_expression(tmp_path: Path, options: Any) -> None:
    prompt = compiled(tmp_path, ask=choose(options=options, by="per_byte"))
    made = ask_of(prompt, q="?", a="one", b="two", list=["one", "two b"])
    assert made == Ask(
        "choose", "prompt_logprobs", "per_byte", ("one", "two b"), ("one", "two b"), " ", top=20
    )
    assert made.continuations == (" one", " two b")


def test_answers_may_be_others_than_the_options(tmp_path: Path) -> None:
    prompt = compiled(tmp_path, ask=choose(options="texts", answers=["A", "{{ second }}"], separator=""))
    made = ask_of(prompt, q="?", texts=["x", 2], second="B")
    assert made is not None and (made.options, made.answers) == (("x", "2"), ("A", "B"))


def test_plain_prompts_ask_nothing(tmp_path: Path) -> None:
    assert ask_of(compiled(tmp_path), q="?") is None
    assert ask_of(compiled(tmp_path, ask="generate"), q="?") is None
    assert compiled(tmp_path).digest == compiled(tmp_path, ask="generate").digest
    assert compiled(tmp_path).digest != compiled(tmp_path, ask="perplexity").digest


def test_a_perplexity_may_have_a_context(tmp_path: Path) -> None:
    assert ask_of(compiled(tmp_path, ask="perplexity"), q="?") == Ask("perplexity")
    prompt = compiled(tmp_path, ask={"perplexity": {"context": "{{ before }}"}})
    assert ask_of(prompt, q="?", before="x") == Ask("perplexity", context="x")


def test_columns_that_options_need_are_missed_before_anything_is_sent(tmp_path: Path) -> None:
    for options in (["{{ a }}", "{{ bb }}"], "bb", "{{ bb }}"):
        prompt = compiled(tmp_path, ask=choose(options=options))
        (problem,) = prompt.check({"q", "a", "b"})
        assert "'bb'" in problem.what and "ask" in problem.where
    assert compiled(tmp_path, ask=choose(options="a")).check({"q", "a"}) == []


@pytest.mark.parametrize(
    ("settings", "row", "said"),
    [
        ({"options": "l"}, {"l": "x"}, "gives no list"),
        ({"options": "l"}, {"l": ["x"]}, "needs two options"),
        ({"options": "l"}, {"l": ["x", ["y"]]}, "something else than texts"),
        ({"options": "l"}, {"l": ["x", ""]}, "is empty"),
        ({"options": "l"}, {"l": ["x", "x"]}, "the same text"),
        ({"options": "l", "answers": ["A", "B"]}, {"l": ["x", "y", "z"]}, "3 options and 2 answers"),
        ({"options": "l", "via": "first_token"}, {"l": ["A", "AB"]}, "cannot tell 'A' from 'AB'"),
    ],
)
def test_rows_between_which_nothing_can_be_chosen_are_named(
    tmp_path: Path, settings: dict[str, Any], row: dict[str, Any], said: str
) -> None:
    prompt = compiled(tmp_path, ask=choose(**settings))
    with pytest.raises(UserError, match="sample 's'") as caught:
        ask_of(prompt, q="?", **row)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        ("chose", "expected generate, perplexity"),
        ("choose", "needs options"),
        ({"choose": {"options": ["A"]}}, "two options at least"),
        ({"choose": {"options": ["A", "B"], "answers": ["x"]}}, "2 options need 2 answers"),
        ({"choose": {"options": ["A", "B"], "via": "first_token", "by": "per_byte"}}, "'by' is for"),
        ({"choose": {"options": [True, False]}}, "quote them"),
        ({}, "either 'choose' or 'perplexity'"),
    ],
)
def test_what_a_suite_cannot_ask(ask: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        PromptSpec.model_validate({"id": "p", "text": "x", "ask": ask})


def test_examples_are_written_as_the_options_will_be(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"few_shot": {"count": 1, "split": "train"}}
    prompt = compiled(tmp_path, ask=choose(options=["yes", "no"]), **settings)
    pool = FewShotPool((Item("e", 0, {"q": "why"}, target="yes"),), "train")
    rendered = prompt.bind(pool, 1).render(Item("s", 0, {"q": "how"}))
    assert rendered.prompt == "Q: why\nA: yes\n\nQ: how\nA:"


def test_parts_of_messages_are_templates_and_pass_through(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "text": "What is {{ what }}?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,{{ picture }}", "detail": "low"}},
        {"type": "other", "number": 3, "flags": [True, None, "{{ what }}"]},
    ]
    spec = PromptSpec.model_validate({"id": "p", "messages": [{"role": "user", "content": parts}]})
    prompt = compile_prompt(spec, tmp_path, "chat")
    assert prompt.variables == {"what", "picture"}
    (message,) = prompt.bind(None, 1).render(Item("s", 0, {"what": "this", "picture": "QUJD"})).messages
    assert message.content == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}},
        {"type": "other", "number": 3, "flags": [True, None, "this"]},
    ]


def test_a_broken_template_in_a_part_is_found(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "{{ what"}]
    spec = PromptSpec.model_validate({"id": "p", "messages": [{"role": "user", "content": parts}]})
    with pytest.raises(UserError, match="cannot be read"):
        compile_prompt(spec, tmp_path, "chat")
