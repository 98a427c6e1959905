"""The wire as a server sees it, and what becomes of its answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import orjson
import pytest
from aiohttp import web

from evalrun.types import ErrorKind, ProviderError

GOOD = {
    "model": "m-2026",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "42"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1},
}


def fails(status: int, body: Any = b"", **headers: str) -> Callable[[web.Request], Any]:
    async def handler(request: web.Request) -> web.Response:
        text = body if isinstance(body, bytes) else orjson.dumps(body)
        kind = headers.pop("content_type", "application/json")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=text, headers=named, content_type=kind)

    return handler


async def caught(provider: Any, request: Any) -> ProviderError:
    with pytest.raises(ProviderError) as info:
        await asyncio.wait_for(provider.generate(request), 5)
    return info.value


async def test_what_is_sent_and_what_comes_back(
    serve: Any, provider_for: Any, ask: Any, monkeypatch: Any
) -> None:
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((dict(request.headers), await request.json()))
        return web.json_response(GOOD)

    monkeypatch.setenv("TEST_KEY_NAME", "k-123\n")
    base_url = await serve(handler)
    provider = provider_for(base_url, api_key_env="TEST_KEY_NAME", extra_body={"top_k": 3})
    before = time.perf_counter_ns()
    answer = await provider.generate(ask("héllo \U0001f600", temperature=0, stop=["x"]))
    headers, body = seen[0]
    assert body == {
        "model": "m",
        "temperature": 0,
        "stop": ["x"],
        "top_k": 3,
        "messages": [{"role": "user", "content": "héllo \U0001f600"}],
    }
    assert headers["Authorization"] == "Bearer k-123" and headers["Content-Type"] == "application/json"
    assert (answer.output, answer.model, answer.prompt_tokens, answer.completion_tokens) == (
        "42",
        "m-2026",
        5,
        1,
    )
    assert before <= answer.timing.sent_ns < answer.timing.last_ns <= time.perf_counter_ns()
    assert answer.timing.first_ns is None


async def test_params_of_each_request_are_its_own(serve: Any, provider_for: Any, ask: Any) -> None:
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return web.json_response(GOOD)

    provider = provider_for(await serve(handler))
    for seed in range(200):  # more than the prepared bodies that are kept, each a new object
        await provider.generate(ask(seed=seed))
    assert [body["seed"] for body in seen] == list(range(200))


async def test_completions_send_the_raw_text(serve: Any, provider_for: Any, ask: Any) -> None:
    async def handler(request: web.Request) -> web.Response:
        body = await request.json()
        return web.json_response({"choices": [{"text": body["prompt"].upper(), "finish_reason": "stop"}]})

    provider = provider_for(await serve(handler, "/v1/completions"), api="completions")
    assert (await provider.generate(ask("abc", raw=True))).output == "ABC"
    error = await caught(provider, ask("abc"))
    assert error.kind is ErrorKind.BAD_REQUEST and "chat messages cannot be sent" in error.message


async def test_a_text_prompt_for_a_chat_is_refused_before_sending(provider_for: Any, ask: Any) -> None:
    error = await caught(provider_for("http://127.0.0.1:9/v1"), ask("abc", raw=True))
    assert error.kind is ErrorKind.BAD_REQUEST and "needs api: completions" in error.message


async def test_text_that_is_no_unicode_is_a_bad_request(provider_for: Any, ask: Any) -> None:
    error = await caught(provider_for("http://127.0.0.1:9/v1"), ask("\ud800"))
    assert error.kind is ErrorKind.BAD_REQUEST


def sse(*payloads: Any) -> list[bytes]:
    return [b"data: " + (p if isinstance(p, bytes) else orjson.dumps(p)) + b"\n\n" for p in payloads]


def delta(content: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]}


def streams(
    pieces: list[bytes], pause_s: float = 0.0, written_ns: list[int] | None = None
) -> Callable[[web.Request], Any]:
    """Streams the pieces; `written_ns` gets the moment before each."""

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for piece in pieces:
            if written_ns is not None:
                written_ns.append(time.perf_counter_ns())
            await answer.write(piece)
            await asyncio.sleep(pause_s)
        await answer.write_eof()
        return answer

    return handler


async def test_a_stream_is_timed_by_its_content_chunks(serve: Any, provider_for: Any, ask: Any) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}
    role = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    pieces = sse(role, delta("a"), delta("b"), delta("", "stop"), usage, b"[DONE]")
    written: list[int] = []
    provider = provider_for(await serve(streams(pieces, 0.05, written)))
    answer = await provider.generate(ask(stream=True))
    timing = answer.timing
    assert (answer.output, timing.chunks, answer.completion_tokens) == ("ab", 2, 2)
    role_ns, a_ns, b_ns, stop_ns, *_ = written
    # One event loop serves and asks: what was written is read before the server's next pause is over.
    assert timing.sent_ns <= role_ns < a_ns <= timing.first_ns <= b_ns
    assert b_ns <= timing.last_ns <= stop_ns, "not the chunks of the end and of the usage"


async def test_usage_is_asked_for_when_streaming(serve: Any, provider_for: Any, ask: Any) -> None:
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(await request.json())
        return await streams(sse(delta("a", "stop"), b"[DONE]"))(request)

    base_url = await serve(handler)
    await provider_for(base_url).generate(ask(stream=True, max_tokens=1))
    await provider_for(base_url, include_usage=False).generate(ask(stream=True))
    assert seen[0]["stream"] is True and seen[0]["stream_options"] == {"include_usage": True}
    assert "stream_options" not in seen[1]


async def test_chunks_cut_anywhere_are_joined(serve: Any, provider_for: Any, ask: Any) -> None:
    whole = b"".join(sse(delta("zwölf"), delta(" Äpfel", "stop"), b"[DONE]")).replace(b"\n", b"\r\n")
    pieces = [whole[i : i + 3] for i in range(0, len(whole), 3)]
    answer = await provider_for(await serve(streams(pieces))).generate(ask(stream=True))
    assert answer.output == "zwölf Äpfel"


async def test_a_server_that_does_not_stream_is_understood(serve: Any, provider_for: Any, ask: Any) -> None:
    answer = await provider_for(await serve(fails(200, GOOD))).generate(ask(stream=True))
    assert answer.output == "42" and answer.timing.first_ns is None


async def test_connections_are_used_again_after_streams_and_errors(
    serve: Any, provider_for: Any, ask: Any
) -> None:
    peers: set[Any] = set()
    count = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        if count == 3:
            return web.json_response({"error": "x"}, status=429)
        return await streams(sse(delta("a", "stop"), b"[DONE]"))(request)

    provider = provider_for(await serve(handler))
    for number in range(6):
        if number == 2:
            await caught(provider, ask(stream=True))
        else:
            await provider.generate(ask(stream=True))
    assert len(peers) == 1


async def test_a_llama_cpp_server_gets_one_request_a_connection(
    serve_bytes: Any, provider_for: Any, ask: Any
) -> None:
    """It hangs up after each stream and does not say so, as this server does."""
    listing = (
        b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Length: 22\r\n\r\n"
        + b'{"data":[{"id":"one"}]}'[:22]
    )
    provider = provider_for(await serve_bytes(listing), model="m")
    await provider.start()
    assert provider.client.session().headers["Connection"] == "close"
    assert provider.model == "m"


async def test_connections_are_let_go_of_before_servers_drop_them(provider_for: Any) -> None:
    connector = provider_for("http://127.0.0.1:9/v1").client.session().connector
    assert connector is not None and connector._keepalive_timeout < 5  # what uvicorn and cpp-httplib wait


async def test_a_stream_that_never_closes_after_done_is_an_answer(
    serve: Any, provider_for: Any, ask: Any
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b"".join(sse(delta("a", "stop"), b"[DONE]")))
        await asyncio.sleep(30)
        return answer

    provider = provider_for(await serve(handler))
    assert (await asyncio.wait_for(provider.generate(ask(stream=True)), 5)).output == "a"


async def test_cancelling_closes_the_connection(serve: Any, provider_for: Any, ask: Any) -> None:
    gone = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b"".join(sse(delta("a"))))
                await asyncio.sleep(0.02)
        except (ConnectionError, asyncio.CancelledError):
            gone.set()
            raise

    provider = provider_for(await serve(handler))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await provider.generate(ask(stream=True))
    await asyncio.wait_for(gone.wait(), 2)
    connector = provider.client.session().connector
    assert connector is not None and not connector._acquired  # nothing leaked


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ErrorKind.BAD_REQUEST),
        (401, ErrorKind.AUTH),
        (403, ErrorKind.AUTH),
        (404, ErrorKind.NOT_FOUND),
        (408, ErrorKind.TIMEOUT),
        (422, ErrorKind.BAD_REQUEST),
        (429, ErrorKind.RATE_LIMIT),
        (500, ErrorKind.SERVER),
        (502, ErrorKind.SERVER),
        (503, ErrorKind.SERVER),
        (504, ErrorKind.TIMEOUT),
        (529, ErrorKind.SERVER),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_statuses(
    serve: Any, provider_for: Any, ask: Any, status: int, kind: ErrorKind, stream: bool
) -> None:
    provider = provider_for(await serve(fails(status, {"error": {"message": "because"}})))
    error = await caught(provider, ask(stream=stream))
    assert (error.kind, error.http_status, error.message) == (kind, status, f"HTTP {status}: because")


@pytest.mark.parametrize(
    ("name", "value", "least", "most"),
    [
        ("Retry-After", "2.5", 2.5, 2.5),
        ("Retry-After", 3600, 3500, 3600),
        ("Retry-After", -3600, 0, 0),
        ("retry-after-ms", "150", 0.15, 0.15),
    ],
)
async def test_retry_after(
    serve: Any, provider_for: Any, ask: Any, name: str, value: str | int, least: float, most: float
) -> None:
    if isinstance(value, int):  # a date so many seconds from now, not from when the tests were collected
        value = formatdate(time.time() + value, usegmt=True)
    error = await caught(provider_for(await serve(fails(429, {}, **{name: value}))), ask())
    assert error.retry_after_s is not None and least <= error.retry_after_s <= most


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf", ""])
async def test_retry_after_that_cannot_be_read(serve: Any, provider_for: Any, ask: Any, value: str) -> None:
    error = await caught(provider_for(await serve(fails(429, {}, Retry_After=value))), ask())
    assert error.retry_after_s is None


async def test_a_web_page_as_error_gives_its_title(serve: Any, provider_for: Any, ask: Any) -> None:
    page = b"<html><head><title>502 Bad\nGateway</title></head><body><h1>nginx</h1></body></html>"
    error = await caught(provider_for(await serve(fails(502, page, content_type="text/html"))), ask())
    assert error.message == "HTTP 502: 502 Bad Gateway"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_web_page_as_answer_is_a_protocol_error(
    serve: Any, provider_for: Any, ask: Any, stream: bool
) -> None:
    page = b"<html><body>log in</body></html>"
    error = await caught(
        provider_for(await serve(fails(200, page, content_type="text/html"))), ask(stream=stream)
    )
    assert error.kind is ErrorKind.PROTOCOL


async def test_a_redirect_says_where_to(serve: Any, provider_for: Any, ask: Any) -> None:
    error = await caught(provider_for(await serve(fails(307, b"", Location="http://other/v1"))), ask())
    assert error.kind is ErrorKind.BAD_REQUEST and "http://other/v1" in error.message


async def test_messages_are_scrubbed_and_short(serve: Any, provider_for: Any, ask: Any) -> None:
    secret = "sk-" + "a1B2c3D4" * 5
    body = {"error": {"message": f"Incorrect API key provided: {secret}. " + "x" * 5000}}
    error = await caught(provider_for(await serve(fails(401, body))), ask())
    assert secret not in error.message and len(error.message) <= 300


async def test_a_key_of_any_look_is_not_repeated(
    serve: Any, provider_for: Any, ask: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("EVALRUN_TEST_PLAIN", "plain-words-as-pass")
    body = {"error": {"message": "plain-words-as-pass is not known"}}
    provider = provider_for(await serve(fails(401, body)), api_key_env="EVALRUN_TEST_PLAIN")
    assert (await caught(provider, ask())).message == "HTTP 401: *** is not known"


async def test_a_broken_chunk_in_a_stream(serve: Any, provider_for: Any, ask: Any) -> None:
    provider = provider_for(await serve(streams([*sse(delta("a")), b"data: {oops\n\n"])))
    assert (await caught(provider, ask(stream=True))).kind is ErrorKind.PROTOCOL


@pytest.mark.parametrize("tail", [b"", b'data: {"choices":[{"delta":{"conte'])
async def test_a_stream_that_stops_without_its_end(
    serve: Any, provider_for: Any, ask: Any, tail: bytes
) -> None:
    provider = provider_for(await serve(streams([*sse(delta("a")), tail] if tail else sse(delta("a")))))
    assert (await caught(provider, ask(stream=True))).kind is ErrorKind.TRUNCATED
