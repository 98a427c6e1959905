"""Who else evaluates on this machine, or asks the same endpoint, while a sweep runs.

Each sweep that is running has a small file in a folder that all users of the machine share: an id, when it
began, and digests of the endpoints that it asks (no names, no keys). It holds a lock on the file as long as
it lives, so that what a killed process leaves behind counts for nothing. Twice a second each looks who else
is there; both see it, whichever began first.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from evalrun.frozen import frozen

PLACE = "EVALRUN_RUNNING"
"""The variable that names another folder for the files; empty: nobody is looked for, or told of us."""
LOOK_S = 0.5
_PLACES = ("/dev/shm", "/run/lock", "/tmp")
_NAME = "evalrun-running"
_BYTES = 16_384
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104


def endpoint_digest(endpoint: str) -> str | None:
    """What stands for an endpoint's server: whichever path, key and name of this machine it is asked by. None
    where it is no server."""
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    port = port or (443 if parts.scheme == "https" else 80)
    return sha256(f"{'here' if host in _LOCAL else host}:{port}".encode()).hexdigest()[:32]


@dataclass(slots=True)
class _Other:
    """Another sweep: what it asks, and when it was there (seconds of our monotonic clock)."""

    endpoints: frozenset[str]
    began: float
    seen: float


@frozen
class Beside:
    """How long others were there during a span of `of_s` seconds: on this machine, and on one's endpoint."""

    sweeps: int = 0
    seconds: float = 0.0
    same_endpoint_s: float = 0.0
    of_s: float = 0.0

    def sentence(self) -> str:
        """What to say beside the speed; empty where nobody was there."""
        if not self.sweeps:
            return ""
        one = self.sweeps == 1
        who = "another evaluation" if one else f"{self.sweeps} other evaluations"
        did = "ran on this machine"
        long = self.seconds
        if self.same_endpoint_s > 0:
            did, long = "asked the same endpoint", self.same_endpoint_s
        return f"{who} {did} for {long:.1f} of the {self.of_s:.1f} s, so the speed is not the model's alone"


class Neighbours:
    """A context around a sweep: others are told of it, and watched. Whatever goes wrong with the files, the
    sweep goes on without."""

    def __init__(self, endpoints: Iterable[str], place: Path | None = None) -> None:
        digests = {digest for each in endpoints if (digest := endpoint_digest(each))}
        self._mine = frozenset(digests)
        self._place = _place() if place is None else place
        self._file: Path | None = None
        self._descriptor = -1
        self._others: dict[str, _Other] = {}
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._place is None:
            return self
        with contextlib.suppress(OSError, RuntimeError):  # the latter where no thread can be started
            _make(self._place)
            self._file = self._place / f"{os.getpid()}-{os.urandom(8).hex()}.json"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._file, flags, 0o644)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(self._descriptor, 0o644)
            document = {"began": time.time(), "endpoints": sorted(self._mine)}
            os.write(self._descriptor, json.dumps(document).encode())
            self._look()
            thread = threading.Thread(target=self._watch, name="evalrun-neighbours", daemon=True)
            thread.start()
            self._thread = thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):
            if self._file is not None:
                self._file.unlink(missing_ok=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def during(self, began: float, ended: float, endpoint: str) -> Beside:
        """Who was there between two moments (`time.perf_counter`) in which `endpoint` was asked."""
        if self._descriptor < 0:
            return Beside()
        self._look()
        mine = endpoint_digest(endpoint)
        sweeps, seconds, same = 0, [], []
        with self._guard:
            for other in self._others.values():
                span = (max(began, other.began), min(ended, other.seen))
                if span[1] > span[0]:
                    sweeps += 1
                    seconds.append(span)
                    if mine is not None and mine in other.endpoints:
                        same.append(span)
        return Beside(sweeps, _covered(seconds), _covered(same), ended - began)

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        now, wall = time.perf_counter(), time.time()
        with contextlib.suppress(OSError), self._guard:
            for path in [*(self._place or Path()).glob("*.json")]:
                if path == self._file:
                    continue
                document = _living(path)
                if document is None:
                    continue
                began = now - max(0.0, wall - document[0])
                known = self._others.setdefault(path.name, _Other(document[1], began, now))
                known.seen = now


def _covered(spans: list[tuple[float, float]]) -> float:
    """The seconds that any of the spans covers."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def _place() -> Path | None:
    if (named := os.environ.get(PLACE)) is not None:
        return Path(named) if named else None
    for each in (*_PLACES, os.environ.get("TMPDIR", "")):
        if each and os.access(each, os.W_OK | os.X_OK):
            return Path(each) / _NAME
    return None


def _make(place: Path) -> None:
    """The folder, which all users may write into and nobody may remove another's files from."""
    with contextlib.suppress(FileExistsError):
        place.mkdir()
        place.chmod(0o1777)
    if not stat.S_ISDIR(place.lstat().st_mode):
        raise NotADirectoryError(str(place))


def _living(path: Path) -> tuple[float, frozenset[str]] | None:
    """When the sweep of a file began (Unix seconds) and what it asks; None where none lives that holds it, or
    the file is none of ours. What a dead process of ours left is removed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            found = json.loads(os.read(descriptor, _BYTES))
            return float(found["began"]), frozenset(map(str, found["endpoints"]))
        if status.st_uid == os.geteuid() and time.time() - status.st_mtime > 2 * LOOK_S:
            path.unlink(missing_ok=True)  # a younger one may be about to take its lock
        return None
    except (OSError, ValueError, TypeError, KeyError):
        return None
    finally:
        os.close(descriptor)
