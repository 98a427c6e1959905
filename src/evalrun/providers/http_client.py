"""The one way to a server that answers JSON: sessions, proxies, TLS, headers, limits of size, errors, times.

It adds a few microseconds to what aiohttp costs, so that measured latencies are the server's: addresses are
parsed once, bytes go out and come in. Times are taken at the wire: a request is sent as its body is written
to its connection, and bytes arrive as they are read from it.

With many streams the event loop reads all sockets that have something before any coroutine goes on: the
last of 64 waits for the work of the 63 before it, milliseconds that would be taken for the server's. So the
moment is kept where the bytes are read. aiohttp offers no public place for that; where a version lacks the
attributes used here, times are those of the coroutines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter_ns
from typing import Any, TypeVar

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from evalrun._version import __version__
from evalrun.moment import until
from evalrun.providers.answers import (
    MOST_BYTES,
    Accumulator,
    drain,
    may_stream,
    read_answer,
    read_whole,
    too_long,
)
from evalrun.providers.faults import error_of_exception, error_of_status
from evalrun.providers.proxies import proxy_of
from evalrun.types import JSON, Timing

T = TypeVar("T")

_NO_DEADLINE = aiohttp.ClientTimeout(total=None, sock_connect=None)
# Servers built on uvicorn (vLLM, SGLang) or cpp-httplib (llama.cpp) drop a connection that was idle for 5 s.
# One that is let go of before is never written to while it is being closed, which would be a failed attempt.
_KEEP_ALIVE_S = 4.0
_MOST_BYTES_OF_AN_ERROR = 1 << 18


class _Handler(ResponseHandler):
    """aiohttp's protocol of one connection, with the time of the last bytes; it takes nothing for an answer
    that nobody waits for."""

    arrived_ns = 0
    idle = False
    """No request has been sent since the last answer was read to its end."""

    def data_received(self, data: bytes) -> None:
        if data:  # nothing comes where aiohttp goes on with what it had held back: that is no arrival
            if self.idle:
                # A second answer to the last question would be taken for the first one to the next.
                self.close()
                return
            self.arrived_ns = perf_counter_ns()
        super().data_received(data)
        if self._exception is not None:
            self._break_off(self._exception)

    def resume_reading(self, *arguments: Any, **named: Any) -> None:
        # aiohttp 3.14 calls it after each chunk that is taken, paused or not: as dear as the chunk itself.
        if self._reading_paused:
            super().resume_reading(*arguments, **named)

    def set_response_params(self, **named: Any) -> None:
        """Called before each request is sent."""
        self.idle = False
        super().set_response_params(**named)

    def _break_off(self, error: BaseException) -> None:
        """Tell who reads the body that no more of it comes. aiohttp 3.14 tells only who waits for the head:
        a body that breaks the rules of HTTP later on would be waited for until the deadline."""
        payload = self._payload
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(aiohttp.ClientPayloadError(str(error)))


class Connector(aiohttp.TCPConnector):
    """aiohttp's pool, with connections as above. Make it inside the running loop."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        if hasattr(self, "_factory"):
            factory: Any = partial(_Handler, loop=asyncio.get_running_loop())
            self._factory = factory

    def _release(self, key: Any, protocol: ResponseHandler, **named: Any) -> None:
        if isinstance(protocol, _Handler):
            protocol.idle = True
        super()._release(key, protocol, **named)


def arrival_clock(answer: aiohttp.ClientResponse) -> Callable[[], int]:
    """A clock that says when the last bytes of this answer arrived (perf_counter_ns).

    On a connection that already serves the next request it may say a later time, never one after now.
    """
    protocol = getattr(answer, "_protocol", None)
    if not isinstance(protocol, _Handler):
        return perf_counter_ns
    return lambda: protocol.arrived_ns


class SentBody(aiohttp.BytesPayload):
    """The bytes of one request, which know when they were handed to the socket.

    That is when a request is sent. Before, it may wait for a connection to be opened: with many requests
    at once, for those of all the others. Such waiting is ours and not the server's. One that is due at
    `due_ns` waits for it here, where all that is left to do is to write it.
    """

    def __init__(self, value: bytes, due_ns: int | None = None) -> None:
        # Not BytesPayload's own, which warns of bodies over 1 MB, such as those with images.
        aiohttp.Payload.__init__(self, value, content_type="application/json")
        self._size = len(value)
        self._due_ns = due_ns
        self.sent_ns = perf_counter_ns()

    async def write_with_length(
        self, writer: aiohttp.abc.AbstractStreamWriter, content_length: int | None
    ) -> None:
        if self._due_ns is not None:
            await until(self._due_ns)
        self.sent_ns = perf_counter_ns()
        await writer.write(self._value)


