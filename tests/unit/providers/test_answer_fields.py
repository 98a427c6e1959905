"""Odd fields beside an answer cost the field, not the answer; what cannot be kept is a protocol error."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.providers.answers import SSEParser, count, load, read_document, whole_text
from evalrun.providers.openai_api import StreamedCompletion, parse_completion
from evalrun.runner.cache import decode_response, encode_response
from evalrun.types import ErrorKind, ProviderError, Response, Timing

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def whole(message: dict[str, Any], **more: Any) -> Response:
    body = {"choices": [{"message": {"content": "42", **message}, "finish_reason": "stop"}], **more}
    return read_document(json.dumps(body).encode(), parse_completion, Timing(1, 2))


def streamed(*chunks: str) -> Response:
    answer, parser = StreamedCompletion(1), SSEParser()
    for chunk in (*chunks, "[DONE]"):
        answer.feed(parser.feed(f"data: {chunk}\n\n".encode()), 2)
    return answer.response()


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (7, 7), (0, 0), ("7", 7), (7.0, 7), (-1, None), (7.5, None), (True, None), ("many", None),
        (None, None), ([], None), (10**30, None), (float("nan"), None), (float("inf"), None),
        ("9" * 40, None), ("²", None),
    ],
)  # fmt: skip
def test_counts_are_whole_numbers_or_unknown(value: Any, known: int | None) -> None:
    found = count(value)
    assert found == known and type(found) is type(known)


@pytest.mark.parametrize("usage", [None, [], "many", 5, {"prompt_tokens": {}, "completion_tokens": "x"}])
def test_a_usage_that_says_nothing_costs_no_answer(usage: Any) -> None:
    for response in (
        whole({}, usage=usage),
        streamed('{"choices": [{"delta": {"content": "42"}}]}', json.dumps({"usage": usage, "choices": []})),
    ):
        assert (response.output, response.prompt_tokens, response.completion_tokens) == ("42", None, None)


@given(st.dictionaries(st.sampled_from(["refusal", "reasoning", "tool_calls"]), ANYTHING), ANYTHING, ANYTHING)
def test_whatever_stands_beside_an_answer_it_can_be_kept(message: Any, usage: Any, odd: Any) -> None:
    try:
        response = whole(message, usage=usage, model=odd, system_fingerprint=odd)
    except ProviderError as error:
        assert error.kind is ErrorKind.PROTOCOL
        return
    again = decode_response(encode_response(response))
    assert again.output == "42" and again.prompt_tokens == response.prompt_tokens
    for text in (response.refusal, response.reasoning, response.model, response.fingerprint):
        assert text is None or isinstance(text, str)


@given(
    st.lists(st.fixed_dictionaries({}, optional={"index": ANYTHING, "id": ANYTHING, "function": ANYTHING}))
)
def test_whatever_pieces_of_tool_calls_come_nothing_breaks(pieces: Any) -> None:
    first = json.dumps({"choices": [{"delta": {"content": "42", "tool_calls": pieces}}]})
    try:
        orjson.dumps(streamed(first).tool_calls)
    except ProviderError as error:
        assert error.kind is ErrorKind.PROTOCOL


def test_arguments_that_come_as_an_object_are_json() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "add", "arguments": {"a": 1}}}
    response = streamed(json.dumps({"choices": [{"delta": {"tool_calls": [call]}}]}))
    assert response.tool_calls[0]["function"] == {"name": "add", "arguments": '{"a":1}'}


def test_a_character_cut_in_two_is_joined_over_chunks() -> None:
    halves = [f'{{"choices": [{{"delta": {{"content": "{half}"}}}}]}}' for half in ("x\\ud83d", "\\ude00y")]
    assert streamed(*halves).output == "x😀y"


def test_half_a_character_becomes_the_replacement_character() -> None:
    assert whole({"content": "x\ud83dy"}).output == "x\ufffdy"
    assert whole({"tool_calls": [{"id": "\ud83d"}]}).tool_calls == [{"id": "\ufffd"}]


@given(st.text(st.characters(codec="utf-16")))
def test_whole_text_stays_as_it_is(text: str) -> None:
    assert whole_text(text) == text


def test_what_is_no_number_is_null_where_it_is_kept() -> None:
    logprobs = b'{"content": [{"logprob": -Infinity}, NaN]}'
    body = b'{"choices": [{"message": {"content": "42"}, "logprobs": %b}]}' % logprobs
    response = read_document(body, parse_completion, Timing(1, 2))
    assert orjson.loads(orjson.dumps(response.logprobs)) == {"content": [{"logprob": None}, None]}


def test_a_byte_order_mark_is_read_over() -> None:
    assert load(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("depth", [300, 900])
def test_what_is_nested_too_deeply_to_be_written_is_a_protocol_error(depth: int) -> None:
    calls = "[" * depth + "]" * depth
    body = f'{{"choices": [{{"message": {{"content": "42", "tool_calls": {calls}}}}}]}}'
    with pytest.raises(ProviderError, match="nested too deeply") as caught:
        read_document(body.encode(), parse_completion, Timing(1, 2))
    assert caught.value.kind is ErrorKind.PROTOCOL


@pytest.mark.parametrize("data", [b"[" * 100_000, b"{", b"\xff\xfe", b"", b"nul"])
def test_what_is_no_json_stays_none(data: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        load(data)
