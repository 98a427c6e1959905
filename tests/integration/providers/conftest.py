"""Real servers on loopback, and requests to send them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from evalrun.providers.base import ProviderContext
from evalrun.providers.openai_api import OpenAICompatible
from evalrun.suite.components import ModelSpec
from evalrun.types import Message, Request

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """serve(handler, path="/v1/chat/completions"): a server with that one handler; gives its base URL."""
    runners: list[web.AppRunner] = []

    async def start(handler: Handler, path: str = "/v1/chat/completions") -> str:
        app = web.Application()
        app.router.add_post(path, handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/v1"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def serve_bytes() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """serve_bytes(answer, reset=False): a socket that reads a request, writes these bytes and hangs up.

    `answer` may be a coroutine function that is given the request and returns the bytes."""
    servers: list[asyncio.Server] = []

    async def start(answer: Any, reset: bool = False) -> str:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await reader.read(65536)
            with contextlib.suppress(TimeoutError):  # what is left unread would turn the end into a reset
                while await asyncio.wait_for(reader.read(65536), 0.02):
                    pass
            writer.write(answer if isinstance(answer, bytes) else await answer(request))
            await writer.drain()
            if reset:
                await asyncio.sleep(0.05)
                writer.transport.abort()
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def context(tmp_path: Path) -> ProviderContext:
    return ProviderContext(base_dir=tmp_path, work_dir=tmp_path / "work")


@pytest.fixture
async def provider_for(context: ProviderContext) -> AsyncIterator[Callable[..., OpenAICompatible]]:
    """provider_for(base_url, **keys of the model entry): an OpenAICompatible, closed at the end."""
    made: list[OpenAICompatible] = []

    def make(base_url: str, **keys: Any) -> OpenAICompatible:
        entry = {"id": "served", "provider": "openai_compatible", "model": "m", "base_url": base_url, **keys}
        provider = OpenAICompatible(ModelSpec.model_validate(entry), context)
        made.append(provider)
        return provider

    yield make
    for provider in made:
        await provider.close()


@pytest.fixture
def ask() -> Callable[..., Request]:
    """ask(text, stream=False, **params): a chat request; raw=True makes it a text prompt."""

    def make(text: str = "hello", stream: bool = False, raw: bool = False, **params: Any) -> Request:
        messages = () if raw else (Message("user", text),)
        return Request("s1", 0, messages, text if raw else None, params, {}, stream)

    return make
