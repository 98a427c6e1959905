"""Running sweeps, for all who watch one. One task looks twice a second, however many watch; each event holds
the whole state, so whoever reads a stream again misses nothing.

A sweep that runs elsewhere is told of by `push --live`: counts and scores, no answers. What was told is in
memory alone; after a restart the next second brings it again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import anyio
import anyio.to_thread
import orjson
from pydantic import TypeAdapter, ValidationError

from evalrun.errors import UserError
from evalrun.server.asked import Asked, Refused
from evalrun.server.following import Progress

LOOK_S, COMMENT_S, FORGET_S, LATE_S, MOST_ELSEWHERE = 0.5, 15.0, 3600.0, 15.0, 200


class Followed(Protocol):
    """A sweep that is watched: `offset` grows with every change, `ended` holds when there is no more."""

    state: Progress | None
    offset: int
    ended: bool

    def look(self) -> bool:
        """Read what is new; whether there was anything."""


@dataclass
class Elsewhere:
    """A sweep that runs on another machine, as it was last told."""

    project: str
    name: str
    actor: str
    state: Progress | None = None
    offset: int = 0
    ended: bool = False
    heard: float = field(default_factory=time.monotonic)
    _seen: int = -1

    def hear(self, state: Progress) -> None:
        """The news of this second."""
        self.state, self.heard = state, time.monotonic()
        self.offset += 1

    def look(self) -> bool:
        """Whether something was told since; or nothing was for so long that it has to be said."""
        late = time.monotonic() - self.heard > LATE_S
        if late and self.state is not None and self.state.status == "running":
            self.state = replace(self.state, status="not heard of for a while", rate=None, left_s=None)
            self.offset += 1
        changed, self._seen = self.offset != self._seen, self.offset
        return changed


@dataclass
class Live:
    """All sweeps that someone watches. `stop` ends every stream at once, so that the server can end."""

    followers: dict[str, Followed] = field(default_factory=dict)
    elsewhere: dict[str, Elsewhere] = field(default_factory=dict)
    watchers: Counter[str] = field(default_factory=Counter)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    _news: dict[str, asyncio.Condition] = field(default_factory=dict)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _wakers: list[asyncio.Future[None]] = field(default_factory=list)

    def hear(self, ulid: str, project: str, name: str, actor: str, state: Progress) -> None:
        """News of a sweep that runs elsewhere."""
        for old in [key for key, each in self.elsewhere.items() if time.monotonic() - each.heard > FORGET_S]:
            self.elsewhere.pop(old).ended = True
        if ulid not in self.elsewhere and len(self.elsewhere) >= MOST_ELSEWHERE:
            raise Refused(429, f"{MOST_ELSEWHERE} sweeps are told of already")
        if ulid in self.elsewhere and self.elsewhere[ulid].project != project:
            raise Refused(409, "the sweep is told of in another project")
        self.elsewhere.setdefault(ulid, Elsewhere(project, name, actor)).hear(state)

    def arrived(self, ulid: str) -> None:
        """The sweep is in the store now: who watches it is told to look there."""
        known = self.elsewhere.pop(ulid, None)
        if known is not None and known.state is not None:
            known.ended = True
            known.hear(replace(known.state, status="here"))

    async def stream(self, ulid: str, begin: Callable[[], Followed]) -> AsyncIterator[bytes]:
        """Server-sent events: `state` whenever something is new, `end` when the sweep is, `bye` at a stop."""
        self.watchers[ulid] += 1
        news = self._news.setdefault(ulid, asyncio.Condition())
        told, quiet = -2, time.monotonic()
        try:
            if ulid not in self._tasks or self._tasks[ulid].done():
                self.followers[ulid] = await anyio.to_thread.run_sync(begin)
                self._tasks[ulid] = asyncio.create_task(self._follow(ulid, news))
            while not self.stop.is_set():
                follower = self.followers[ulid]
                if follower.state is not None and follower.offset != told:
                    told, quiet = follower.offset, time.monotonic()
                    yield _event("end" if follower.ended else "state", asdict(follower.state), told)
                    if follower.ended:
                        return
                elif follower.ended and follower.state is None:
                    break
                elif time.monotonic() - quiet > COMMENT_S:
                    quiet = time.monotonic()
                    yield b": still there\n\n"
                async with news:
                    with anyio.move_on_after(1.0):
                        await news.wait()
            yield b"event: bye\ndata: {}\nretry: 2000\n\n"
        finally:
            self.watchers[ulid] -= 1

    async def _follow(self, ulid: str, news: asyncio.Condition) -> None:
        follower = self.followers[ulid]
        while not self.stop.is_set() and self.watchers[ulid] > 0:
            try:
                changed = await anyio.to_thread.run_sync(follower.look)
            except (UserError, OSError):  # deleted, or being replaced
                if follower.state is not None:
                    follower.state = replace(follower.state, status="gone")
                follower.ended, changed = True, True
                follower.offset += 1
            if changed:
                async with news:
                    news.notify_all()
            if follower.ended:
                return
            await asyncio.sleep(LOOK_S)

    def end(self) -> None:
        """Let every stream say goodbye."""
        self.stop.set()
        for ulid, news in self._news.items():
            if self.watchers[ulid]:
                self._wakers.append(asyncio.ensure_future(_wake(news)))


async def _wake(news: asyncio.Condition) -> None:
    async with news:
        news.notify_all()


def _event(name: str, state: dict[str, Any], at: int) -> bytes:
    return f"event: {name}\nid: {at}\ndata: {orjson.dumps(state).decode()}\n\n".encode()


def tell(asked: Asked) -> Any:
    """How far a sweep is that runs elsewhere."""
    ulid, name = str(asked.request.path_params["sweep"]), asked.text("name", most=120)
    try:
        state = TypeAdapter(Progress).validate_python(asked.values.get("state"))
    except ValidationError as error:
        raise Refused(400, f"'state' is not that of a sweep: {error.errors()[0]['msg']}") from error
    if state.sweep != ulid:
        raise Refused(400, "'state' is that of another sweep")
    if asked.server.index.get(ulid) is not None:
        return {"state": "present"}
    asked.server.live.hear(ulid, asked.project, name, asked.person.actor, state)
    return {"state": "told"}
