"""A chat-completions server that costs next to nothing: what a client measures against it is its own cost.

    python -m evalrun.runner.null_server [--port 0]

prints its port as one line and serves on 127.0.0.1 until its standard input closes. Every answer is "The
answer is 42.". `"stream": true` sends as many chunks as `max_tokens` says and a usage chunk. The base URL is
http://127.0.0.1:PORT/v1; below /paced/v1, one chunk of a stream comes every PACE_S, so that each is read
on its own, as those of a model are. GET /count says how many requests were answered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import cast

PACE_S = 0.01
_MODEL = b'"id":"chatcmpl-1","created":1700000000,"model":"null"'
_WHOLE = (
    b'{"object":"chat.completion",%b,"choices":[{"index":0,"message":{"role":"assistant","content":'
    b'"The answer is 42."},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"completion_tokens":6,'
    b'"total_tokens":26}}' % _MODEL
)
_MODELS = b'{"object":"list","data":[{"id":"null","object":"model","created":1700000000,"owned_by":"null"}]}'
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_WORDS = (b"The", b" answer", b" is", b" 42", b".")
_PIECES = 64
_MOST = 4096


def _event(payload: bytes) -> bytes:
    data = b"data: %b\n\n" % payload
    return b"%x\r\n%b\r\n" % (len(data), data)


def _chunk(delta: bytes, reason: bytes = b"null") -> bytes:
    return _event(
        b'{"object":"chat.completion.chunk",%b,"choices":[{"index":0,"delta":%b,"finish_reason":%b}]}'
        % (_MODEL, delta, reason)
    )


def _closing(chunks: int) -> bytes:
    usage = b'{"prompt_tokens":20,"completion_tokens":%d,"total_tokens":%d}' % (chunks, 20 + chunks)
    return (
        _chunk(b"{}", b'"stop"')
        + _event(b'{"object":"chat.completion.chunk",%b,"choices":[],"usage":%b}' % (_MODEL, usage))
        + _event(b"[DONE]")
        + b"0\r\n\r\n"
    )


_ROLE = _chunk(b'{"role":"assistant","content":""}')
_CHUNKS = [_chunk(b'{"content":"%b"}' % word) for word in (*_WORDS, *[b" ~"] * (_PIECES - len(_WORDS)))]


class Count:
    """Requests answered so far, by all connections of a server."""

    def __init__(self) -> None:
        self.n = 0


class NullProtocol(asyncio.Protocol):
    """One connection. Requests must bear a Content-Length, as those of every client here do."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its bases

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            whole = end + 4 + _content_length(head)
            if len(self._buffer) < whole:
                return
            body, self._buffer = self._buffer[end + 4 : whole], self._buffer[whole:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            answer = str(self._count.n).encode() if head.startswith(b"GET /count") else _MODELS
            self._transport.write(_HEAD % len(answer) + answer)
            return
        self._count.n += 1
        if b'"stream":true' not in body.replace(b'"stream": true', b'"stream":true'):
            self._transport.write(_HEAD % len(_WHOLE) + _WHOLE)
        else:
            chunks = _wanted_chunks(body)
            pace_s = PACE_S if head.startswith(b"POST /paced/") else 0.0
            # As vLLM does it: the role goes out when the first token is there.
            self._transport.write(_STREAM if pace_s else _STREAM + _ROLE)
            self._loop.call_later(pace_s, self._next, 0, chunks, pace_s)

    def _next(self, number: int, chunks: int, pace_s: float) -> None:
        """Write one chunk and come back for the next: each is a write of its own, as a model's are."""
        if self._transport.is_closing():
            return
        if number == chunks:
            self._transport.write(_closing(chunks))
            return
        if pace_s and number == 0:
            self._transport.write(_ROLE)
        self._transport.write(_CHUNKS[number % _PIECES])
        if pace_s:
            self._loop.call_later(pace_s, self._next, number + 1, chunks, pace_s)
        else:
            self._loop.call_soon(self._next, number + 1, chunks, pace_s)


def _content_length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r", 1)[0]) if found else 0


def _wanted_chunks(body: bytes) -> int:
    _, found, rest = body.partition(b'"max_tokens":')
    if not found:
        _, found, rest = body.partition(b'"max_completion_tokens":')
    digits = rest.lstrip()[:6].partition(b",")[0].partition(b"}")[0].strip()
    return min(_MOST, int(digits)) if found and digits.isdigit() else 16


async def _serve(port: int) -> None:
    count = Count()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: NullProtocol(count), "127.0.0.1", port, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.buffer.read)


def main() -> None:
    """Serve until standard input closes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    port = parser.parse_args().port
    make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop as make_loop
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(_serve(port))


if __name__ == "__main__":
    main()
