"""The application: from the table of routes to who may and what is answered."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route as Endpoint
from starlette.types import ASGIApp

from evalrun.errors import ExitCode, UserError
from evalrun.server.accounts import Accounts, Person, rank
from evalrun.server.asked import Asked, Json, Refused
from evalrun.server.config import Config
from evalrun.server.database import Away, Database, Queue
from evalrun.server.index import Index
from evalrun.server.jobs import Jobs
from evalrun.server.live import Live
from evalrun.server.memory import Memory
from evalrun.server.routes import ROUTES, Route
from evalrun.server.security import Guard, TooMany, peer_of
from evalrun.tracking.catalog import SweepRow
from evalrun.tracking.events import acting_as
from evalrun.tracking.finding import Found
from evalrun.tracking.store import Store

HERE = Path(__file__).parent
THREADS = 16
_ELSEWHERE = ("look:sweep", "look:live", "look:progress")
"""What there is of a sweep that runs elsewhere."""
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")


@dataclass
class Server:
    """All that routes share."""

    store: Store
    config: Config
    database: Database
    live: Live = field(default_factory=Live)
    failures: TooMany = field(init=False)
    denials: TooMany = field(default_factory=lambda: TooMany(10))
    accounts: Accounts = field(init=False)
    index: Index = field(init=False)
    jobs: Jobs = field(init=False)
    pages: Memory[tuple[bytes, str | None]] = field(default_factory=lambda: Memory(500))
    runs: Memory[Found] = field(default_factory=lambda: Memory(500))
    seen: Memory[list[SweepRow]] = field(default_factory=lambda: Memory(50))
    _blind: tuple[float, frozenset[str]] = (0.0, frozenset())

    def __post_init__(self) -> None:
        self.accounts = Accounts(self.database, self.config, self.store)
        self.index, self.jobs = Index(self.store), Jobs(self.store)
        self.failures = TooMany(self.config.limits.logins_a_minute)

    @property
    def cookie(self) -> str:
        """The name of the session's cookie. By plain http it holds the port: browsers ignore ports there."""
        return "__Host-evalrun" if self.config.is_secure else f"evalrun-{self.config.port}"

    def blinded(self) -> frozenset[str]:
        """Sweeps of which a blind queue is open; read anew every second, and after every change here."""
        until, known = self._blind
        if time.monotonic() > until:
            query = sa.select(Queue.sweep).where(Queue.closed.is_(None), Queue.spec.contains('"blind":true'))
            known = frozenset(self.database.column(query))
            self._blind = (time.monotonic() + 1, known)
        return known

    def queues_changed(self) -> None:
        """Forget what is known of blind queues."""
        self._blind = (0.0, frozenset())

    @cached_property
    def _templates(self) -> Any:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        from evalrun.reports import numbers
        from evalrun.reports.visible import visible
        from evalrun.server.look import asset_names, day

        made = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
            finalize=lambda value: visible(value) if type(value) is str else value,
        )  # fmt: skip
        made.globals.update(numbers=numbers, day=day, assets=asset_names())
        return made

    def render(self, template: str, **values: Any) -> str:
        """A page of the server's own."""
        return str(self._templates.get_template(template).render(server=self, **values))


def make_app(server: Server) -> ASGIApp:
    """The application of a server."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield
        server.database.close()

    endpoints = [
        Endpoint(route.path, partial(_answer, server, route), methods=[route.method]) for route in ROUTES
    ]
    handlers: dict[Any, Any] = {404: partial(_no_route, server), 405: partial(_no_route, server)}
    app = Starlette(routes=endpoints, lifespan=lifespan, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, server.config)


@cache
def _function(name: str) -> Callable[[Asked], Any]:
    module, _, attribute = name.partition(":")
    found: Callable[[Asked], Any] = getattr(importlib.import_module(f"evalrun.server.{module}"), attribute)
    return found


async def _no_route(server: Server, request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return _refused(Asked(request, server), Refused(status, "there is no such page"))


async def _answer(server: Server, route: Route, request: Request) -> Response:
    asked = Asked(request, server)
    function = _function(route.function)
    try:
        if route.method == "POST":
            asked.body = await _body(request, server.config.limits.body_bytes)
        if inspect.iscoroutinefunction(function):
            await anyio.to_thread.run_sync(_check, asked, route)
            answer = await function(asked)
        else:
            answer = await anyio.to_thread.run_sync(_whole, asked, route, function)
        return answer if isinstance(answer, Response) else Json(answer)
    except Refused as error:
        return _refused(asked, error)
    except UserError as error:
        status = {ExitCode.GATE_FAILED: 409, ExitCode.INCOMPLETE: 503}.get(error.exit_code, 400)
        return _refused(asked, Refused(status, "; ".join(str(problem) for problem in error.problems)))
    except Away:
        what = "the database cannot be reached; nothing was changed, try again in a moment"
        return _refused(asked, Refused(503, what, {"Retry-After": "5"}))
    except ClientDisconnect:
        return Response(status_code=400)


async def _body(request: Request, most: int) -> bytes:
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > most:
            raise Refused(413, f"at most {most:,} bytes")
    return bytes(found)


def _whole(asked: Asked, route: Route, function: Callable[[Asked], Any]) -> Any:
    _check(asked, route)
    with acting_as(asked.person.actor):
        return function(asked)


def _check(asked: Asked, route: Route) -> None:
    """Who asks, of what, and whether they may. Raises Refused."""
    person = _who(asked)
    if person is not None:
        asked.person = person
    if route.needs == "anyone":
        return
    if person is None:
        raise Refused(401, "sign in, or send a token", {"WWW-Authenticate": "Bearer"})
    _find(asked, route)
    if route.needs == "person":
        if all(rank(role) < 0 for role in person.grants.values()):
            raise Refused(403, "no role was given to you: ask an admin")
        return
    project = asked.project or "*"
    names = asked.request.path_params
    if asked.row is not None and not asked.sees(asked.row) and asked.queue is None:
        raise Refused(404, "there is no such sweep")
    if project != "*" and not person.may("viewer", project) and not person.may(route.needs, project):
        raise Refused(404, f"there is no such {next(iter(names), 'page')}")
    if route.needs == "feedback" and not asked.project:
        if not any(person.may("feedback", each) for each in person.grants):
            raise Refused(403, "this needs a token for feedback")
    elif not person.may(route.needs, project):
        _note_denial(asked, route, person)
        raise Refused(403, f"this needs the role {route.needs}; yours is {person.role(project) or 'none'}")


def _note_denial(asked: Asked, route: Route, person: Person) -> None:
    """Into the store's trail; of one person no more than a few a minute."""
    if asked.server.denials.blocks(person.id):
        return
    asked.server.denials.failed(person.id)
    with acting_as(person.actor):
        detail = {"route": f"{route.method} {route.path}", "project": asked.project}
        asked.server.store.append_event("deny", detail)


