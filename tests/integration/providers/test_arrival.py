"""The moment of arrival is when bytes were read from the socket, however late anybody looks at them."""

from __future__ import annotations

import asyncio
import json
from time import perf_counter_ns
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from evalrun.providers.http_client import Connector, arrival_clock
from evalrun.types import ErrorKind, ProviderError


async def test_taking_bytes_late_does_not_move_their_arrival(serve: Any) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(3):
            await response.write(b"x" * 10)
        return response

    base_url = await serve(handler)
    async with (
        aiohttp.ClientSession(connector=Connector()) as session,
        session.post(f"{base_url}/chat/completions") as answer,
    ):
        while not answer.content.is_eof():  # noqa: ASYNC110  (all is there when the end is)
            await asyncio.sleep(0.01)
        there_ns = perf_counter_ns()
        clock = arrival_clock(answer)
        assert 0 < clock() < there_ns
        assert await answer.content.readany() == b"x" * 30
        assert clock() < there_ns, "reading what had arrived is no arrival"


async def test_a_stream_that_is_longer_than_the_buffer_is_read_to_its_end(serve: Any) -> None:
    """Where aiohttp pauses reading it must go on afterwards."""
    blocks, size = 64, 1 << 16

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(blocks):
            await response.write(b"y" * size)
        return response

    base_url = await serve(handler)
    async with (
        aiohttp.ClientSession(connector=Connector()) as session,
        session.post(f"{base_url}/chat/completions") as answer,
    ):
        await asyncio.sleep(0.2)  # meanwhile the buffer fills
        total = 0
        async with asyncio.timeout(30):
            while data := await answer.content.readany():
                total += len(data)
                await asyncio.sleep(0)
    assert total == blocks * size


def _answer(text: str) -> bytes:
    body = json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def test_a_second_answer_is_not_taken_for_the_next_question_s(provider_for: Any, ask: Any) -> None:
    """It comes while the connection is idle; which is then not used again."""
    connections, hung_up = 0, asyncio.Semaphore(0)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
            question = json.loads(body)["messages"][0]["content"]
            writer.write(_answer(f"to {question}"))
            await writer.drain()
            if question != "b":
                return
            await asyncio.sleep(0.1)
            writer.write(_answer("stale"))
            if not await reader.read(1):
                hung_up.release()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        provider = provider_for(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        assert (await provider.generate(ask("b"))).output == "to b"
        await asyncio.wait_for(hung_up.acquire(), 10)
        assert (await provider.generate(ask("c"))).output == "to c"
        assert connections == 2


async def test_a_body_that_breaks_the_rules_later_on_is_not_waited_for(provider_for: Any, ask: Any) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{ \r\n")
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.write(b"ZZZ\r\n")
        await reader.read()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        provider = provider_for(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        with pytest.raises(ProviderError) as caught:
            await asyncio.wait_for(provider.generate(ask()), 10)
    assert caught.value.kind is ErrorKind.TRUNCATED
