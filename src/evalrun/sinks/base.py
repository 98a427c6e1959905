"""What a sink is: items made from a finished sweep folder, each of which may be sent twice, counting once."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from evalrun.errors import UserError
from evalrun.secrets import scrub
from evalrun.tracking.folder import SweepFolder

TIMEOUT_S = 10.0
"""How long a server may keep one request waiting."""

WORDS = 500
"""So many characters of a server's refusal are kept."""


class Refused(Exception):
    """The server answered that it does not take this (its words); sending the same again will not help."""


class Unreachable(Exception):
    """The server is down, slow or overloaded: the same may be taken later."""


@dataclass(frozen=True)
class Item:
    """A part of a sweep. `digest` names its content: an item that was sent is sent again only where that
    changed. `body` makes what the sink's `send` takes, when it is needed."""

    key: str
    digest: str
    body: Callable[[], Any]


@dataclass(frozen=True)
class Options:
    """What a sink is made with. `content` sends texts of prompts and answers too."""

    url: str
    content: bool = False
    experiment: str = ""


class Sink(Protocol):
    """A tool that results go to."""

    def __init__(self, options: Options) -> None: ...

    def items(self, folder: SweepFolder) -> Iterable[Item]:
        """The parts of a finished sweep, in the order in which they are sent."""

    def send(self, item: Item) -> str:
        """Send one; returns its id there. Sending it twice leaves one. Raises Refused or Unreachable."""


def check_url(url: str, where: str) -> str:
    """An http(s) address without what does not belong into one. Raises UserError."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UserError(f"is no address: {error}", where=where) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            "is no address of a server", where=where, remedy="Write http://HOST:PORT or https://HOST."
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            "an address here holds no user, password, query or fragment",
            where=where,
            remedy="Credentials are read from the environment (docs/sinks.md).",
        )
    return url.rstrip("/")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry credentials to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def call(method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
    """One request. Raises Refused (4xx and redirects, with the server's words) or Unreachable."""
    request = urllib.request.Request(url, body, {"User-Agent": "evalrun", **headers}, method=method)
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        try:
            said = error.read(WORDS * 4).decode(errors="replace").strip()
        except (OSError, http.client.HTTPException):
            said = ""
        words = scrub(f"{error.code} {said or error.reason}")[:WORDS]
        if error.code in (408, 429) or error.code >= 500:
            raise Unreachable(words) from None
        raise Refused(words) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise Unreachable(scrub(str(reason) or type(error).__name__)[:WORDS]) from None
