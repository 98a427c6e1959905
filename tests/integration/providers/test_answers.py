from __future__ import annotations

from typing import Any

import orjson
import pytest

from evalrun.providers.answers import read_document
from evalrun.providers.openai_api import StreamedCompletion, parse_completion
from evalrun.types import ErrorKind, ProviderError, Response, Timing


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more}


def stream(*chunks: Any) -> Response:
    """Chunk i (from 1) arrives at 100 i ns; the request was sent at 0."""
    answer = StreamedCompletion(0)
    for number, each in enumerate(chunks, 1):
        payload = each if isinstance(each, bytes) else orjson.dumps(each)
        answer.feed([(payload, b"")], number * 100)
    return answer.response()


def whole(message: Any, **more: Any) -> Response:
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **more}
    return read_document(orjson.dumps(body), parse_completion, Timing(10, 20))


def test_first_and_last_are_chunks_with_content_and_nothing_else() -> None:
    answer = stream(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "a"}),
        chunk({"content": "b"}),
        chunk({"content": ""}),
        chunk({}, "stop"),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
        b"[DONE]",
    )
    assert answer.timing is not None
    assert (answer.timing.first_ns, answer.timing.last_ns, answer.timing.chunks) == (200, 300, 2)
    assert (answer.output, answer.finish_reason) == ("ab", "stop")
    assert (answer.prompt_tokens, answer.completion_tokens) == (3, 2)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_kept_apart_and_counts_as_first_content(field: str) -> None:
    answer = stream(chunk({field: "hm"}), chunk({"content": "4"}), chunk({}, "stop"))
    assert (answer.output, answer.reasoning) == ("4", "hm")
    assert answer.timing is not None and answer.timing.first_ns == 100 and answer.timing.chunks == 2


def test_tool_calls_are_joined_over_chunks_by_index() -> None:
    def call(index: int, **function: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, "function": function}]}

    first = {"tool_calls": [{"index": 0, "id": "c0", "type": "function", "function": {"name": "add"}}]}
    answer = stream(
        chunk(first),
        chunk(call(1, name="mul", arguments="{}")),
        chunk(call(0, arguments='{"a"')),
        chunk(call(0, arguments=":1}")),
        chunk({}, "tool_calls"),
    )
    assert [c["function"] for c in answer.tool_calls] == [
        {"name": "add", "arguments": '{"a":1}'},
        {"name": "mul", "arguments": "{}"},
    ]
    assert answer.tool_calls[0]["id"] == "c0" and answer.output == ""
    assert answer.timing is not None and answer.timing.first_ns == 100


def test_refusal_and_content_filter() -> None:
    answer = stream(chunk({"refusal": "I "}), chunk({"refusal": "cannot"}), chunk({}, "content_filter"))
    assert (answer.refusal, answer.finish_reason, answer.output) == ("I cannot", "content_filter", "")


def test_first_chunk_tokens_where_usage_comes_with_every_chunk() -> None:
    answer = stream(
        chunk({"content": "ab"}, usage={"completion_tokens": 2}),
        chunk({"content": "c"}, "stop", usage={"completion_tokens": 3}),
    )
    assert answer.timing is not None and answer.timing.first_chunk_tokens == 2
    assert answer.completion_tokens == 3


def test_first_chunk_tokens_unknown_where_the_only_chunk_is_the_last() -> None:
    answer = stream(chunk({"content": "abc"}, "stop", usage={"completion_tokens": 3}))
    assert answer.timing is not None and answer.timing.first_chunk_tokens is None


def test_an_empty_answer_has_no_first_content_and_ends_when_the_server_says_so() -> None:
    answer = stream(chunk({"role": "assistant"}), chunk({}, "stop"), {"choices": [], "usage": {}}, b"[DONE]")
    assert answer.output == "" and answer.timing is not None
    assert (answer.timing.first_ns, answer.timing.last_ns, answer.timing.chunks) == (None, 200, 0)


def test_only_done_is_an_empty_answer_with_a_time() -> None:
    answer = stream(b"[DONE]")
    assert answer.output == "" and answer.timing is not None and answer.timing.last_ns == 100


