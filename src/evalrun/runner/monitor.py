"""What the machine did while a run ran: memory and CPU of the engine's process tree and of evalrun itself.

Memory is PSS (each shared page divided among those who share it), summed over the tree, so that the parts
of a tree add up. One thread reads /proc twice a second; what cannot be read is recorded as unavailable
with the reason, never guessed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

INTERVAL_S = 0.5
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class SystemSample:
    """One reading. `t_s` counts from the start of the monitor; CPU times are totals since process start."""

    t_s: float
    phase: str
    engine_pss_bytes: int | None
    client_pss_bytes: int | None
    engine_cpu_s: float | None
    client_cpu_s: float


def _tree(root: int) -> list[int]:
    """The process and all its descendants that still live."""
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                todo.extend(int(child) for child in (task / "children").read_text().split())
        except OSError:
            continue
    return found


def _pss_bytes(pid: int) -> int | None:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def _cpu_s(pid: int) -> float | None:
    try:
        # The command name, in brackets, may hold spaces: fields are counted after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) * _TICK_S


_Number = TypeVar("_Number", int, float)


def _total(values: list[_Number | None]) -> _Number | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


class Monitor:
    """Samples in a thread between `start` and `stop`. The first and the last sample are always taken.

    `engine_pid` is asked each time, because an engine may start after the monitor. Readings go to
    `sink` as they are made, so that memory does not grow with the length of the run.
    """

    def __init__(self, engine_pid: Callable[[], int | None], sink: Callable[[SystemSample], None]) -> None:
        self._engine_pid = engine_pid
        self._sink = sink
        self._origin = time.perf_counter()
        self._stop = threading.Event()
        self._phase = "load"
        self._thread: threading.Thread | None = None
        self.engine_peak_bytes: int | None = None
        self.client_peak_bytes: int | None = None
        self._cpu_first: SystemSample | None = None
        self._cpu_last: SystemSample | None = None

    def start(self, phase: str) -> None:
        """Take the first sample and go on in a thread."""
        self._phase = phase
        self._sample()
        self._thread = threading.Thread(target=self._run, name="evalrun-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take the last sample and end the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._sample()

    @property
    def engine_cpu_s(self) -> float | None:
        """CPU seconds that the engine used between the first and the last sample."""
        if self._cpu_first is None or self._cpu_last is None or self._cpu_last.engine_cpu_s is None:
            return None
        return self._cpu_last.engine_cpu_s - (self._cpu_first.engine_cpu_s or 0.0)

    @property
    def client_cpu_s(self) -> float | None:
        """CPU seconds that evalrun used between the first and the last sample."""
        if self._cpu_first is None or self._cpu_last is None:
            return None
        return self._cpu_last.client_cpu_s - self._cpu_first.client_cpu_s

    @property
    def unavailable(self) -> dict[str, str]:
        """Figures that could not be read, with the reason."""
        missing = {}
        if self.client_peak_bytes is None:
            missing["client_peak_bytes"] = "the kernel gives no /proc/self/smaps_rollup"
        if self.engine_peak_bytes is None:
            missing["engine_peak_bytes"] = (
                "the engine is not a process that evalrun started"
                if self._engine_pid() is None
                else "the engine's /proc/PID/smaps_rollup cannot be read"
            )
        return missing

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self._sample()

    def _sample(self) -> None:
        pid = self._engine_pid()
        tree = _tree(pid) if pid is not None else []
        sample = SystemSample(
            t_s=time.perf_counter() - self._origin,
            phase=self._phase,
            engine_pss_bytes=_total([_pss_bytes(each) for each in tree]),
            client_pss_bytes=_pss_bytes(os.getpid()),
            engine_cpu_s=_total([_cpu_s(each) for each in tree]),
            client_cpu_s=time.process_time(),
        )
        self._keep(sample)
        self._sink(sample)

    def _keep(self, sample: SystemSample) -> None:
        for name, value in (
            ("engine_peak_bytes", sample.engine_pss_bytes),
            ("client_peak_bytes", sample.client_pss_bytes),
        ):
            if value is not None:
                setattr(self, name, max(value, getattr(self, name) or 0))
        self._cpu_first = self._cpu_first or sample
        self._cpu_last = sample


class LagWatch:
    """How late the event loop wakes up: the client's own share in every latency it measures.

    Wakes every 20 ms and records by how much it overslept, in a fixed histogram of 0.1 ms steps.
    """

    INTERVAL_S = 0.02
    STEP_S = 1e-4
    STEPS = 10_000

    def __init__(self) -> None:
        self._histogram = [0] * (self.STEPS + 1)

    async def run(self) -> None:
        """Watch until cancelled."""
        import asyncio

        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self.INTERVAL_S
            await asyncio.sleep(self.INTERVAL_S)
            late = max(0.0, loop.time() - due)
            self._histogram[min(self.STEPS, int(late / self.STEP_S))] += 1

    def quantile_s(self, q: float) -> float | None:
        """The q-quantile of the lag in seconds (upper edge of its step), or None if nothing was seen."""
        total = sum(self._histogram)
        if not total:
            return None
        seen = 0
        for step, count in enumerate(self._histogram):
            seen += count
            if seen >= q * total:
                return (step + 1) * self.STEP_S
        return (self.STEPS + 1) * self.STEP_S
