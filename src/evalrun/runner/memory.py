"""Which processes belong to a run, and how much memory they have: the parts of a reading that cost something.

The kernel searches its tasks for a process's children and walks page tables for its PSS, and holds the
process up meanwhile: 10 ms for an embedded engine with 200 MB, far more for one with many gigabytes. An
engine whose threads wait for each other loses that time on all of its cores. So both are done seldom:
PSS is read again where the resident sizes have moved, which are cheap to read and bound it from above.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evalrun.runner.processes import own_tree, pss_bytes, rss_bytes, tree

_SHARE = 0.01
"""The greatest share of one core that reading PSS may take, whatever moves."""
_LISTING_S = 2.0
_MOVED = 0.01
"""The change of resident memory, as a share of it, that asks for another look."""
_AT_LEAST_S = 30.0
"""Without a change PSS is read this often: pages may come to be shared with more or fewer processes."""


@dataclass(frozen=True, slots=True)
class Pss:
    """Bytes of the engine's tree and of ours; None where they were not read this time, or cannot be."""

    engine: int | None = None
    client: int | None = None


class MemoryWatch:
    """Keeps the lists of processes, and reads their memory when it is worth it.

    `engine_pid` is asked each time, since an engine may start late and may be replaced.
    """

    def __init__(self, engine_pid: Callable[[], int | None]) -> None:
        self._engine_pid = engine_pid
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
            self.client = own_tree()

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
        found = Pss(pss_bytes(self.engine), pss_bytes(self.client))
        self._read_at = time.perf_counter()
        self._due = self._read_at + (time.thread_time() - began) / _SHARE
        return found

    def _resident_bytes(self) -> int:
        return rss_bytes((*self.engine, *self.client)) or 0
