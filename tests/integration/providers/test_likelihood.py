"""Where tokens stand in a text, where a context ends, and what adds up to the likelihood of an option."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.providers.likelihood import (
    Scored,
    chosen_by_first_token,
    chosen_by_prompts,
    common_boundary,
    given_likelihood,
    scored,
    spans,
    text_likelihood,
)
from evalrun.types import Ask, ErrorKind, ProviderError

texts = st.text(st.characters(codec="utf-8", exclude_characters="\ufffdĠ▁Ċĉ"), min_size=1, max_size=40)


@given(texts, st.data())
def test_tokens_of_whole_characters_stand_where_they_were_cut(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))) | {0, len(text)})
    found = spans(text, [text[a:b] for a, b in pairwise(cuts)])
    assert found == list(pairwise(cuts))


@given(texts, st.data())
def test_tokens_of_bytes_cover_the_text(text: str, data: st.DataObject) -> None:
    """A tokenizer over bytes, each token shown by itself: parts of characters become replacement marks."""
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)))) | {0, len(raw)})
    tokens = [raw[a:b].decode("utf-8", "replace") for a, b in pairwise(cuts)]
    found = spans(text, tokens)
    if found is None:  # marks in a row may leave open where they end; never a wrong answer in silence
        assert sum("\ufffd" in token for token in tokens) > 1
        return
    assert len(found) == len(tokens) and found[0][0] == 0 and found[-1][1] == len(text)
    assert all(start <= end for start, end in found)


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("a b", ["<s>", "a", " b"], [(0, 0), (0, 1), (1, 3)]),  # begin of text
        ("a b", ["<s>", " a", " b"], [(0, 0), (0, 1), (1, 3)]),  # SentencePiece: a space before everything
        ("a b", ["a", "b"], [(0, 1), (1, 3)]),  # a decoder that drops leading spaces
        ("a b\n", ["a", "Ġb", "Ċ"], [(0, 1), (1, 3), (3, 4)]),  # a vocabulary's own writing
        ("x🙂 y", ["x", "\ufffd", "\ufffd", " y"], [(0, 1), (1, 2), (1, 2), (2, 4)]),
        ("x 🙂 y", ["x", " \ufffd", "\ufffd", " y"], [(0, 1), (1, 3), (1, 3), (3, 5)]),
        ("x🙂", ["x", "", "", "🙂"], [(0, 1), (1, 1), (1, 1), (1, 2)]),  # vLLM's way
        ("x🙂", ["x", "\ufffd", "\ufffd"], [(0, 1), (1, 2), (1, 2)]),
        ("ab", ["a", "b", " generated"], [(0, 1), (1, 2)]),
        ("ab", ["a"], None),
        ("ab", ["c", "d"], None),
    ],
)
def test_where_tokens_stand(text: str, tokens: list[str], expected: list[tuple[int, int]] | None) -> None:
    assert spans(text, tokens) == expected


def made(text: str, tokens: list[str], values: list[float | None]) -> Scored:
    return scored(text, {"tokens": tokens, "token_logprobs": values})


def test_a_begin_token_does_not_shift_the_boundary() -> None:
    """The server's own offsets count it: by them, the option would begin within the context."""
    one = {
        "tokens": ["<s>", "Q", ":", " A"],
        "token_logprobs": [None, -1.0, -2.0, -4.0],
        "text_offset": [0, 3, 4, 5],
    }
    found = text_likelihood(scored("Q: A", one), 2)
    assert (found["logprob"], found["tokens"], found["unscored"]) == (-4.0, 1, 0)


def test_offsets_are_taken_where_tokens_do_not_add_up() -> None:
    tokens = {
        "tokens": ["tok_1", "tok_2"],
        "token_logprobs": [None, -3.0],
        "text_offset": [0, 2],
    }
    assert text_likelihood(scored("Q: A", tokens), 2)["logprob"] == -3.0


def test_a_token_over_the_boundary_moves_it_back_for_all_options() -> None:
    """Otherwise one option would be scored without the token that it shares with the context."""
    over = made("the international", ["the", " international"], [None, -5.0])
    plain = made("the inter x", ["the", " inter", " x"], [None, -2.0, -1.0])
    context = len("the inter")
    found = chosen_by_prompts([over, plain], context)
    assert [each["logprob"] for each in found["options"]] == [-5.0, -3.0]
    assert found["moved"] == 6
    alone = chosen_by_prompts([plain, plain], context)
    assert [each["logprob"] for each in alone["options"]] == [-1.0, -1.0] and "moved" not in alone


