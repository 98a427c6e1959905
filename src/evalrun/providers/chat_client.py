"""Our own thin path to a server that speaks the OpenAI API: one session, bytes out, bytes in.

It adds a few microseconds to what aiohttp costs, so that measured latencies are the server's: the
unchanging part of the request body is written once per parameter object, the address is parsed once,
answers are read as bytes and parsed by orjson. Times are taken at the wire: `sent_ns` as the body is written
to its connection, the others as bytes are read from it (`arrival`).
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import TYPE_CHECKING, Literal, TypeAlias

import aiohttp
import orjson
from yarl import URL

from evalrun._version import __version__
from evalrun.providers.answers import StreamedAnswer, whole_answer
from evalrun.providers.arrival import Connector, arrival_clock
from evalrun.providers.faults import error_of_exception, error_of_status
from evalrun.providers.forms import wrong_form
from evalrun.providers.sse import SSEParser
from evalrun.types import JSON, ErrorKind, ProviderError, Request, Response

if TYPE_CHECKING:
    from evalrun.providers.likelihood_client import LikelihoodClient

Api: TypeAlias = Literal["chat", "completions"]

_PATHS: Mapping[Api, str] = {"chat": "chat/completions", "completions": "completions"}
_NO_DEADLINE = aiohttp.ClientTimeout(total=None, sock_connect=None)
# Servers built on uvicorn (vLLM, SGLang) or cpp-httplib (llama.cpp) drop a connection that was idle for 5 s.
# One that is let go of before is never written to while it is being closed, which would be a failed attempt.
_KEEP_ALIVE_S = 4.0
ONE_REQUEST_A_CONNECTION: Mapping[str, str] = {"Connection": "close"}
"""For llama.cpp, which hangs up after each stream without saying so: the next request on that connection
would fail."""
_PREFIXES_KEPT = 64
_MOST_BYTES = 64 << 20
_MOST_BYTES_OF_AN_ERROR = 1 << 18


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go and what every one of them carries. `headers` may hold keys: never log it."""

    base_url: str
    model: str | None
    api: Api = "chat"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    extra_body: Mapping[str, JSON] = field(default_factory=dict)
    include_usage: bool = True
    verify_tls: bool = True


class _Body(aiohttp.BytesPayload):
    """The bytes of one request, which know when they were handed to the socket.

    That is when a request is sent. Before, it may wait for a connection to be opened: with many requests
    at once, for those of all the others. Such waiting is ours and not the server's.
    """

    def __init__(self, value: bytes) -> None:
        # Not BytesPayload's own, which warns of bodies over 1 MB, such as those with images.
        aiohttp.Payload.__init__(self, value, content_type="application/json")
        self._size = len(value)
        self.sent_ns = perf_counter_ns()

    async def write_with_length(
        self, writer: aiohttp.abc.AbstractStreamWriter, content_length: int | None
    ) -> None:
        self.sent_ns = perf_counter_ns()
        await writer.write(self._value)


