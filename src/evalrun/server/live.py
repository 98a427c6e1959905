"""A sweep that is running, as its journals tell, for all who watch it at once.

A journal is read from where it was read to before, never its last, torn line. One task looks twice a second,
however many watch; whoever reads the stream again goes on from the state of that moment, since each event
holds the whole of it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import orjson

from evalrun.errors import UserError
from evalrun.lines import read_record
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.running import JOURNAL

LOOK_S, COMMENT_S, RATE_S = 0.5, 15.0, 30.0
_SLICE = 8 << 20


@dataclass
class _Run:
    run: str
    of: int | None
    journal: Path
    at: int = 0
    seen: set[int] = field(default_factory=set)
    states: Counter[str] = field(default_factory=Counter)
    sums: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    ended: bool = False
    last: float = 0.0
    final: dict[str, Any] | None = None

    def read(self) -> None:
        try:
            with self.journal.open("rb") as file:
                file.seek(self.at)
                data = file.read(_SLICE)
            self.last = self.journal.stat().st_mtime
        except OSError:
            return  # not begun yet, or finished between two looks
        whole = data.rfind(b"\n") + 1
        self.at += whole
        for line in data[:whole].splitlines(keepends=True):
            record = read_record(line)
            if record is not None:
                self._add(record)

    def _add(self, record: dict[str, Any]) -> None:
        key = hash((record["sample_id"], record.get("repeat")))
        if key in self.seen:
            return
        self.seen.add(key)
        self.states[str(record.get("status"))] += 1
        for name, value in (record.get("scores") or {}).items():
            if isinstance(value, int | float) and math.isfinite(value):
                n, total, squares = self.sums.get(name, (0, 0.0, 0.0))
                self.sums[name] = n + 1, total + value, squares + value * value

    def finish(self, folder: SweepFolder) -> None:
        """What a finished run counts is in its results."""
        results = folder.run(self.run)
        counts = results.counts
        self.states = Counter({name: getattr(counts, name) for name in _STATES})
        self.ended, self.of = True, counts.samples
        whole = {each.name: each for each in results.metrics if not each.slice and each.value is not None}
        name = next((name for name in self.sums if name in whole), next(iter(whole), None))
        if name is not None:
            parts = ("value", "n", "ci_low", "ci_high")
            self.final = {"name": name, **{part: getattr(whole[name], part) for part in parts}}

    def score(self) -> dict[str, Any] | None:
        """The first score's mean. Of samples so far: quick ones come first, so it is no estimate of the end;
        the interval (normal, 95 %) says how far the mean of so many can be relied on."""
        if self.final is not None or not self.sums:
            return self.final
        name, (n, total, squares) = next(iter(self.sums.items()))
        mean = total / n
        half = 1.96 * math.sqrt(max(0.0, squares - total * mean) / max(1, n - 1) / n) if n > 1 else None
        low, high = (None, None) if half is None else (mean - half, mean + half)
        return {"name": name, "value": mean, "n": n, "ci_low": low, "ci_high": high}

    def document(self) -> dict[str, Any]:
        return {
            "run": self.run, "done": sum(self.states.values()), "of": self.of, "ended": self.ended,
            **{name: self.states[name] for name in _STATES}, "score": self.score(),
        }  # fmt: skip


_STATES = ("scored", "unparsed", "refused", "failed")


class Follower:
    """One running sweep. `state` is what its watchers are told, `offset` grows with every change."""

    def __init__(self, folder: SweepFolder) -> None:
        manifest = folder.manifest()
        self.folder, self.state, self.offset = folder, dict[str, Any](), -1
        self._runs = []
        for planned in manifest.plan:
            n = manifest.datasets.get(planned.dataset, {}).get("n")
            of = n * (planned.repeats or 1) if isinstance(n, int) else None
            self._runs.append(_Run(planned.run, of, folder.path / "runs" / planned.run / JOURNAL))
        self._pace: deque[tuple[float, int]] = deque()
        self.ended = False

    def look(self) -> bool:
        """Read what is new; whether there was anything."""
        going = self.folder.is_locked()  # looked at first: what is written last is read once more
        finished = set(self.folder.run_ids())
        for run in self._runs:
            if not run.ended:
                run.read()
                if run.run in finished:
                    run.finish(self.folder)
        offset = sum(run.at for run in self._runs) + sum(run.ended for run in self._runs) + (not going)
        changed = offset != self.offset or not self.state
        self.offset, self.ended = offset, not going
        self.state = self._document(going)
        return changed

    def _document(self, going: bool) -> dict[str, Any]:
        runs = [run.document() for run in self._runs]
        done, of = sum(run["done"] for run in runs), [run["of"] for run in runs]
        now = time.monotonic()
        self._pace.append((now, done))
        while now - self._pace[0][0] > RATE_S and len(self._pace) > 2:
            self._pace.popleft()
        seconds, samples = now - self._pace[0][0], done - self._pace[0][1]
        rate = samples / seconds if seconds > 0 and going else None
        total = sum(of) if None not in of else None
        left = (total - done) / rate if rate and total is not None else None
        last = max(run.last for run in self._runs) if self._runs else 0.0
        return {
            "sweep": self.folder.ulid, "status": self.folder.status() if not going else "running",
            "done": done, "of": total, "rate": rate, "left_s": left,
            "last_sample_s": round(time.time() - last, 1) if last else None, "runs": runs,
        }  # fmt: skip


@dataclass
class Live:
    """All sweeps that someone watches. `stop` ends every stream at once, so that the server can end."""

    followers: dict[str, Follower] = field(default_factory=dict)
    watchers: Counter[str] = field(default_factory=Counter)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    _news: dict[str, asyncio.Condition] = field(default_factory=dict)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _wakers: list[asyncio.Future[None]] = field(default_factory=list)

    async def stream(self, folder: SweepFolder) -> AsyncIterator[bytes]:
        """Server-sent events: `state` whenever something is new, `end` when the sweep is, `bye` at a stop."""
        ulid = folder.ulid
        self.watchers[ulid] += 1
        news = self._news.setdefault(ulid, asyncio.Condition())
        if ulid not in self._tasks or self._tasks[ulid].done():
            self.followers[ulid] = await anyio.to_thread.run_sync(Follower, folder)
            self._tasks[ulid] = asyncio.create_task(self._follow(ulid, news))
        told, quiet = -2, time.monotonic()
        try:
            while not self.stop.is_set():
                follower = self.followers[ulid]
                if follower.state and follower.offset != told:
                    told, quiet = follower.offset, time.monotonic()
                    yield _event("end" if follower.ended else "state", follower.state, told)
                    if follower.ended:
                        return
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
                follower.ended, follower.state, changed = True, {**follower.state, "status": "gone"}, True
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
