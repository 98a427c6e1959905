"""What every request passes before a route sees it: where it came from, by which name, how large it is.

One ASGI layer. It looks at nothing but the connection and the headers, so a fault in a page cannot open it.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evalrun.server.config import Config

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SANDBOX = "sandbox allow-scripts allow-downloads allow-popups; frame-ancestors 'self'"
"""For reports: their scripts run at an origin of their own, which no session belongs to."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def own_hosts(config: Config) -> frozenset[str]:
    """The `Host` headers that mean this server, in small letters."""
    names = {each.lower() for each in config.hosts}
    names |= {f"{each}:{config.port}" for each in names if ":" not in each}
    if config.public_url:
        names.add(urlsplit(config.public_url).netloc.lower())
    if config.is_local:
        names |= {f"{host}:{config.port}" for host in ("127.0.0.1", "localhost", "[::1]")}
    return frozenset(names)


def is_forged(headers: Headers, origins: frozenset[str]) -> bool:
    """Whether a request that may change something was made by a page of another origin.

    The algorithm of Go's CrossOriginProtection, and stricter: an `Origin` that is there must be ours. A
    request with a token and no cookie is no browser's. `Sec-Fetch-Site` is missing where a page is read by
    plain http; then `Origin` alone decides, and with neither there must be no cookie.
    """
    has_cookie = "cookie" in headers
    if headers.get("authorization", "").lower().startswith("bearer ") and not has_cookie:
        return False
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and origin.lower() not in origins:
        return True
    if site is not None:
        return site not in ("same-origin", "none")
    return origin is None and has_cookie


class TooMany:
    """Counts failed logins of each peer within a minute."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._failed: dict[str, deque[float]] = defaultdict(deque)

    def blocks(self, peer: str) -> bool:
        """Whether the peer has to wait."""
        times = self._failed.get(peer)
        if times is None:
            return False
        while times and time.monotonic() - times[0] > 60:
            times.popleft()
        if not times:
            self._failed.pop(peer, None)
        return len(times) >= self._limit

    def failed(self, peer: str) -> None:
        """Note a failure."""
        if len(self._failed) > 10_000:  # of no peer for long: the oldest go
            self._failed.pop(next(iter(self._failed)))
        self._failed[peer].append(time.monotonic())


class Guard:
    """The layer around the application."""

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self._app, self._config = app, config
        self._hosts = own_hosts(config)
        schemes = ("https",) if config.is_secure else ("http", "https")
        self._origins = frozenset(f"{scheme}://{host}" for host in self._hosts for scheme in schemes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    answered.setdefault(name, value)
                if self._config.is_secure:
                    answered.setdefault("Strict-Transport-Security", "max-age=31536000")
            await send(message)

        refused = self._refuse(scope, headers)
        await (refused or self._app)(scope, receive, guarded)

    def _refuse(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        if headers.getlist("host")[1:] or headers.get("host", "").lower() not in self._hosts:
            return _error(421, "this is not the name of this server (see `hosts` and `public_url`)")
        if scope["method"] not in SAFE and is_forged(headers, self._origins):
            return _error(403, "the request was made by a page of another origin")
        length = headers.get("content-length", "0")
        streamed = scope["method"] == "PUT" and scope["path"].startswith("/api/v1/sweeps/")
        if not streamed and (not length.isdigit() or int(length) > self._config.limits.body_bytes):
            return _error(413, f"at most {self._config.limits.body_bytes:,} bytes")
        return None


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status_code=status)


def peer_of(scope: Scope, config: Config) -> str:
    """The other end of the connection; behind a proxy that is believed, the one that it names last."""
    client: Any = scope.get("client")
    peer = str(client[0]) if client else "unix"
    proxy = config.login.proxy
    if proxy is not None and proxy.trusts(peer):
        named = Headers(scope=scope).get("x-forwarded-for", "").rpartition(",")[2].strip()
        return named or peer
    return peer
