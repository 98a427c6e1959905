"""LiteLLM's first calls, made to a server of our own: it imports for seconds during the first one, which
would stand in the latencies of the first samples."""

from __future__ import annotations

import asyncio
from typing import Any

_CHOICE = (
    b'"id":"w","created":1,"model":"warm-up",'
    b'"choices":[{"index":0,"%b":{"role":"assistant","content":"-"},"finish_reason":"stop"}]}'
)
_WHOLE = b'{"object":"chat.completion",' + _CHOICE % b"message"
_CHUNK = b'{"object":"chat.completion.chunk",' + _CHOICE % b"delta"
_STREAM = b"data: %b\n\ndata: [DONE]\n\n" % _CHUNK
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
_PATIENCE_S = 60.0


async def warm_up(litellm: Any) -> None:
    """One whole and one streamed answer, on loopback. Raises whatever LiteLLM raises."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    try:
        arguments = {
            "model": "openai/warm-up",
            "messages": [{"role": "user", "content": "-"}],
            "api_base": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1",
            "api_key": "none",
            "num_retries": 0,
            "max_retries": 0,
        }
        async with asyncio.timeout(_PATIENCE_S):
            await litellm.acompletion(**arguments)
            async for _ in await litellm.acompletion(**arguments, stream=True):
                pass
    finally:
        server.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        body = await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
        streamed = b'"stream":true' in body.replace(b" ", b"")
        kind, answer = (b"text/event-stream", _STREAM) if streamed else (b"application/json", _WHOLE)
        writer.write(_HEAD % (kind, len(answer)) + answer)
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError, ValueError, IndexError):
        pass  # whoever else looked in
    finally:
        writer.close()