def test_the_boundary_moves_on_until_it_holds_for_all() -> None:
    first = made("abcdx", ["a", "b", "cdx"], [None, -1.0, -1.0])
    second = made("abcdy", ["a", "bc", "dy"], [None, -1.0, -1.0])
    assert common_boundary([first, second], 4) == 1


def test_the_first_token_of_a_text_is_counted_nowhere() -> None:
    found = text_likelihood(made("Ab cdé f", ["Ab", " cdé", " f"], [None, -2.0, -3.0]), 0)
    assert found == {"logprob": -5.0, "tokens": 2, "bytes": 7, "words": 2, "unscored": 1}


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        {"tokens": ["a"]},
        {"tokens": ["a", "b"], "token_logprobs": [None]},
        {"tokens": ["x", "y"], "token_logprobs": [None, -1.0]},  # another text: the prompt was not echoed
        {"tokens": [1, 2], "token_logprobs": [None, -1.0]},
        {"tokens": [], "token_logprobs": []},
    ],
)
def test_a_server_that_gives_none_is_told_so(logprobs: object) -> None:
    with pytest.raises(ProviderError) as caught:
        scored("ab", logprobs)
    assert caught.value.kind is ErrorKind.BAD_REQUEST


def test_a_missing_value_in_the_middle_is_no_zero() -> None:
    with pytest.raises(ProviderError, match="left a log-probability out"):
        text_likelihood(made("abc", ["a", "b", "c"], [None, None, -1.0]), 0)


def test_one_token_alone_has_no_likelihood() -> None:
    with pytest.raises(ProviderError, match="put something before it"):
        text_likelihood(made("a", ["a"], [None]), 0)


def chat_form(top: dict[str, float]) -> dict[str, object]:
    entries = [{"token": token, "logprob": value} for token, value in top.items()]
    return {"content": [{**entries[0], "top_logprobs": entries}]}


def completions_form(top: dict[str, float]) -> dict[str, object]:
    return {"tokens": [next(iter(top))], "token_logprobs": [next(iter(top.values()))], "top_logprobs": [top]}


@pytest.mark.parametrize("form", [chat_form, completions_form])
def test_first_tokens_add_up_whatever_space_is_before_them(form: object) -> None:
    top = {" Yes": math.log(0.4), "Yes": math.log(0.2), "N": math.log(0.1), "Maybe": math.log(0.05)}
    ask = Ask("choose", via="first_token", options=("Yes", "No", "Perhaps"))
    found = chosen_by_first_token(form(top), ask)["options"]  # type: ignore[operator]
    assert found[0]["logprob"] == pytest.approx(math.log(0.6))
    assert found[1]["logprob"] == pytest.approx(math.log(0.1))  # "N" begins "No" and no other option
    assert found[2]["logprob"] is None


def test_a_token_that_begins_two_options_says_nothing() -> None:
    ask = Ask("choose", via="first_token", options=("Positive", "Possible"))
    found = chosen_by_first_token(chat_form({"Pos": -0.1, "Posit": -3.0}), ask)["options"]
    assert [each["logprob"] for each in found] == [-3.0, None]


def test_without_log_probabilities_there_is_no_first_token() -> None:
    ask = Ask("choose", via="first_token", options=("A", "B"))
    nothing: Any
    for nothing in (None, {}, {"content": []}, {"content": None, "top_logprobs": []}):
        with pytest.raises(ProviderError, match="top_logprobs"):
            chosen_by_first_token(nothing, ask)


@pytest.mark.parametrize(
    "value", [None, [-1.0], [-1.0, "x"], [-1.0, math.inf], {"logprob": 1}, [-1.0, {"logprob": True}]]
)
def test_what_a_function_gives_is_checked(value: object) -> None:
    with pytest.raises(ProviderError) as caught:
        given_likelihood(value, Ask("choose", options=("a", "b")))
    assert caught.value.kind is ErrorKind.APPLICATION


def test_what_a_function_may_give() -> None:
    ask = Ask("choose", options=("a", "b"))
    assert given_likelihood([-1, {"logprob": None}], ask) == {
        "options": [{"logprob": -1, "tokens": None}, {"logprob": None, "tokens": None}]
    }
