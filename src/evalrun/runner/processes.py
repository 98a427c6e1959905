"""What the kernel says of processes: memory, processor time and disk traffic of a tree, and its cgroup.

Linux only: elsewhere every reading is None. Reads /proc and /sys, keeps nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from evalrun.frozen import frozen

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CGROUP_ROOT = Path("/sys/fs/cgroup")

_Number = TypeVar("_Number", int, float)


@frozen
class Usage:
    """What processes used since they began; None where it cannot be read. Disk bytes are those that went
    to or came from a device, so what the page cache served is not in them."""

    cpu_s: float | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None


def tree(root: int) -> list[int]:
    """The process and all its descendants that still live; empty when it is gone."""
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        try:
            tasks = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  (hot: no Path made)
        except OSError:
            continue
        found.append(pid)
        for task in tasks:
            children = _read(f"/proc/{pid}/task/{task}/children")
            todo.extend(int(child) for child in (children or "").split())
    return found


def own_tree() -> list[int]:
    """This process and those descendants that share its session. Engines have sessions of their own."""
    mine = os.getpid()
    session = os.getsid(0)
    return [pid for pid in tree(mine) if pid == mine or _session(pid) == session]


def pss_bytes(pids: Iterable[int]) -> int | None:
    """Proportional set size: a page that several processes share is divided among them, so parts add up."""
    return _total(_pss(pid) for pid in pids)


def rss_bytes(pids: Iterable[int]) -> int | None:
    """Resident set size: a page that several processes share counts in each. Costs microseconds."""
    return _total(_rss(pid) for pid in pids)


def usage(pids: Iterable[int]) -> Usage:
    """Processor time (with that of children that ended and were waited for) and disk traffic, summed."""
    listed = list(pids)
    traffic = [_traffic(pid) for pid in listed]
    return Usage(
        _total(_cpu_s(pid) for pid in listed),
        _total(each[0] if each else None for each in traffic),
        _total(each[1] if each else None for each in traffic),
    )


class Cgroup:
    """The memory that the kernel charges to the group of processes (the container) that we are in.

    `peak` is the greatest since the group was made: the kernel does not begin anew for a run.
    """

    def __init__(self, own: Path = Path("/proc/self/cgroup"), root: Path = _CGROUP_ROOT) -> None:
        self._files = _memory_files(own, root)

    @property
    def available(self) -> bool:
        """Whether there is a group with memory accounting."""
        return self._files is not None

    def current_bytes(self) -> int | None:
        """Bytes charged now, page cache included."""
        return None if self._files is None else _integer(self._files[0])

    def peak_bytes(self) -> int | None:
        """The most bytes that were ever charged at once."""
        return None if self._files is None else _integer(self._files[1])


def _memory_files(own: Path, root: Path) -> tuple[Path, Path] | None:
    """The files with current and greatest use: version 2, else version 1. In a container the path that
    /proc names may not be visible; the root of the mount then is our group."""
    groups = {}
    for line in (_read(own) or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        groups[controllers] = path.lstrip("/")
    places = [(root / groups.get("", ""), "memory.current", "memory.peak")]
    if "memory" in groups:
        names = ("memory.usage_in_bytes", "memory.max_usage_in_bytes")
        places.append((root / "memory" / groups["memory"], *names))
        places.append((root / "memory", *names))
    places.append((root, "memory.current", "memory.peak"))
    for folder, current, peak in places:
        if _integer(folder / current) is not None:
            return folder / current, folder / peak
    return None


def _session(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[3]) if fields else None


def _pss(pid: int) -> int | None:
    text = _read(f"/proc/{pid}/smaps_rollup") or ""
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), None)
    return int(line.split()[1]) * 1024 if line else None


def _rss(pid: int) -> int | None:
    fields = (_read(f"/proc/{pid}/statm") or "").split()
    return int(fields[1]) * _PAGE_BYTES if fields else None


def _cpu_s(pid: int) -> float | None:
    fields = _stat(pid)
    return sum(int(field) for field in fields[11:15]) * _TICK_S if fields else None


def _traffic(pid: int) -> tuple[int, int] | None:
    values = {}
    for line in (_read(f"/proc/{pid}/io") or "").splitlines():
        name, _, value = line.partition(": ")
        values[name] = int(value)
    try:
        return values["read_bytes"], values["write_bytes"]
    except KeyError:
        return None


def _stat(pid: int) -> list[str]:
    """The fields after the command name, which stands in brackets and may hold spaces."""
    return (_read(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()


def _read(path: str | Path) -> str | None:
    """The whole file, by the fewest system calls: these are read many times a second."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return b"".join(iter(lambda: os.read(file, 65_536), b"")).decode(errors="replace")
        finally:
            os.close(file)
    except OSError:
        return None