class ChatClient:
    """Sends requests to one target. The session is made at the first use, inside the running loop."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.base_url = URL(target.base_url.rstrip("/"))
        self._url = self.below(_PATHS[target.api])
        self._proxy = _proxy_for(self.base_url)
        self._session: aiohttp.ClientSession | None = None
        self._likelihood: LikelihoodClient | None = None
        # By identity, each entry holding its object, so that no other object can take the same id.
        self._prefixes: dict[tuple[int, bool], tuple[Mapping[str, JSON], bytes]] = {}

    @property
    def endpoint(self) -> str:
        """scheme://host:port of the server."""
        return f"{self.base_url.scheme}://{self.base_url.host}:{self.base_url.port}"

    def below(self, path: str) -> URL:
        """The address of a path below base_url; what base_url asks in its query stays."""
        return (self.base_url / path).with_query(self.base_url.query)

    def session(self) -> aiohttp.ClientSession:
        """The one session, made when first asked for."""
        if self._session is None or self._session.closed:
            connector = Connector(limit=0, keepalive_timeout=_KEEP_ALIVE_S, ssl=self.target.verify_tls)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=_NO_DEADLINE,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={
                    "Content-Type": "application/json",
                    "Accept-Encoding": "identity",  # compression would delay the first chunk
                    "User-Agent": f"evalrun/{__version__}",
                    **self.target.headers,
                },
            )
        return self._session

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, url: URL, timeout_s: float) -> tuple[int, bytes, Mapping[str, str]]:
        """Status, body and headers of a GET with the session's headers. Raises what aiohttp raises."""
        timeout = aiohttp.ClientTimeout(total=None, connect=timeout_s, sock_read=timeout_s)
        async with self.session().get(url, timeout=timeout, proxy=self._proxy) as answer:
            return answer.status, await answer.read(), answer.headers

    async def send(self, request: Request) -> Response:
        """Answer one request, streamed if it says so. Raises ProviderError for every fault."""
        if request.ask is not None:
            return await self._likelihoods().send(request, request.ask)
        body = _Body(self.body(request))
        session = self._session or self.session()
        answering = False
        try:
            async with session.post(self._url, data=body, proxy=self._proxy, allow_redirects=False) as answer:
                answering = True
                if answer.status >= 300:
                    raise error_of_status(answer.status, await self._error_body(answer), answer.headers)
                if _is_stream(answer, request.stream):
                    return await _streamed(answer, body.sent_ns)
                data = await _body_of(answer)
                return whole_answer(data, body.sent_ns, arrival_clock(answer)())
        except (aiohttp.ClientError, OSError) as error:
            raise error_of_exception(error, answering) from error

    async def post(self, body: bytes) -> tuple[bytes, int, int]:
        """Send a body of one's own: the answer's bytes, when it was sent and when all of it was there.

        Raises ProviderError for every fault.
        """
        answering = False
        sent_ns = perf_counter_ns()
        try:
            async with self.session().post(
                self._url, data=body, proxy=self._proxy, allow_redirects=False
            ) as answer:
                answering = True
                if answer.status >= 300:
                    raise error_of_status(answer.status, await self._error_body(answer), answer.headers)
                return await _body_of(answer), sent_ns, perf_counter_ns()
        except (aiohttp.ClientError, OSError) as error:
            raise error_of_exception(error, answering) from error

    def _likelihoods(self) -> LikelihoodClient:
        if self._likelihood is None:
            from evalrun.providers.likelihood_client import LikelihoodClient

            self._likelihood = LikelihoodClient(self)
        return self._likelihood

    async def _error_body(self, answer: aiohttp.ClientResponse) -> bytes:
        """The body of a failed answer, without the keys that we sent and it may repeat.

        The status counts even when the body breaks off.
        """
        try:
            body, _ = await _read(answer, _MOST_BYTES_OF_AN_ERROR)
        except (aiohttp.ClientError, OSError):
            return b""
        for name, value in self.target.headers.items():
            if name not in ONE_REQUEST_A_CONNECTION:
                body = body.replace(value.removeprefix("Bearer ").encode(), b"***")
        return body

    def body(self, request: Request) -> bytes:
        """The JSON that is sent for a request: model, parameters, extra_body, then the prompt.

        A parameter object is read once and taken to stay as it is.
        """
        params = request.params
        known = self._prefixes.get((id(params), request.stream))
        prefix = known[1] if known is not None else self._prefix(params, request.stream)
        try:
            if self.target.api == "chat":
                if not request.messages:
                    raise wrong_form("chat")
                return b'%b"messages":%b}' % (prefix, orjson.dumps(request.messages))
            if request.prompt is None:
                raise wrong_form("completions")
            return b'%b"prompt":%b}' % (prefix, orjson.dumps(request.prompt))
        except TypeError as error:
            raise ProviderError(
                ErrorKind.BAD_REQUEST, f"the prompt cannot be written as JSON: {error}"
            ) from error

    def _prefix(self, params: Mapping[str, JSON], stream: bool) -> bytes:
        """The unchanging start of the body, open at its end: `{"model":…,"temperature":0,`."""
        static: dict[str, JSON] = {} if self.target.model is None else {"model": self.target.model}
        static.update(params)
        static.update(self.target.extra_body)
        static.pop("stream", None)  # whether an answer is streamed is the request's to say
        if stream:
            static["stream"] = True
            if self.target.include_usage:
                static["stream_options"] = {"include_usage": True, **static.get("stream_options", {})}
        try:
            text = orjson.dumps(static)
        except TypeError as error:
            raise ProviderError(
                ErrorKind.BAD_REQUEST, f"a parameter cannot be written as JSON: {error}"
            ) from error
        prefix = text[:-1] + b"," if static else b"{"
        if len(self._prefixes) >= _PREFIXES_KEPT:  # parameters that change per request: keep no more
            self._prefixes.clear()
        self._prefixes[id(params), stream] = (params, prefix)
        return prefix


