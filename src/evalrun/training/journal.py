"""The journal of a tracked training, `metrics.jsonl`: a line for each call of log, with a checksum.

`{"step": 10, "t": 1796002245.1, "m": {"loss": 1.2}, "odd": {"grad_norm": "nan"}}`. A line with `from` says
that the training was taken up again at that step, and one with `gap` that so many lines could not be written.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from evalrun.atomic import open_private
from evalrun.lines import is_whole, with_checksum
from evalrun.tracking.plain import clean_text
from evalrun.training.series import Points

MOST_WAITING = 250_000
"""Lines that may wait for the disk, about 100 MB of them; what comes then is dropped and counted."""
PATIENCE_S = 30.0
"""So long the end of a training waits for a disk that does not answer."""
_STUCK_S, _ROOM_S = 1.0, 0.05
FLUSH_S = 0.2
"""Longest time between two writings: with the writing itself a line is durable within 0.25 s."""

Line: TypeAlias = "tuple[int, float, Mapping[str, Any]]"
"""Step, Unix time, and what was logged."""

_NUMBERS: Mapping[str, float] = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class JournalWriter:
    """Appends lines in a thread of its own. `append` is all that the training's thread does.

    What goes wrong is told to `on_error` once, and never raised: lines that could not be written, or were
    dropped since the disk did not keep up, are counted, and their number is written when there is room again.
    `on_lines` gets the lines as they are written, and nothing while there are none: for alerts.
    """

    def __init__(
        self, path: Path, on_error: Callable[[Exception], None], on_lines: Callable[[Sequence[Line]], None]
    ) -> None:
        self._path, self._on_error, self._on_lines = path, on_error, on_lines
        self._waiting: list[Line] = []
        self._jobs: list[Callable[[], object]] = []
        self._stop = threading.Event()
        self._lost = self._dropped = self._counted = 0
        self._busy_since: float | None = None
        self._descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
        self._end = _whole_size(self._descriptor)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="evalrun-track", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Lines that could not be written, and of which the journal does not tell yet."""
        return self._lost + self._dropped - self._counted

    def append(self, line: Line) -> None:
        """Take a line, at once; where too many wait, it is dropped and counted."""
        if len(self._waiting) >= MOST_WAITING and not self._has_room():
            self._dropped += 1
            return
        self._waiting.append(line)

    def later(self, job: Callable[[], object]) -> None:
        """Do something that writes to the disk, in the writer's thread."""
        self._jobs.append(job)

    def close(self) -> bool:
        """Write what is left, and end the thread. False where the disk does not answer: what waits is lost,
        and nothing more should be written."""
        self._stop.set()
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            return False
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        return True

    def _has_room(self) -> bool:
        """Whether there is room again after a moment: a loop that only logs is faster than any disk. Where
        the disk hangs (or the process was forked, and nobody writes) there is no waiting."""
        since = self._busy_since
        stuck = since is not None and time.monotonic() - since > _STUCK_S
        end = 0.0 if stuck or not self._thread.is_alive() else time.monotonic() + _ROOM_S
        while len(self._waiting) >= MOST_WAITING and time.monotonic() < end:
            time.sleep(0.001)
        return len(self._waiting) < MOST_WAITING

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_S):
            self.flush()
        self.flush()

    def flush(self) -> None:
        """Write and sync what waits."""
        with self._lock:
            count = len(self._waiting)
            # The training's thread only appends: what stands in front is ours to take away.
            lines = self._waiting[:count]
            del self._waiting[:count]
            dropped = self._dropped
            if dropped > self._counted:
                self._lost += dropped - self._counted
                self._counted = dropped
                self._on_error(OSError(f"the disk did not keep up: {dropped:,} lines were dropped"))
            self._busy_since = time.monotonic()
            if lines or self._lost or self._stop.is_set():
                self._write(lines)
            while self._jobs:
                try:
                    self._jobs.pop(0)()
                except Exception as error:
                    self._on_error(error)
            self._busy_since = None
            with contextlib.suppress(Exception):
                self._on_lines(lines)

    def _write(self, lines: Sequence[Line]) -> None:
        gap = [with_checksum(orjson.dumps({"gap": self._lost}))] if self._lost else []
        at = self._end
        try:
            view = memoryview(b"".join([*gap, *map(encode, lines)]))
            while view:
                written = os.pwrite(self._descriptor, view, at)
                at, view = at + written, view[written:]
            os.fdatasync(self._descriptor)
        except Exception as error:  # whatever it is, it must not end a training
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._end)  # no torn line in front of what may follow
            self._lost += len(lines)
            self._on_error(error)
            return
        self._end, self._lost = at, 0


