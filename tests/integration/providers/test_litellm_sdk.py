"""LiteLLM against a real server on loopback. Skipped where LiteLLM is not installed (extra `litellm`)."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.servers import ChatServer

from evalrun.errors import ExitCode, UserError
from evalrun.providers.base import ProviderContext, create
from evalrun.providers.litellm_sdk import LiteLLM, LiteLLMOptions
from evalrun.suite.components import ModelSpec
from evalrun.types import ErrorKind, Message, ProviderError, Request, Response

installed = pytest.mark.skipif(
    importlib.util.find_spec("litellm") is None,
    reason="LiteLLM is not installed: pip install 'litellm>=1.80'",
)
MAPPED = "openai/gpt-4o-mini"
"""A model that LiteLLM's map of prices holds."""


def provider(tmp_path: Path, base_url: str, model: str | None = MAPPED, **more: Any) -> LiteLLM:
    options = LiteLLMOptions(api_base=base_url, api_key_env="LITELLM_TEST_KEY", **more.pop("options", {}))
    spec = ModelSpec(id="m", provider="litellm", model=model, options=options, **more)
    return LiteLLM(spec, ProviderContext(tmp_path, tmp_path))


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_TEST_KEY", "key-of-the-test")


def request(stream: bool = False, **params: Any) -> Request:
    return Request("s1", 0, (Message("user", "hello"),), None, params, {}, stream)


async def ask(made: LiteLLM, what: Request) -> Response:
    await made.start()
    try:
        return await made.generate(what)
    finally:
        await made.close()


@installed
@pytest.mark.parametrize("stream", [False, True])
async def test_asks_and_counts_the_cost(tmp_path: Path, chat_server: ChatServer, stream: bool) -> None:
    answer = await ask(provider(tmp_path, chat_server.base_url), request(stream, temperature=0))
    (body,) = chat_server.bodies
    assert body["model"] == "gpt-4o-mini" and body["temperature"] == 0
    assert body["messages"] == [{"role": "user", "content": "hello"}]
    assert (answer.output, answer.finish_reason) == ("42", "stop")
    assert (answer.prompt_tokens, answer.completion_tokens) == (7, 3)
    # 7 tokens at 0.15 and 3 at 0.60 dollars a million: the price list of the package.
    assert answer.cost_usd == pytest.approx(7 * 0.15e-6 + 3 * 0.60e-6)
    assert answer.timing is not None and (answer.timing.first_ns is not None) is stream


@installed
async def test_no_cost_is_guessed(tmp_path: Path, chat_server: ChatServer) -> None:
    unknown = provider(tmp_path, chat_server.base_url, "openai/some-model-of-mine")
    assert (await ask(unknown, request())).cost_usd is None
    price = {"input_per_million_usd": 1.0, "output_per_million_usd": 1.0}
    priced = provider(tmp_path, chat_server.base_url, price=price)
    assert (await ask(priced, request())).cost_usd is None  # the suite's own prices count