def _integer(path: Path) -> int | None:
    text = (_read(path) or "").strip()
    return int(text) if text.isdigit() else None


def _total(values: Iterable[_Number | None]) -> _Number | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


_SHARE = 0.01
"""The greatest share of one core that reading PSS may take, whatever moves."""
_LISTING_S = 2.0
_MOVED = 0.01
"""The change of resident memory, as a share of it, that asks for another look."""
_AT_LEAST_S = 30.0
"""Without a change PSS is read this often: pages may come to be shared with more or fewer processes."""


@frozen
class Pss:
    """Bytes of the engine's tree and of ours; None where they were not read this time, or cannot be."""

    engine: int | None = None
    client: int | None = None


_JUST_NOW_S = 0.2


class JustRead:
    """What was read of our own processes a moment ago: short runs of one sweep follow each other quickly, the
    kernel walks all pages of a process for its PSS, and for its children all of its threads. Each sweep has
    its own; what is read of engines is always new."""

    def __init__(self) -> None:
        self._listed: tuple[float, list[int]] = float("-inf"), []
        self._read: tuple[float, Sequence[int], int | None] = float("-inf"), (), None

    def own_tree(self) -> list[int]:
        """As the function of that name."""
        now = time.perf_counter()
        if now - self._listed[0] >= _JUST_NOW_S:
            self._listed = now, own_tree()
        return self._listed[1]

    def pss_bytes(self, pids: Sequence[int]) -> int | None:
        """As the function of that name."""
        now = time.perf_counter()
        if now - self._read[0] >= _JUST_NOW_S or self._read[1] != pids:
            self._read = now, pids, pss_bytes(pids)
        return self._read[2]


class MemoryWatch:
    """Keeps the lists of processes, and reads their memory when it is worth it.

    `engine_pid` is asked each time, since an engine may start late and may be replaced. `just_read` is what
    the runs of one sweep share.
    """

    def __init__(self, engine_pid: Callable[[], int | None], just_read: JustRead | None = None) -> None:
        self._engine_pid = engine_pid
        self._just_read = just_read or JustRead()
        self._root: int | None = None
        self._listed_at = self._read_at = self._due = float("-inf")
        self._resident = 0
        self.engine: Sequence[int] = ()
        self.client: Sequence[int] = ()
        """Process ids of the engine's tree, and ours."""

    def list(self, *, anew: bool) -> None:
        """Bring the lists up to date: with `anew` in any case, else where it is time."""
        now, root = time.perf_counter(), self._engine_pid()
        if anew or root != self._root or now - self._listed_at >= _LISTING_S:
            if root != self._root:
                self._due = self._read_at = float("-inf")
            self._root, self._listed_at = root, now
            self.engine = tree(root) if root is not None else ()
            self.client = self._just_read.own_tree()

    def pss(self, *, anew: bool) -> Pss:
        """What the listed processes have: with `anew` in any case, else where it is time."""
        now = time.perf_counter()
        return self._read() if anew or (now >= self._due and self._worth_it(now)) else Pss()

    def _worth_it(self, now: float) -> bool:
        moved = abs(self._resident_bytes() - self._resident)
        return moved > _MOVED * self._resident or now - self._read_at >= _AT_LEAST_S

    def _read(self) -> Pss:
        began = time.thread_time()  # the walk is this thread's time; waiting for a core is not
        self._resident = self._resident_bytes()
        found = Pss(pss_bytes(self.engine), self._just_read.pss_bytes(self.client))
        self._read_at = time.perf_counter()
        self._due = self._read_at + (time.thread_time() - began) / _SHARE
        return found

    def _resident_bytes(self) -> int:
        return rss_bytes((*self.engine, *self.client)) or 0