def _is_stream(answer: aiohttp.ClientResponse, asked: bool) -> bool:
    """Whether a stream of events comes. Some servers stream always, others never."""
    kind = answer.headers.get("Content-Type", "").lower()
    return kind.startswith("text/event-stream") or (asked and not kind.startswith("application/json"))


async def _body_of(answer: aiohttp.ClientResponse) -> bytes:
    """The whole body. Raises ProviderError where it is longer than any answer: memory is everybody's."""
    length = answer.content_length
    if length is not None and length <= _MOST_BYTES and "Content-Encoding" not in answer.headers:
        return await answer.read()
    body, whole = await _read(answer, _MOST_BYTES)
    if not whole:
        raise _too_long()
    return body


async def _read(answer: aiohttp.ClientResponse, most: int) -> tuple[bytes, bool]:
    """At most about so many bytes of the body, and whether that is all of it."""
    pieces, size = [], 0
    while size <= most and (piece := await answer.content.readany()):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces), size <= most


def _too_long() -> ProviderError:
    return ProviderError(ErrorKind.PROTOCOL, f"the answer is longer than {_MOST_BYTES >> 20} MiB")


async def _streamed(answer: aiohttp.ClientResponse, sent_ns: int) -> Response:
    if answer.content_type == "text/html":
        raise ProviderError(ErrorKind.PROTOCOL, "the answer is a web page, not a stream of events")
    parser = SSEParser()
    result = StreamedAnswer(sent_ns)
    read = answer.content.readany
    feed = parser.feed
    clock = arrival_clock(answer)
    size = 0
    while data := await read():
        now_ns = clock()
        size += len(data)
        if size > _MOST_BYTES:
            raise _too_long()
        if events := feed(data):
            result.feed(events, now_ns)
            if result.done:
                await _drain(answer)
                return result.response()
    result.feed_last(parser.finish(), clock())
    return result.response()


async def _drain(answer: aiohttp.ClientResponse) -> None:
    """Read on to the end of a finished stream, so that its connection can be used again.

    The answer is complete whatever happens here; a server that does not end its stream loses the connection.
    """
    content = answer.content
    if content.at_eof():
        return
    try:
        async with asyncio.timeout(1.0):
            while await content.readany():
                pass
    except (TimeoutError, aiohttp.ClientError, OSError):
        answer.close()


def _proxy_for(url: URL) -> URL | None:
    """The proxy that the environment names for this server. Loopback is never asked through one.

    Found once: aiohttp's own `trust_env` looks it up in a thread for every request.
    """
    host = url.host or ""
    if host == "localhost" or host == "::1" or host.startswith("127.") or urllib.request.proxy_bypass(host):
        return None
    proxy = urllib.request.getproxies().get(url.scheme)
    return URL(proxy) if proxy and proxy.startswith("http") else None