def _who(asked: Asked) -> Person | None:
    server, headers = asked.server, asked.request.headers
    peer = peer_of(asked.request.scope, server.config)
    given = headers.get("authorization", "")
    if given:
        if server.failures.blocks(peer):
            raise Refused(429, "too many failed attempts; wait a minute", {"Retry-After": "60"})
        scheme, _, secret = given.partition(" ")
        person = server.accounts.by_token(secret.strip()) if scheme.lower() == "bearer" else None
        if person is None:
            server.failures.failed(peer)
            challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            raise Refused(401, "the token is unknown, revoked or has run out", challenge)
        return person
    proxied = _by_proxy(asked)
    if proxied is not None:
        return proxied
    cookie = asked.request.cookies.get(server.cookie)
    return server.accounts.by_session(cookie) if cookie else None


def _by_proxy(asked: Asked) -> Person | None:
    """Whom a proxy names, where the other end of the connection is one that is trusted."""
    server, scope = asked.server, asked.request.scope
    proxy, client = server.config.login.proxy, scope.get("client")
    if proxy is None or client is None or not proxy.trusts(str(client[0])):
        return None
    headers = Headers(scope=scope)
    names = headers.getlist(proxy.user_header)
    if not names or not names[0].strip():
        return None
    if len(names) > 1 or not names[0].isprintable() or len(names[0]) > 200:
        raise Refused(400, "the proxy names no one person")
    name = names[0].strip()
    groups = [each.strip() for each in headers.get(proxy.groups_header, "").split(",") if each.strip()]
    ident = server.accounts.person("proxy", name, groups=groups)
    if server.accounts.is_disabled(ident):
        raise Refused(403, "this person was shut out")
    return server.accounts.known(ident, name, "proxy", groups)


def _find(asked: Asked, route: Route) -> None:
    """The project, sweep or queue that the path names. Raises Refused (404) where there is none."""
    names: Mapping[str, Any] = asked.request.path_params
    if "project" in names:
        asked.project = names["project"]
    elif "queue" in names:
        asked.queue = asked.server.database.first(sa.select(Queue).where(Queue.id == names["queue"]))
        if asked.queue is None:
            raise Refused(404, "there is no such queue")
        asked.project, asked.row = asked.queue.project, asked.server.index.get(asked.queue.sweep)
    elif "sweep" in names:
        ulid = names["sweep"]
        if not _ULID.match(ulid):
            raise Refused(404, "there is no such sweep")
        asked.row = asked.server.index.get(ulid)
        elsewhere = asked.server.live.elsewhere.get(ulid)
        if route.function.startswith(("push:", "live:")) and route.method != "GET":
            asked.project = _function("push:project_of")(asked)
            asked.row = None
        elif asked.row is None and elsewhere is not None and route.function in _ELSEWHERE:
            asked.project = elsewhere.project
        elif asked.row is None:
            raise Refused(404, "there is no such sweep")
        else:
            asked.project = asked.row.project


def _refused(asked: Asked, error: Refused) -> Response:
    request = asked.request
    if asked.is_api or (request.method != "GET" and not asked.is_form):
        return Json({"error": error.what}, status_code=error.status, headers=error.headers)
    if error.status == 401 and request.method == "GET" and "authorization" not in request.headers:
        return RedirectResponse("/sign-in", 303)
    text = asked.server.render("error.html.j2", asked=asked, what=error.what, status=error.status)
    return HTMLResponse(text, status_code=error.status, headers=error.headers)
