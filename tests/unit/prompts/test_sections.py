"""Marked sections of prompts, and the prompts without one of their parts that `ablate: true` makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalrun.datasets import Item
from evalrun.errors import UserError
from evalrun.prompts import FewShotPool, compile_prompt, with_variants
from evalrun.suite.load import parse_suite
from evalrun.suite.plan import cells
from evalrun.suite.prompt import PromptSpec
from evalrun.suite.schema import Suite

HERE = Path()
RULES = "{% section rules -%}\nBe exact.\n{% endsection -%}\n"
TEXT = RULES + "{% section tone %}Be kind. {% endsection %}Q: {{ q }}"


def suite(*prompts: dict[str, Any], **more: Any) -> Suite:
    return parse_suite(
        {
            "name": "s",
            "models": [{"id": "m", "provider": "recorded", "column": "q"}],
            "prompts": list(prompts),
            "datasets": [{"id": "d", "rows": [{"q": "1"}], "target": "q"}],
            "scorers": ["exact_match"],
            **more,
        }
    )


def sent(spec: PromptSpec, base: Path = HERE, pool: FewShotPool | None = None) -> list[tuple[str, str]]:
    renderer = compile_prompt(spec, base).bind(pool, 0)
    return [(each.role, each.content) for each in renderer.render(Item("1", 0, {"q": "why?"})).messages]


def test_a_mark_changes_nothing_in_the_prompt_itself() -> None:
    prompt = PromptSpec(id="p", text=TEXT)
    assert sent(prompt) == [("user", "Be exact.\nBe kind. Q: why?")]
    assert compile_prompt(prompt, HERE).sections == ("rules", "tone")


def test_each_section_is_left_out_in_turn() -> None:
    specs = with_variants(cells(suite({"id": "p", "text": TEXT, "ablate": True})), HERE)
    assert [(each.prompt.id, each.prompt.ablates, each.prompt.without) for each in specs] == [
        ("p", "", ""),
        ("p-without-rules", "p", "section rules"),
        ("p-without-tone", "p", "section tone"),
    ]
    assert [each.run_id for each in specs] == ["m-p-d", "m-p-without-rules-d", "m-p-without-tone-d"]
    assert [sent(each.prompt)[0][1] for each in specs[1:]] == ["Be kind. Q: why?", "Be exact.\nQ: why?"]
    digests = {compile_prompt(each.prompt, HERE).digest for each in specs}
    assert len(digests) == 3


def test_a_section_of_the_same_name_goes_everywhere_also_in_included_files(tmp_path: Path) -> None:
    (tmp_path / "p.j2").write_text("{% include 'head.j2' %}{{ q }}{% section who %} (you){% endsection %}")
    (tmp_path / "head.j2").write_text("{% section who %}You are X. {% endsection %}")
    prompt = PromptSpec(id="p", file=Path("p.j2"), system="{% section who %}X{% endsection %}")
    assert sent(prompt, tmp_path) == [("system", "X"), ("user", "You are X. why? (you)")]
    # A message that was nothing but the section is not sent empty.
    assert sent(prompt.leaving_out("section who", "v"), tmp_path) == [("user", "why?")]


def test_each_example_is_left_out_in_turn_and_the_others_stay() -> None:
    pool = FewShotPool([Item(f"e{at}", 0, {"q": f"q{at}"}, target=f"a{at}") for at in range(5)])
    few_shot = {"count": 3, "split": "train"}
    [base, *variants] = with_variants(
        cells(suite({"id": "p", "text": "{{ q }}", "few_shot": few_shot, "ablate": True})), HERE
    )
    whole = sent(base.prompt, pool=pool)
    assert [each.prompt.without for each in variants] == ["example 1", "example 2", "example 3"]
    for at, each in enumerate(variants):
        assert sent(each.prompt, pool=pool) == whole[: 2 * at] + whole[2 * at + 2 :]


def test_filters_speak_of_the_whole_prompt() -> None:
    made = suite(
        {"id": "p", "text": TEXT, "ablate": True},
        {"id": "q", "text": "{{ q }}"},
        include=[{"prompt": "p"}],
    )
    assert len(with_variants(cells(made), HERE)) == 3


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([{"id": "p", "text": "{{ q }}", "ablate": True}], "nothing to leave out"),
        (
            [{"id": "p", "text": TEXT, "ablate": True}, {"id": "p-without-tone", "text": "x"}],
            "is there already",
        ),
        ([{"id": "p", "text": "{% section a %}x", "ablate": True}], "cannot be read"),
    ],
)
def test_what_cannot_be_ablated_is_said_before_anything_is_sent(prompts: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_variants(cells(suite(*prompts)), HERE)
