"""Reasoning in a model's text is told apart from the answer; texts without any stay whole."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun import registry
from evalrun.scoring.reasoning import split_reasoning


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>A or B? The answer is A. No.</think>\n\nB", "A or B? The answer is A. No.", "B"),
        ("B", "", "B"),
        ("<think>never closed, the answer is A", "never closed, the answer is A", ""),
        ("so it is A? no.</think>\nB", "so it is A? no.", "B"),
        ("\n<think>\n\n</think>\n\nB\n", "", "B\n"),
        ("<thinking>x</thinking> B", "x", "B"),
        ("<reasoning>x</reasoning><answer>B</answer>", "x", "<answer>B</answer>"),
        ("<Think>x</Think>B", "x", "B"),
        ("[THINK]x[/THINK]B", "x", "B"),
        ("◁think▷x◁/think▷B", "x", "B"),
        ("<|begin_of_thought|>x<|end_of_thought|>B", "x", "B"),
        ("<|START_THINKING|>x<|END_THINKING|>B", "x", "B"),
        ("<seed:think>x</seed:think>B", "x", "B"),
        ("<think>a</think>one <think>b</think>two", "a\n\nb", "one two"),
        ("<think>a <think>b</think> c</think>B", "a <think>b</think> c", "B"),
        ("<think>a <think>b</think>B", "a <think>b", "B"),
        ("<think>a</think></think>B", "a", "B"),
        ("<think>use <reasoning> tags</think>B", "use <reasoning> tags", "B"),
        ("Sure.\n<think>x</think>\nB", "x", "Sure.\n\nB"),
        ("<think>The answer is A</think>", "The answer is A", ""),
        ("", "", ""),
        ("1 < 2 and [x] and <b>bold</b>", "", "1 < 2 and [x] and <b>bold</b>"),
        ("Write `<think>` and `</think>` around it.", "", "Write `<think>` and `</think>` around it."),
        ('The tag "</think>" ends it.', "", 'The tag "</think>" ends it.'),
        ("<doc>\n<think>x</think>\n</doc>", "", "<doc>\n<think>x</think>\n</doc>"),
        ("<a><reasoning>x</reasoning><b>y</b></a>", "", "<a><reasoning>x</reasoning><b>y</b></a>"),
        ("I <think> therefore I am", "", "I <think> therefore I am"),
        ("<thinker>x</thinker>", "", "<thinker>x</thinker>"),
    ],
)
def test_reasoning_is_split_from_the_answer(text: str, reasoning: str, answer: str) -> None:
    assert split_reasoning(text) == (reasoning, answer)


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="abc <>/\n", max_size=30),
    st.text(alphabet="xyz .\n", max_size=30),
    st.sampled_from(["think", "thinking", "reasoning", "thought"]),
)
def test_the_answer_after_a_block_is_whole(thought: str, answer: str, tag: str) -> None:
    found = split_reasoning(f"<{tag}>{thought}</{tag}>{answer}")
    assert found == (thought.strip(), answer.lstrip())
    assert split_reasoning(found[1]) == ("", found[1])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<reasoning>", "</reasoning>", "a", " ", "\n", "`"])
    ).map("".join)
)
def test_any_text_is_split_or_left_whole(text: str) -> None:
    reasoning, answer = split_reasoning(text)
    assert len(reasoning) + len(answer) <= len(text) + 2 * text.count("<")
    assert answer == text or "think" in text or "reasoning" in text


def test_between_and_the_end_of_reasoning_reads_answers_without_it_too() -> None:
    kind = registry.load("parser", "between")
    made = kind(kind.Options(start="</think>"))
    assert made.parse("B") == "B"
    assert made.parse("x</think> B") == "B"