class HTTPClient:
    """Connections to one server. The session is made at the first use, inside the running loop.

    `headers` go with every request and hold keys: what a failed answer repeats of them is masked, and they
    are never among those meant for a proxy. `reuse=False` opens a connection for each request. Answers longer
    than `most_bytes` fail.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str] | None = None,
        *,
        verify_tls: bool = True,
        proxy: str | None = None,
        reuse: bool = True,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.base_url = URL(base_url.rstrip("/"))
        proxy = proxy or proxy_of(base_url)
        self.proxy = None if proxy is None else URL(proxy)
        self._headers = dict(headers or {})
        self._verify_tls = verify_tls
        self._reuse = reuse
        self._most_bytes = most_bytes
        self._session: aiohttp.ClientSession | None = None
        # aiohttp writes a session's headers into what it asks a proxy, too: then each request has its own.
        self._of_request = self._headers if self.proxy is not None else None

    def below(self, path: str) -> URL:
        """The address of a path below base_url; what base_url asks in its query stays."""
        return (self.base_url / path).with_query(self.base_url.query) if path else self.base_url

    def session(self) -> aiohttp.ClientSession:
        """The one session, made when first asked for."""
        if self._session is None or self._session.closed:
            connector = Connector(limit=0, keepalive_timeout=_KEEP_ALIVE_S, ssl=self._verify_tls)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=_NO_DEADLINE,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={
                    "Content-Type": "application/json",
                    "Accept-Encoding": "identity",  # compression would delay the first chunk
                    "User-Agent": f"evalrun/{__version__}",
                    **({} if self._reuse else {"Connection": "close"}),
                    **({} if self._of_request else self._headers),
                },
            )
        return self._session

    async def close(self) -> None:
        """Close all connections. The next request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, url: URL, timeout_s: float) -> tuple[int, bytes, Mapping[str, str]]:
        """Status, body and headers of a GET. Raises what aiohttp raises."""
        timeout = aiohttp.ClientTimeout(total=None, connect=timeout_s, sock_read=timeout_s)
        async with self.session().get(
            url, timeout=timeout, proxy=self.proxy, headers=self._of_request
        ) as answer:
            return answer.status, await answer.read(), answer.headers

    async def post(
        self,
        url: URL,
        body: bytes,
        parse: Callable[[JSON, Timing], T],
        stream: Callable[[int], Accumulator[T]] | None = None,
        asked: bool = False,
        due_ns: int | None = None,
    ) -> T:
        """What `parse` makes of the document that answers a POST, or what `stream`, made with the time at
        which the request was sent, makes of a stream. `asked` says whether the body asks for one,
        `due_ns` when it is to be sent.

        Redirects are not followed. Raises ProviderError for every fault.
        """
        payload = SentBody(body, due_ns)
        session = self._session or self.session()
        answering = False
        try:
            async with session.post(
                url, data=payload, proxy=self.proxy, headers=self._of_request, allow_redirects=False
            ) as answer:
                answering = True
                if answer.status >= 300:
                    raise error_of_status(answer.status, await self._error_body(answer), answer.headers)
                clock = arrival_clock(answer)
                kind = answer.headers.get("Content-Type", "")
                if stream is None or not (asked or may_stream(kind)):
                    document = await self._document(answer)
                    return read_whole(document, kind, parse, stream, Timing(payload.sent_ns, clock()))
                read, sent_ns = answer.content.readany, payload.sent_ns
                value = await read_answer(read, kind, parse, stream, sent_ns, clock, self._most_bytes)
                if not answer.content.at_eof():
                    await _drain(answer)
                return value
        except (aiohttp.ClientError, OSError) as error:
            raise error_of_exception(error, answering) from error

    def asked(self, address: str) -> URL:
        """An address below base_url, without credentials, with what base_url asks in its query."""
        url = URL(address).with_user(None)
        return url.extend_query(self.base_url.query) if self.base_url.query else url

    async def send(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes
    ) -> tuple[SentBody, aiohttp.ClientResponse]:
        """Send a request as it is; the answer is open, and the caller closes it. Raises what aiohttp does."""
        sent = SentBody(body)
        answer = await self.session().request(
            method,
            url,
            data=sent if body else None,
            headers=headers,
            proxy=self.proxy,
            allow_redirects=False,
        )
        return sent, answer

    async def _document(self, answer: aiohttp.ClientResponse) -> bytes:
        """The whole body. Raises ProviderError where it is longer than any answer."""
        length = answer.content_length
        if length is not None and length <= self._most_bytes and "Content-Encoding" not in answer.headers:
            return await answer.read()
        body, whole = await _read(answer, self._most_bytes)
        if not whole:
            raise too_long(self._most_bytes)
        return body

    async def _error_body(self, answer: aiohttp.ClientResponse) -> bytes:
        """The body of a failed answer, without the keys that we sent and it may repeat.

        The status counts even when the body breaks off.
        """
        try:
            body, _ = await _read(answer, _MOST_BYTES_OF_AN_ERROR)
        except (aiohttp.ClientError, OSError):
            return b""
        for value in self._headers.values():
            body = body.replace(value.removeprefix("Bearer ").encode(), b"***")
        return body


async def _read(answer: aiohttp.ClientResponse, most: int) -> tuple[bytes, bool]:
    """At most about so many bytes of the body, and whether that is all of it."""
    pieces, size = [], 0
    while size <= most and (piece := await answer.content.readany()):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces), size <= most


async def _drain(answer: aiohttp.ClientResponse) -> None:
    """The answer is complete whatever happens here; a server that does not end its stream loses the
    connection."""
    try:
        await drain(answer.content.readany)
    except (TimeoutError, aiohttp.ClientError, OSError):
        answer.close()
