"""The sweeps of the store in memory, as the catalog has them: ten thousand of them are read once a change."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field

from evalrun.errors import UserError
from evalrun.reports.best import BestScore, best_score
from evalrun.tracking.folder import SweepFolder, stamp
from evalrun.tracking.glance import SweepRow
from evalrun.tracking.store import Store

PAUSE_S, ANYWAY_S, IDLE_S = 1.0, 20.0, 300.0
"""How often it is looked whether something changed, and how old the rows may be in any case: a process that
was killed changes no file. Where none runs, longer."""


@dataclass
class Index:
    """Rows, the newest first. `version` grows with every change."""

    store: Store
    rows: tuple[SweepRow, ...] = ()
    by_id: dict[str, SweepRow] = field(default_factory=dict)
    version: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _looked: float = 0.0
    _read: float = 0.0
    _state: object = None
    _scores: dict[str, tuple[str, BestScore | None]] = field(default_factory=dict)

    def all(self, *, now: bool = False) -> tuple[SweepRow, ...]:
        """The rows, at most a second old; `now`: of this moment. While another looks, those of before."""
        if now:
            with self._lock:
                self._refresh()
        elif time.monotonic() - self._looked > PAUSE_S and self._lock.acquire(blocking=self.version == 0):
            try:
                state = self.changes()
                running = any(row.status == "running" for row in self.rows)
                if state != self._state or time.monotonic() - self._read > (ANYWAY_S if running else IDLE_S):
                    self._refresh()
                self._looked = time.monotonic()
            finally:
                self._lock.release()
        return self.rows

    def get(self, ulid: str) -> SweepRow | None:
        """One sweep by its whole id."""
        self.all()
        if ulid not in self.by_id and self.changes() != self._state:
            self.all(now=True)
        return self.by_id.get(ulid)

    def score(self, row: SweepRow) -> BestScore | None:
        """The primary metric of its best run."""
        folder = SweepFolder(row.folder)
        now = stamp(folder) if row.status != "complete" else row.finished_at or ""
        known = self._scores.get(row.sweep)
        if known is None or known[0] != now:
            known = self._scores[row.sweep] = (now, best_score(row.folder))
        return known[1]

    def projects(self) -> dict[str, list[SweepRow]]:
        """The sweeps of each project; archived ones are left out."""
        found: dict[str, list[SweepRow]] = {}
        for row in self.all():
            if not row.archived:
                found.setdefault(row.project, []).append(row)
        return found

    def changes(self) -> object:
        """Another value when sweeps came or went, or something was said of the store."""
        found = []
        for path in (self.store.sweeps, self.store.events_path, self.store.marks):
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size))
        return found

    def _refresh(self) -> None:
        state = self.changes()
        with contextlib.suppress(UserError) if self.version else contextlib.nullcontext():
            rows = tuple(self.store.list(None))
            if rows != self.rows or self.version == 0:
                self.rows, self.by_id = rows, {row.sweep: row for row in rows}
                self.version += 1
            self._state = state
        self._read = self._looked = time.monotonic()
