"""Carries the requests of the OpenAI SDK over evalrun's own HTTP layer.

The SDK makes and signs requests; connections, proxies and clocks are those of every other provider, so that
its latencies are taken at the wire too: what the SDK spends before and after is no part of them.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

    from evalrun.providers.http_client import HTTPClient, SentBody

_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
"""Headers of a request that aiohttp writes itself. (A wish to close the connection is passed on.)"""
_TAKEN_OFF = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers of an answer that speak of its form on the wire, which is undone when its bytes are passed on."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request on the wire: what was sent and knows when, and the answer."""

    body: SentBody
    answer: aiohttp.ClientResponse


def exchange_of(answer: Any) -> Exchange:
    """What happened on the wire for an answer of the SDK."""
    exchange: Exchange = answer.http_response.extensions["evalrun"]
    return exchange


def http_client(client: HTTPClient) -> Any:
    """An HTTP client for the SDK: of the kind that it wants, without proxies, redirects and time-outs of its
    own, which sends by `client`."""
    import openai

    # httpx under SDK 1 and 2, httpx2 under SDK 3
    http: Any = sys.modules[openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0]]

    class Stream(http.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, answer: aiohttp.ClientResponse) -> None:
            self._answer = answer

        async def __aiter__(self) -> AsyncIterator[bytes]:
            while piece := await self._answer.content.readany():
                yield piece

        async def aclose(self) -> None:
            if not self._answer.content.at_eof():
                self._answer.close()
            self._answer.release()

    class Transport(http.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            headers = {name: value for name, value in request.headers.items() if name.lower() not in _OURS}
            if request.headers.get("connection", "").lower() == "close":
                headers["Connection"] = "close"
            url = client.asked(str(request.url))
            body, answer = await client.send(request.method, url, headers, await request.aread())
            kept = [
                (name, value) for name, value in answer.raw_headers if name.decode().lower() not in _TAKEN_OFF
            ]
            exchange = Exchange(body, answer)
            return http.Response(
                answer.status, headers=kept, stream=Stream(answer), extensions={"evalrun": exchange}
            )

        async def aclose(self) -> None:
            await client.close()

    return http.AsyncClient(
        transport=Transport(),
        headers={"Accept-Encoding": "identity"},  # compression would delay the first chunk
        timeout=None,
        follow_redirects=False,
        trust_env=False,
    )