def test_completion_chunks_carry_text() -> None:
    answer = stream(
        {"choices": [{"text": "a", "index": 0, "finish_reason": None}]},
        {"choices": [{"text": "b", "index": 0, "finish_reason": "length"}]},
    )
    assert (answer.output, answer.finish_reason) == ("ab", "length")


def test_second_choices_are_left_out() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "X"}}]}
    assert stream(chunk({"content": "a"}), other, chunk({}, "stop")).output == "a"


def test_logprobs_are_collected() -> None:
    def with_logprobs(text: str) -> dict[str, Any]:
        choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": [{"token": text}]}}
        return {"choices": [choice]}

    answer = stream(with_logprobs("a"), with_logprobs("b"), chunk({}, "stop"))
    assert answer.logprobs == {"content": [{"token": "a"}, {"token": "b"}]}


def test_a_stream_without_its_end_is_truncated() -> None:
    with pytest.raises(ProviderError) as caught:
        stream(chunk({"content": "a"}))
    assert caught.value.kind is ErrorKind.TRUNCATED


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "overloaded", "code": 503}, ErrorKind.SERVER),
        ({"message": "slow down", "code": "429"}, ErrorKind.RATE_LIMIT),
        ({"message": "bad", "code": 400, "type": "BadRequestError"}, ErrorKind.BAD_REQUEST),
        ({"message": "too long", "type": "exceed_context_size_error"}, ErrorKind.BAD_REQUEST),
        ({"message": "slow", "code": "rate_limit_exceeded"}, ErrorKind.RATE_LIMIT),
        ("exploded", ErrorKind.SERVER),
    ],
)
def test_an_error_in_the_stream_is_that_error(error: Any, kind: ErrorKind) -> None:
    with pytest.raises(ProviderError) as caught:
        stream(chunk({"content": "a"}), {"error": error})
    assert caught.value.kind is kind
    text = error if isinstance(error, str) else error["message"]
    assert caught.value.message == text


def test_error_events_of_any_form() -> None:
    answer = StreamedCompletion(0)
    for data in (b"engine died", b'{"message": "engine died"}', b'{"error": {"message": "engine died"}}'):
        with pytest.raises(ProviderError, match="engine died"):
            answer.feed([(data, b"error")], 1)


@pytest.mark.parametrize("data", [b"{not json", b"[1]", b'{"choices": [7]}', b'{"choices": [{"delta": 7}]}'])
def test_broken_chunks_are_protocol_errors(data: bytes) -> None:
    with pytest.raises(ProviderError) as caught:
        stream(data)
    assert caught.value.kind is ErrorKind.PROTOCOL


def test_a_whole_answer_with_everything() -> None:
    answer = whole(
        {"content": "hi", "reasoning_content": "hm", "refusal": None},
        usage={"prompt_tokens": 1, "completion_tokens": 2},
        model="m-1",
        system_fingerprint="fp",
    )
    assert (answer.output, answer.reasoning, answer.model, answer.fingerprint) == ("hi", "hm", "m-1", "fp")
    assert answer.timing is not None
    assert (answer.timing.sent_ns, answer.timing.last_ns, answer.timing.first_ns) == (10, 20, None)


def test_null_content_is_an_empty_output() -> None:
    assert whole({"content": None}).output == ""
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    answer = whole({"content": None, "tool_calls": calls})
    assert (answer.output, answer.tool_calls) == ("", calls)


def test_content_parts_are_joined() -> None:
    parts = [
        {"type": "thinking", "thinking": []},
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
        {"type": "text", "text": None},
        "c",
    ]
    assert whole({"content": parts}).output == "abc"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":[{}]}',
        b'{"choices":[{"message":{"content":5}}]}',
    ],
)
def test_bodies_that_are_no_completion_are_protocol_errors(body: bytes) -> None:
    with pytest.raises(ProviderError) as caught:
        read_document(body, parse_completion, Timing(0, 1))
    assert caught.value.kind is ErrorKind.PROTOCOL


def test_an_error_in_the_body_of_a_good_status() -> None:
    with pytest.raises(ProviderError, match="no such key") as caught:
        read_document(b'{"error":{"message":"no such key","code":401}}', parse_completion, Timing(0, 1))
    assert caught.value.kind is ErrorKind.AUTH