def encode(line: Line) -> bytes:
    """A line of the journal. Values that are no numbers stand in `odd`; what has no number at all is left
    out."""
    step, wall_s, values = line
    numbers: dict[str, float] = {}
    odd: dict[str, str] = {}
    for name, value in values.items():
        try:
            got = float(value)
        except Exception:  # noqa: S112 - a text, an image, a tensor of many: nothing for a series
            continue
        if math.isfinite(got):
            numbers[clean_text(str(name))] = got
        else:
            odd[clean_text(str(name))] = "nan" if math.isnan(got) else "inf" if got > 0 else "-inf"
    record: dict[str, Any] = {"step": step, "t": wall_s, "m": numbers}
    if "from" in values and step == values["from"] and len(values) == 1:
        record = {"step": step, "t": wall_s, "from": step}
    elif odd:
        record["odd"] = odd
    return with_checksum(orjson.dumps(record))


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal; torn or damaged lines are passed over."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if (record := _record(line)) is not None:
                yield record


def journal_points(path: Path, points: Points) -> tuple[list[int], int]:
    """Put a journal's points into `points`; the steps at which it was taken up again, and how many lines
    could not be written. What was logged at or after such a step before it is given up."""
    resumed: list[int] = []
    lost = 0
    for record in read_journal(path):
        step, wall = record.get("step"), record.get("t")
        lost += record["gap"] if isinstance(record.get("gap"), int) else 0
        if type(step) is not int or not isinstance(wall, int | float):
            continue
        if "from" in record:
            resumed.append(step)
            points.truncate(step)
            continue
        for name, value in (record.get("m") or {}).items():
            points.add(step, name, value, wall)
        for name, reason in (record.get("odd") or {}).items():
            points.add(step, name, _NUMBERS.get(reason, math.nan), wall)
    return resumed, lost


def last_line(path: Path) -> tuple[int, float] | None:
    """Step and time of the last line that is not of the machine, read from the end; None without one."""
    return next(((record["step"], float(record.get("t") or 0.0)) for record in _from_the_end(path)), None)


def last_steps(path: Path) -> dict[str, int]:
    """The last step of each metric that stands near the end."""
    found: dict[str, int] = {}
    for record in _from_the_end(path):
        for name in (*(record.get("m") or ()), *(record.get("odd") or ())):
            found.setdefault(name, record["step"])
    return found


def _from_the_end(path: Path) -> Iterator[dict[str, Any]]:
    """The last lines that are not of the machine, the last first."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        for line in reversed(file.read().splitlines(keepends=True)):
            record = _record(line)
            values = (record or {}).get("m") or {}
            machine = bool(values) and all(str(name).startswith("system.") for name in values)
            if record is not None and type(record.get("step")) is int and not machine:
                yield record


_TAIL = 1 << 18


def _record(line: bytes) -> dict[str, Any] | None:
    if is_whole(line):
        with contextlib.suppress(orjson.JSONDecodeError):
            record = orjson.loads(line)
            return record if isinstance(record, dict) else None
    return None


def _whole_size(descriptor: int) -> int:
    """Where the next line goes: behind the last whole one, a torn one is cut off."""
    size = os.fstat(descriptor).st_size
    keep, at = 0, size
    while at > 0:
        start = max(0, at - (1 << 16))
        newline = os.pread(descriptor, at - start, start).rfind(b"\n")
        if newline >= 0:
            keep = start + newline + 1
            break
        at = start
    if keep < size:
        os.ftruncate(descriptor, keep)
    return keep
