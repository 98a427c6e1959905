"""Answers in shapes that servers are known to send: read as what they are, or failed, never cut or mixed."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from evalrun.providers.answers import read_document
from evalrun.providers.openai_api import StreamedCompletion, parse_completion
from evalrun.types import ErrorKind, ProviderError, Response, Timing


def chunk(delta: Any = None, finish: str | None = None, index: int = 0, key: str = "delta") -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": index, key: delta or {}, "finish_reason": finish}]}


def stream(*chunks: Any) -> Response:
    """Chunk i (from 1) arrives at 100 i ns; the request was sent at 0."""
    answer = StreamedCompletion(0)
    for number, each in enumerate(chunks, 1):
        answer.feed([(each if isinstance(each, bytes) else orjson.dumps(each), b"")], number * 100)
    return answer.response()


def call(
    index: int | None, name: str | None = None, arguments: str | None = None, **more: Any
) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    place = {} if index is None else {"index": index}
    return chunk({"tool_calls": [{**place, "function": function, **more}]})


def calls(*chunks: Any) -> list[tuple[str, str]]:
    answer = stream(*chunks, chunk({}, "tool_calls"))
    return [(each["function"]["name"], each["function"]["arguments"]) for each in answer.tool_calls]


def test_two_calls_with_one_index_are_two() -> None:
    assert calls(
        call(0, "add", '{"a":1}', id="c1"), call(0, "mul", "", id="c2"), call(0, None, '{"b":2}')
    ) == [("add", '{"a":1}'), ("mul", '{"b":2}')]


def test_one_function_called_twice_under_one_index_is_called_twice() -> None:
    pieces = [call(0, "add", '{"a":', id="c1"), call(0, None, "1}"), call(0, "add", '{"a":2}', id="c2")]
    assert calls(*pieces) == [("add", '{"a":1}'), ("add", '{"a":2}')]


def test_another_name_behind_whole_arguments_is_another_call() -> None:
    assert calls(call(0, "add", "{}"), call(0, "mul", "{}")) == [("add", "{}"), ("mul", "{}")]


def test_a_name_in_parts_or_repeated_or_ids_that_change_are_one_call() -> None:
    assert calls(call(0, "get_", id="c"), call(0, "weather"), call(0, None, "{}")) == [("get_weather", "{}")]
    assert calls(call(0, "add", '{"a"', id="c"), call(0, "add", ":1}", id="c")) == [("add", '{"a":1}')]
    assert calls(call(0, "add", '{"a"', id="x"), call(0, None, ":1}", id="y")) == [("add", '{"a":1}')]
    assert calls(call(0, "add", '{"a"', id="x"), call(0, "add", ":1}", id="y")) == [("add", '{"a":1}')]


def test_calls_without_an_index() -> None:
    assert calls(call(None, "add", "{}", id="x"), call(None, "add", "{}", id="y")) == [("add", "{}")] * 2
    assert calls(call(None, "add", '{"a"', id="x"), call(None, None, ":1}", id="x")) == [("add", '{"a":1}')]
    assert calls(call(None, "add", '{"a"', id="x"), call(None, None, ":1}")) == [("add", '{"a":1}')]


def test_calls_stand_in_the_order_of_their_indexes() -> None:
    assert calls(call(1, "b", "{}"), call(0, "a", "{}")) == [("a", "{}"), ("b", "{}")]


def test_times_between_chunks_are_those_of_content() -> None:
    """Also the empty first chunk and the usage at the end take time, and are no chunks of the answer."""
    answer = StreamedCompletion(0)
    empty, text, end = chunk({"content": ""}), chunk({"content": "4"}), chunk({}, "stop")
    for milliseconds, chunks in ((5, [empty]), (20, [text]), (50, [text, text]), (53, [text]), (99, [end])):
        answer.feed([(orjson.dumps(each), b"") for each in chunks], milliseconds * 1_000_000)
    timing = answer.response().timing
    assert timing is not None and timing.gaps == [30_000, 0, 3_000]
    assert (timing.first_ns, timing.last_ns, timing.chunks) == (20_000_000, 53_000_000, 4)


def test_one_chunk_or_one_moment_leaves_no_time_between_chunks() -> None:
    text, end = orjson.dumps(chunk({"content": "4"})), orjson.dumps(chunk({}, "stop"))
    for texts in (1, 3):
        answer = StreamedCompletion(0)
        answer.feed([*[(text, b"")] * texts, (end, b"")], 100_000)
        timing = answer.response().timing
        assert timing is not None and timing.gaps is None and timing.chunks == texts


def test_what_follows_the_end_is_no_part_of_the_answer() -> None:
    answer = StreamedCompletion(0)
    late = orjson.dumps(chunk({"content": "late"}))
    answer.feed([(orjson.dumps(chunk({"content": "42"})), b""), (b"[DONE]", b""), (late, b"")], 100)
    assert answer.done and answer.response().output == "42"


def test_whole_messages_in_place_of_deltas() -> None:
    answer = stream(chunk({"content": "4"}, key="message"), chunk({"content": "2"}, "stop", key="message"))
    assert answer.output == "42"


def test_the_only_choice_is_read_whatever_its_index() -> None:
    assert stream(chunk({"content": "42"}, index=1), chunk({}, "stop", index=1)).output == "42"


def test_of_several_choices_the_first_is_read_whenever_it_comes() -> None:
    answer = stream(
        chunk({"content": "no"}, index=1),
        chunk({}, "length", index=1),
        chunk({"content": "4"}),
        chunk({"content": "no"}, index=1),
        chunk({"content": "2"}),
        chunk({}, "stop"),
    )
    assert (answer.output, answer.finish_reason) == ("42", "stop")
    assert answer.timing is not None and answer.timing.first_ns == 300 and answer.timing.chunks == 2


def test_several_choices_in_one_chunk() -> None:
    both = {
        "choices": [
            chunk({"content": text}, "stop", index=index)["choices"][0] for index, text in enumerate("ab")
        ]
    }
    assert stream(both).output == "a"
    both["choices"].reverse()
    assert stream(both).output == "a"
    assert whole_document(both).output == "a"


def whole_document(document: Any) -> Response:
    return read_document(orjson.dumps(document), parse_completion, Timing(10, 20))


def whole(message: Any) -> Response:
    return whole_document({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


THOUGHTS: list[dict[str, Any]] = [
    {"reasoning_content": "hm"},
    {"reasoning": "hm"},
    {"reasoning_text": "hm"},
    {"thinking": "hm"},
    {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
    {"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]},
    {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
    {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
    {"content": [{"type": "thinking", "thinking": "hm"}]},
    {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
    {"content": [{"type": "reasoning", "text": "hm"}]},
]


@pytest.mark.parametrize("thought", THOUGHTS, ids=json.dumps)
def test_thinking_is_kept_apart_and_the_first_token_is_its(thought: dict[str, Any]) -> None:
    answer = stream(
        chunk({"role": "assistant", "content": ""}), chunk(thought), chunk({"content": "4"}, "stop")
    )
    assert (answer.output, answer.reasoning) == ("4", "hm")
    assert answer.timing is not None and answer.timing.first_ns == 200
    content = [*thought.get("content", ()), {"type": "text", "text": "4"}]
    answer = whole({**thought, "content": content})
    assert (answer.output, answer.reasoning) == ("4", "hm")


def test_encrypted_thinking_is_none() -> None:
    details = [{"type": "reasoning.encrypted", "data": "AAAA"}]
    assert whole({"content": "4", "reasoning_details": details}).reasoning is None


ERROR = {"code": 502, "message": "the upstream broke"}


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        ({"finish_reason": "error", "error": ERROR}, ErrorKind.SERVER),
        ({"finish_reason": "error", "error": {"code": 400, "message": "no"}}, ErrorKind.BAD_REQUEST),
        ({"finish_reason": "stop", "error": ERROR}, ErrorKind.SERVER),
        ({"error": {"code": 429, "message": "slow down"}}, ErrorKind.RATE_LIMIT),
        ({"finish_reason": "error"}, ErrorKind.SERVER),
        ({"finish_reason": "ERROR"}, ErrorKind.SERVER),
        ({"finish_reason": "network_error"}, ErrorKind.SERVER),
        ({"finish_reason": "insufficient_system_resource"}, ErrorKind.SERVER),
        ({"finish_reason": "abort"}, ErrorKind.SERVER),
    ],
)
def test_an_answer_that_its_choice_says_broke_off_is_none(end: dict[str, Any], kind: ErrorKind) -> None:
    part = {"content": "the answer is 4"}
    with pytest.raises(ProviderError) as caught:
        whole_document({"choices": [{"index": 0, "message": part, **end}]})
    assert caught.value.kind is kind
    with pytest.raises(ProviderError) as caught:
        stream(chunk(part), {"choices": [{"index": 0, "delta": {"content": ""}, **end}]}, b"[DONE]")
    assert caught.value.kind is kind


def test_no_error_is_none() -> None:
    document = {"error": None, "choices": [{"index": 0, "error": None, "message": {"content": "4"}}]}
    assert whole_document(document).output == "4"


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 8}}, (10, 8)),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 0}}, (10, 0)),
        ({"prompt_tokens": 10, "prompt_tokens_details": None}, (10, None)),
        ({"prompt_tokens": 10, "cache_read_input_tokens": 8, "cache_creation_input_tokens": 1}, (10, 8)),
        ({"prompt_tokens": 2, "cache_read_input_tokens": 8}, (10, 8)),
        ({"prompt_tokens": 10, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 2}, (10, 8)),
        ({"prompt_tokens": 10, "cached_tokens": 8}, (10, 8)),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": "many"}}, (10, None)),
        ({"prompt_tokens": 10, "prompt_tokens_details": [8]}, (10, None)),
        ({}, (None, None)),
    ],
)
def test_prompt_tokens_that_were_in_the_providers_cache(usage: dict[str, Any], counts: Any) -> None:
    message = {"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}], "usage": usage}
    answer = whole_document(message)
    assert (answer.prompt_tokens, answer.cached_prompt_tokens) == counts
    answer = stream(chunk({"content": "4"}, "stop"), {"choices": [], "usage": usage})
    assert (answer.prompt_tokens, answer.cached_prompt_tokens) == counts