@installed
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ErrorKind.BAD_REQUEST),
        (401, ErrorKind.AUTH),
        (404, ErrorKind.NOT_FOUND),
        (408, ErrorKind.TIMEOUT),
        (429, ErrorKind.RATE_LIMIT),
        (500, ErrorKind.SERVER),
        (503, ErrorKind.SERVER),
    ],
)
async def test_a_failed_status_is_asked_once_and_named(
    tmp_path: Path, chat_server: ChatServer, status: int, kind: ErrorKind
) -> None:
    async def behave(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        error = {"error": {"message": "no: sk-abcdefghijklmnopqrstuvwx"}}
        return web.json_response(error, status=status, headers={"Retry-After": "7"})

    chat_server.behaviour = behave
    with pytest.raises(ProviderError) as caught:
        await ask(provider(tmp_path, chat_server.base_url), request())
    assert caught.value.kind is kind
    assert "sk-" not in caught.value.message and "no: [redacted]" in caught.value.message
    if status in (429, 503):
        assert caught.value.retry_after_s == 7
    assert len(chat_server.bodies) == 1


@installed
@pytest.mark.parametrize("polite", [True, False])
async def test_streams_that_end_early_are_truncated(
    tmp_path: Path, chat_server: ChatServer, polite: bool
) -> None:
    async def cut(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        chunk = (
            '{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"par"}}]}'
        )
        await response.write(f"data: {chunk}\n\n".encode())
        if not polite:
            assert request.transport is not None
            request.transport.close()
        return response

    chat_server.behaviour = cut
    with pytest.raises(ProviderError) as caught:
        await ask(provider(tmp_path, chat_server.base_url), request(stream=True))
    assert caught.value.kind is ErrorKind.TRUNCATED


@installed
async def test_an_absent_server_is_a_connection_error(tmp_path: Path) -> None:
    with pytest.raises(ProviderError) as caught:
        await ask(provider(tmp_path, "http://127.0.0.1:9/v1"), request())
    assert caught.value.kind is ErrorKind.CONNECTION


def test_what_is_missing_is_named_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LITELLM_TEST_KEY")
    with pytest.raises(UserError) as caught:
        provider(tmp_path, "http://127.0.0.1:9/v1", None)
    assert [problem.what for problem in caught.value.problems] == [
        "'model' is missing",
        "the environment variable LITELLM_TEST_KEY is not set",
    ]


async def test_without_the_package_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)  # what Python itself does for a module that must not be
    made = provider(tmp_path, "http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="LiteLLM is not installed") as caught:
        await made.start()
    assert caught.value.exit_code is ExitCode.INCOMPLETE
    assert "litellm>=1.80" in str(caught.value)


def test_the_identity_holds_no_key_and_the_endpoint_is_shared(tmp_path: Path) -> None:
    made = provider(tmp_path, "http://127.0.0.1:9/v1")
    assert made.endpoint == "http://127.0.0.1:9"
    assert "key-of-the-test" not in str(made.identity())
    spec = ModelSpec(id="m", provider="litellm", model="anthropic/claude-x", options=LiteLLMOptions())
    assert LiteLLM(spec, ProviderContext(tmp_path, tmp_path)).endpoint == "litellm:anthropic"


def test_making_one_does_not_import_it() -> None:
    code = (
        "import sys\n"
        "from evalrun.suite.schema import ModelSpec\n"
        "from evalrun.providers.litellm_sdk import LiteLLM\n"
        "from evalrun.providers.base import ProviderContext\n"
        "from pathlib import Path\n"
        "LiteLLM(ModelSpec(id='m', provider='litellm', model='openai/x'), ProviderContext(Path(), Path()))\n"
        "sys.exit('litellm' in sys.modules or 'aiohttp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


FIRST = """
import asyncio, os, sys
from pathlib import Path
from evalrun.providers.base import ProviderContext, create
from evalrun.suite.schema import ModelSpec
from evalrun.types import Message, Request

tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
entry = {"id": "m", "provider": "litellm", "model": "openai/m", "api_base": sys.argv[1]}
entry["api_key_env"] = "LITELLM_TEST_KEY"

async def main():
    made = create(ModelSpec.model_validate(entry), ProviderContext(Path("."), Path(".")))
    await made.start()
    before = set(sys.modules)
    for stream in (False, True):
        for params in ({}, {"tools": tools}):
            await made.generate(Request("s", 0, (Message("user", "hello"),), None, params, {}, stream))
    print(len(set(sys.modules) - before))
    await made.close()

asyncio.run(main())
"""


@installed
def test_the_first_answers_do_not_wait_for_imports(chat_server: ChatServer) -> None:
    """Their latencies would be those of our disk. With tools it wants a package it does not name."""
    command = [sys.executable, "-c", FIRST, chat_server.base_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) <= 25, "a few small ones are its own business"


class Proxy:
    """Listens, keeps what it is told, and refuses it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append(await reader.read(65536))
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """A proxy, named by HTTP_PROXY and HTTPS_PROXY."""
    made = Proxy()
    server = await asyncio.start_server(made.talk, "127.0.0.1", 0)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    for name in ("ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "example.com")  # the provider adds to it: taken back by this
    yield made
    server.close()


@installed
@pytest.mark.parametrize("stream", [False, True])
async def test_a_proxy_is_asked_for_a_tunnel_and_told_no_key(
    tmp_path: Path, proxy: Proxy, stream: bool
) -> None:
    with pytest.raises((ProviderError, UserError)):
        await ask(provider(tmp_path, "https://models.invalid/v1"), request(stream))
    assert proxy.heard and all(said.startswith(b"CONNECT models.invalid:443 ") for said in proxy.heard)
    assert b"key-of-the-test" not in b"".join(proxy.heard)


@installed
async def test_this_machine_is_asked_past_the_proxy(
    tmp_path: Path, proxy: Proxy, chat_server: ChatServer
) -> None:
    for stream in (False, True):
        assert (await ask(provider(tmp_path, chat_server.base_url), request(stream))).output == "42"
    assert proxy.heard == []


@pytest.mark.parametrize("options", [{}, {"extra": {"extra_headers": {"X": "k"}}}])
async def test_a_key_that_litellm_finds_by_itself_is_not_told_to_a_proxy_in_clear(
    tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    if not options:
        monkeypatch.setenv("OPENAI_API_KEY", "found-by-itself")
    made = ModelSpec.model_validate(
        {"id": "m", "provider": "litellm", "model": MAPPED, "api_base": "http://models.invalid/v1", **options}
    )
    with pytest.raises(UserError, match="would be told to the proxy"):
        create(made, ProviderContext(tmp_path, tmp_path))
    assert proxy.heard == []
