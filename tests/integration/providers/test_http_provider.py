"""Providers for other APIs than OpenAI's: the one of docs/extending.md, and one that streams JSON lines."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from evalrun.providers.answers import StreamedAnswer
from evalrun.providers.base import ProviderContext
from evalrun.providers.http_provider import ServerOptions, ServerProvider
from evalrun.suite.components import ModelSpec
from evalrun.types import JSON, ErrorKind, Message, ProviderError, Request, Response, Timing

PAGE = Path(__file__).parents[3] / "docs" / "extending.md"
USAGE = {"input_tokens": 12, "output_tokens": 2}
Behaviour = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


class Chat(ServerProvider[ServerOptions]):
    """The native API of Ollama: streams are JSON lines."""

    summary = "a server with an /api/chat"
    supports = frozenset({"chat", "stream"})
    path = "api/chat"

    class Stream(StreamedAnswer):
        def take(self, chunk: JSON) -> bool:
            self.text.append(chunk["message"]["content"])
            if chunk["done"]:
                self.done, self.completion_tokens = True, chunk["eval_count"]
            return bool(self.text[-1])

    def payload(self, request: Request) -> dict[str, JSON]:
        return {"model": self.model, "messages": request.messages, "options": request.params, "stream": True}

    def parse(self, document: JSON, timing: Timing) -> Response:
        return Response(document["message"]["content"], timing=timing)


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> type[ServerProvider[ServerOptions]]:
    """The provider that the page shows, from its very text."""
    folder = tmp_path_factory.mktemp("shown")
    shown = PAGE.read_text().partition("```python\n# my_package/messages.py\n")[2].partition("```")[0]
    (folder / "shown_messages.py").write_text(shown)
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module("shown_messages")
    finally:
        sys.path.remove(str(folder))
    found: type[ServerProvider[ServerOptions]] = module.Messages
    return found


class Server:
    """Answers every POST by `behaviour`, and remembers path, headers and body of each."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any, dict[str, Any]]] = []
        self.behaviour: Behaviour
        self.base_url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append((request.path, request.headers, body))
        return await self.behaviour(request, body)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made, app = Server(), web.Application()
    app.router.add_post("/{path:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield made
    await runner.cleanup()


async def stream(request: web.Request, kind: str, *pieces: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": kind})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    return response


def event(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode()


async def speaks_messages(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    if not body["stream"]:
        content = [{"type": "text", "text": "42"}]
        answer = {"model": "m-1", "content": content, "stop_reason": "end_turn", "usage": USAGE}
        return web.json_response(answer)
    deltas = [{"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}} for text in "42"]
    events = [
        {"type": "message_start", "message": {"model": "m-1", "usage": {"input_tokens": 12}}},
        {"type": "ping"},
        *deltas,
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    return await stream(request, "text/event-stream", *map(event, events))


def made(kind: type[ServerProvider[Any]], server: Server, folder: Path, **keys: Any) -> ServerProvider[Any]:
    options = ServerOptions.model_validate({"base_url": server.base_url, **keys})
    spec = ModelSpec.model_validate({"id": "m", "provider": "x", "model": "m-1", "options": options})
    return kind(spec, ProviderContext(folder, folder))


def ask(streamed: bool) -> Request:
    turns = (Message("system", "Be brief."), Message("user", "6 x 7?"))
    return Request("s1", 0, turns, None, {"temperature": 0}, {}, streamed)


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_provider_of_the_page_speaks_its_api(
    messages: Any, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    monkeypatch.setenv("MESSAGES_KEY", "key-of-the-test")
    server.behaviour = speaks_messages
    provider = made(messages, server, tmp_path, api_key_env="MESSAGES_KEY", extra_body={"top_k": 3})
    await provider.start()
    answer = await provider.generate(ask(streamed))
    await provider.close()
    path, headers, body = server.seen[-1]
    assert (path, headers["x-api-key"]) == ("/v1/messages", "key-of-the-test")
    expected = {"model": "m-1", "max_tokens": 1024, "temperature": 0, "stream": streamed, "top_k": 3}
    user = [{"role": "user", "content": "6 x 7?"}]
    assert body == {**expected, "system": "Be brief.", "messages": user}
    assert (answer.output, answer.finish_reason, answer.model) == ("42", "end_turn", "m-1")
    assert (answer.prompt_tokens, answer.completion_tokens) == (12, 2)
    timing = answer.timing
    assert timing is not None and timing.chunks == (2 if streamed else 0)
    first = timing.first_ns if streamed else timing.last_ns
    assert first is not None and timing.sent_ns < first <= timing.last_ns
    assert "key-of-the-test" not in str(provider.identity())


async def test_an_error_in_its_stream_is_one(messages: Any, server: Server, tmp_path: Path) -> None:
    async def overloaded(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        error = {"type": "error", "error": {"type": "rate_limit_error", "message": "too many"}}
        return await stream(request, "text/event-stream", event(error))

    server.behaviour = overloaded
    provider = made(messages, server, tmp_path)
    with pytest.raises(ProviderError, match="too many") as caught:
        await provider.generate(ask(True))
    await provider.close()
    assert caught.value.kind is ErrorKind.RATE_LIMIT


@pytest.mark.parametrize("answer", [{"content": []}, {"content": [{"type": "text", "text": "4"}]}, {}])
async def test_an_answer_of_another_form_is_a_protocol_error(
    messages: Any, server: Server, tmp_path: Path, answer: dict[str, Any]
) -> None:
    async def odd(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response(answer)

    server.behaviour = odd
    provider = made(messages, server, tmp_path)
    with pytest.raises(ProviderError, match="not of the expected form") as caught:
        await provider.generate(ask(False))
    await provider.close()
    assert caught.value.kind is ErrorKind.PROTOCOL


def line(text: str, **more: Any) -> bytes:
    return json.dumps({"message": {"content": text}, "done": False, **more}).encode() + b"\n"


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_stream_of_json_lines_is_read_however_it_is_cut(
    server: Server, tmp_path: Path, size: int
) -> None:
    whole = line("4") + line("2") + line("", done=True, eval_count=2)

    async def lines(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        return await stream(request, "application/x-ndjson; charset=utf-8", *pieces)

    server.behaviour = lines
    provider = made(Chat, server, tmp_path)
    answer = await provider.generate(ask(True))
    await provider.close()
    assert (answer.output, answer.completion_tokens) == ("42", 2)
    assert answer.timing is not None and answer.timing.chunks == 2


async def test_json_lines_that_are_cut_are_no_answer(server: Server, tmp_path: Path) -> None:
    async def lines(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return await stream(request, "application/x-ndjson", line("4"), line("2")[:9])

    server.behaviour = lines
    provider = made(Chat, server, tmp_path)
    with pytest.raises(ProviderError) as caught:
        await provider.generate(ask(True))
    await provider.close()
    assert caught.value.kind is ErrorKind.TRUNCATED


async def test_a_proxy_is_asked_and_told_no_key(
    serve_bytes: Any, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An https server is reached by CONNECT, whose headers only the proxy reads."""
    heard: list[bytes] = []

    async def proxy(request: bytes) -> bytes:
        heard.append(request)
        return b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"

    address = await serve_bytes(proxy)
    monkeypatch.setenv("PROXIED_KEY", "key-of-the-test")
    keys = {"base_url": "https://models.invalid/v1", "api_key_env": "PROXIED_KEY", "proxy": address[:-3]}
    provider = made(Chat, server, tmp_path, **keys)
    with pytest.raises(ProviderError):
        await provider.generate(ask(False))
    await provider.close()
    assert heard[0].startswith(b"CONNECT models.invalid:443 ")
    assert b"key-of-the-test" not in heard[0]
