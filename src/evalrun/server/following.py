"""How far a running sweep is, as its journals tell. A journal is read from where it was read to before, never
its last, torn line."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalrun.lines import read_record
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.running import JOURNAL

RATE_S = 30.0
_SLICE = 8 << 20
_STATES = ("scored", "unparsed", "refused", "failed")


@dataclass(frozen=True, slots=True)
class Score:
    """A running score: mean and its interval (normal, 95 %)."""

    name: str
    value: float
    n: int
    ci_low: float | None = None
    ci_high: float | None = None


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far one run is; `of` is None where the number of its samples is not known."""

    run: str
    done: int
    of: int | None
    ended: bool
    scored: int
    unparsed: int
    refused: int
    failed: int
    score: Score | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep is: `rate` in samples/s, `left_s` and `last_sample_s` in seconds."""

    sweep: str
    status: str
    done: int
    of: int | None
    rate: float | None
    left_s: float | None
    last_sample_s: float | None
    runs: tuple[RunProgress, ...]


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
    final: Score | None = None

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
            last = whole[name]
            assert last.value is not None
            self.final = Score(name, last.value, last.n, last.ci_low, last.ci_high)

    def score(self) -> Score | None:
        """The first score's mean. Of samples so far: quick ones come first, so it is no estimate of the end;
        the interval (normal, 95 %) says how far the mean of so many can be relied on."""
        if self.final is not None or not self.sums:
            return self.final
        name, (n, total, squares) = next(iter(self.sums.items()))
        mean = total / n
        half = 1.96 * math.sqrt(max(0.0, squares - total * mean) / max(1, n - 1) / n) if n > 1 else None
        return Score(name, mean, n) if half is None else Score(name, mean, n, mean - half, mean + half)

    def progress(self) -> RunProgress:
        done, counts = sum(self.states.values()), {name: self.states[name] for name in _STATES}
        return RunProgress(self.run, done, self.of, self.ended, score=self.score(), **counts)


class Follower:
    """One running sweep. `state` is what its watchers are told, `offset` grows with every change."""

    def __init__(self, folder: SweepFolder) -> None:
        manifest = folder.manifest()
        self.folder, self.offset = folder, -1
        self.state: Progress | None = None
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
        changed = offset != self.offset or self.state is None
        self.offset, self.ended = offset, not going
        self.state = self._progress(going)
        return changed

    def _progress(self, going: bool) -> Progress:
        runs = tuple(run.progress() for run in self._runs)
        done, of = sum(run.done for run in runs), [run.of for run in runs]
        now = time.monotonic()
        self._pace.append((now, done))
        while now - self._pace[0][0] > RATE_S and len(self._pace) > 2:
            self._pace.popleft()
        seconds, samples = now - self._pace[0][0], done - self._pace[0][1]
        rate = samples / seconds if seconds > 0 and going else None
        total = sum(each for each in of if each is not None) if None not in of else None
        left = (total - done) / rate if rate and total is not None else None
        last = max(run.last for run in self._runs) if self._runs else 0.0
        status, ago = "running" if going else self.folder.status(), time.time() - last
        return Progress(
            self.folder.ulid, status, done, total, rate, left, round(ago, 1) if last else None, runs
        )
