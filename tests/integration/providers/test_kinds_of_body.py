"""What an answer is its bytes say: types are named by proxies, and some servers stream unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from tests.unit.providers.test_stream_shapes import chunk

from evalrun.providers.base import ProviderContext
from evalrun.providers.openai_sdk import OpenAI, OpenAIOptions
from evalrun.suite.components import ModelSpec
from evalrun.types import ErrorKind, ProviderError

DOCUMENT = orjson.dumps({"choices": [{"index": 0, "message": {"content": "42"}, "finish_reason": "stop"}]})
EVENTS = (
    b"".join(
        b"data: %b\n\n" % orjson.dumps(each)
        for each in (
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": "4"}),
            chunk({"content": "2"}, "stop"),
        )
    )
    + b"data: [DONE]\n\n"
)
TYPES = ["application/json", "text/plain", "text/event-stream", "application/octet-stream"]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "body", [DOCUMENT, b"\n " + DOCUMENT, EVENTS, b": hello\n\n" + EVENTS, b"\n\n" + EVENTS]
)
@pytest.mark.parametrize("sdk", [False, True])
async def test_the_bytes_say_what_an_answer_is(
    serve: Any, provider_for: Any, ask: Any, tmp_path: Path, kind: str, streamed: bool, body: bytes, sdk: bool
) -> None:
    """Types are named by proxies and frameworks; a server may stream unasked, or never."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Type": kind})

    provider: Any
    if sdk:
        options = OpenAIOptions(base_url=await serve(handler))
        provider = OpenAI(
            ModelSpec(id="m", provider="openai", model="m", options=options),
            ProviderContext(tmp_path, tmp_path),
        )
        await provider.start()
    else:
        provider = provider_for(await serve(handler))
    answer = await provider.generate(ask(stream=streamed))
    await provider.close()
    assert (answer.output, answer.finish_reason) == ("42", "stop")


async def test_a_web_page_is_no_answer(serve: Any, provider_for: Any, ask: Any) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=b"<html><title>Sign in</title></html>", content_type="text/html")

    provider = provider_for(await serve(handler))
    for streamed in (False, True):
        with pytest.raises(ProviderError) as caught:
            await provider.generate(ask(stream=streamed))
        assert caught.value.kind is ErrorKind.PROTOCOL
