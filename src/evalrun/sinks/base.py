"""What a sink is: items made from a finished sweep folder, each of which may be sent twice, counting once."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field

from evalrun.secrets import scrub
from evalrun.suite.findings import complaint
from evalrun.suite.values import Spec
from evalrun.tracking.folder import SweepFolder

TIMEOUT_S = 10.0
"""How long a server may be silent within one request."""

LONGEST_S, MOST_BYTES = 60.0, 1 << 24
"""How long, and how much, one answer may be in all."""

WORDS = 500
"""So many characters of a server's refusal are kept."""


class Refused(Exception):
    """The server answered that it does not take this (its words); sending the same again will not help."""


class Unreachable(Exception):
    """The server is down, slow or overloaded: the same may be taken later."""


class Partly(Exception):
    """It was taken but for a part, which sending it again would not bring (why); `remote` is its id there."""

    def __init__(self, why: str, remote: str = "") -> None:
        super().__init__(why)
        self.remote = remote


@dataclass(frozen=True)
class Item:
    """A part of a sweep. `digest` names its content: an item that was sent is sent again only where that
    changed. `body` makes what the sink's `send` takes, when it is needed."""

    key: str
    digest: str
    body: Callable[[], Any]


def check_url(url: str) -> str:
    """An http(s) address without what does not belong into one; a finding of the suite where it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise complaint(f"is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
        raise complaint(
            f"'{scrub(url)}' is no address of a server", "Write http://HOST:PORT or https://HOST."
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise complaint(
            "an address here holds no user, password, query or fragment",
            "Credentials are read from the environment (docs/sinks.md).",
        )
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(check_url)]
"""The address of a server."""


class UrlOptions(Spec):
    """What a sink that is a server is made with."""

    url: Url = Field(description="Address of the server: http://HOST:PORT or https://HOST.")


class Sink(ABC):
    """A tool that results go to. `address` is where, for the receipts: it names a server or a project.

    A sink is made before anything is asked of a model, and raises UserError where it cannot work: a package
    or a variable is missing. Making it sends nothing.
    """

    Options: ClassVar[type[BaseModel]]
    shorthand: ClassVar[str | None] = "url"
    summary: ClassVar[str] = ""

    address: str

    @abstractmethod
    def items(self, folder: SweepFolder) -> Iterable[Item]:
        """The parts of a finished sweep, in the order in which they are sent."""

    @abstractmethod
    def send(self, item: Item) -> str:
        """Send one; returns its id there. Twice leaves one. Raises Refused, Unreachable or Partly."""

    def withdraw(
        self, folder: SweepFolder, run_id: str, remote: str, samples: Sequence[tuple[str, int]]
    ) -> int | None:
        """Delete there what was sent of samples (id, repeat) of a run that is called `remote` there; returns
        how much that was. None: this sink cannot. Raises Refused or Unreachable."""
        return None


SinkT = TypeVar("SinkT", bound=Sink)


def sink(name: str) -> Callable[[type[SinkT]], type[SinkT]]:
    """Declares a class in this folder as the sink of that name: `registry` reads it from the file."""
    return lambda declared: declared


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry credentials to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def call(method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
    """One request. Raises Refused (4xx and redirects, with the server's words) or Unreachable."""
    request = urllib.request.Request(url, body, {"User-Agent": "evalrun", **headers}, method=method)
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S) as answer:
            return _read(answer)
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


def _read(answer: http.client.HTTPResponse) -> bytes:
    """The whole answer; one that trickles or does not end is a server that is ill."""
    parts, size, end = [], 0, time.monotonic() + LONGEST_S
    while part := answer.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES or time.monotonic() > end:
            raise Unreachable("its answer did not end")
    if answer.length:
        raise Unreachable("its answer broke off")
    return b"".join(parts)
