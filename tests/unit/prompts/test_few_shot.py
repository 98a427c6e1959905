"""Which examples a sample is shown, and where they stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.datasets import Item, open_dataset
from evalrun.errors import UserError
from evalrun.prompts import FewShotPool, Prompt, compile_prompt, open_pool
from evalrun.suite.dataset import DatasetSpec
from evalrun.suite.prompt import PromptSpec

HERE = Path()


def item(name: str, question: str | None = None) -> Item:
    return Item(name, 0, {"q": question or f"question {name}"}, target=f"answer {name}")


def compiled(count: int, api: Any = "chat", **settings: Any) -> Prompt:
    settings = settings or {"text": "Q: {{ q }}"}
    few_shot = {"count": count, "split": "train"}
    return compile_prompt(PromptSpec(id="p", few_shot=few_shot, **settings), HERE, api)


def shown(prompt: Prompt, pool: FewShotPool, sample: Item, seed: int = 1) -> list[str]:
    messages = prompt.bind(pool, seed).render(sample).messages
    return [str(message.content) for message in messages]


names = st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=3, max_size=20, unique=True)


@given(names, st.integers(0, 5), st.randoms())
def test_examples_never_hold_the_sample_and_do_not_depend_on_order(
    pool: list[str], seed: int, random: Any
) -> None:
    prompt = compiled(2)
    examples = [item(name) for name in pool]
    before = {name: shown(prompt, FewShotPool(examples), item(name), seed) for name in pool}
    for name, texts in before.items():
        assert f"answer {name}" not in texts
        assert len(set(texts[:4])) == 4
    random.shuffle(examples)
    renderer = prompt.bind(FewShotPool(examples), seed)
    random.shuffle(pool)
    for name in pool:
        texts = [str(message.content) for message in renderer.render(item(name)).messages]
        assert texts == before[name]


@given(names)
def test_a_row_is_recognised_under_another_id(pool: list[str]) -> None:
    prompt = compiled(2)
    for name in pool:
        texts = shown(
            prompt, FewShotPool([item(f"other {name}", f"question {name}") for name in pool]), item(name)
        )
        assert texts[:-1].count(f"Q: question {name}") == 0


def test_every_example_is_about_equally_likely() -> None:
    pool = FewShotPool([item(f"e{at}") for at in range(10)])
    counts = dict.fromkeys(range(10), 0)
    for at in range(3000):
        for place in pool.pick(f"s{at}", 2, 0, lambda example: False):
            counts[place] += 1
    assert all(500 < count < 700 for count in counts.values()), counts


def test_seeds_and_samples_get_examples_of_their_own() -> None:
    pool = FewShotPool([item(f"e{at}") for at in range(100)])
    picks = {
        (name, seed): tuple(pool.pick(name, 3, seed, lambda example: False))
        for name in ("a", "b")
        for seed in (0, 1)
    }
    assert len(set(picks.values())) == 4


def test_pairs_stand_before_the_last_user_message() -> None:
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "Q: {{ q }}"},
    ]
    pool = FewShotPool([item("e")])
    rendered = compiled(1, messages=messages).bind(pool, 1).render(item("s"))
    assert [(message.role, message.content) for message in rendered.messages] == [
        ("system", "S"),
        ("user", "first"),
        ("assistant", "yes"),
        ("user", "Q: question e"),
        ("assistant", "answer e"),
        ("user", "Q: question s"),
    ]


def test_completions_get_blocks_of_text() -> None:
    rendered = compiled(1, "completions", text="Q: {{ q }}\nA:", system="S")
    text = rendered.bind(FewShotPool([item("e")]), 1).render(item("s")).prompt
    assert text == "S\n\nQ: question e\nA:\nanswer e\n\nQ: question s\nA:"


def test_a_template_may_place_the_examples_itself() -> None:
    text = "{% for e in examples %}{{ e.q }} = {{ e.target }}; {% endfor %}{{ q }}"
    pool = FewShotPool([item("e")])
    for api in ("chat", "completions"):
        rendered = compiled(1, api, text=text).bind(pool, 1).render(item("s"))
        said = rendered.prompt if api == "completions" else rendered.messages[0].content
        assert said == "question e = answer e; question s"
        assert len(rendered.messages) <= 1
    plain = compile_prompt(PromptSpec(id="p", text=text), HERE)
    assert plain.check(["q"]) == []
    assert plain.bind(None, 1).render(item("s")).messages[0].content == "question s"
    assert compiled(1, text=text).check(["q", "examples"])


@pytest.mark.parametrize(
    ("target", "expected"),
    [(" 18\n", "18"), (3, "3"), (True, "true"), (["x", "y"], "x"), ({"a": 1}, '{"a":1}')],
)
def test_targets_are_shown_as_text(target: Any, expected: str) -> None:
    pool = FewShotPool([Item("e", 0, {"q": "x"}, target=target)])
    assert shown(compiled(1), pool, item("s"))[1] == expected


def test_too_few_examples_are_an_error() -> None:
    with pytest.raises(UserError, match="2 examples are asked for"):
        compiled(2).bind(FewShotPool([item("e")]), 1)
    with pytest.raises(UserError, match="none may be the sample itself"):
        shown(compiled(1), FewShotPool([item("e")]), item("e"))
    with pytest.raises(UserError, match="has no target"):
        shown(compiled(1), FewShotPool([Item("e", 0, {"q": "x"})]), item("s"))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_examples_come_from_a_split_or_a_file_with_the_datasets_settings(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", [{"q": f"t{at}", "n": at} for at in range(6)])
    write(tmp_path / "train.jsonl", [{"q": f"e{at}", "n": at} for at in range(6)])
    spec = DatasetSpec(
        id="d", path="test.jsonl", splits={"train": "train.jsonl"}, target="={{ n }}", limit=2, shuffle=True
    )
    few = PromptSpec(id="p", text="{{ q }}", few_shot={"count": 3, "split": "train"})
    pool = open_pool(spec, few.few_shot, tmp_path, 1)
    assert [example.target for example in pool.examples if example.row["q"] == "e5"] == ["=5"]
    assert len(pool) == 6
    by_path = PromptSpec(id="p", text="{{ q }}", few_shot={"count": 3, "path": "test.jsonl"})
    same = open_pool(spec, by_path.few_shot, tmp_path, 1)
    renderer = compile_prompt(by_path, tmp_path).bind(same, 1)
    for sample in open_dataset(spec, tmp_path, 1):
        texts = [message.content for message in renderer.render(sample).messages]
        assert texts.count(sample.row["q"]) == 1
        assert f"={sample.row['n']}" not in texts


def test_a_pool_needs_a_target() -> None:
    spec = DatasetSpec(id="d", rows=[{"q": "x"}])
    few = PromptSpec(id="p", text="{{ q }}", few_shot={"count": 1, "split": "train"})
    with pytest.raises(UserError, match="need the dataset's target"):
        open_pool(spec, few.few_shot, HERE, 1)
