"""What the machine did while a run ran: a thread that reads the engine's process tree, evalrun itself, the
cgroup and the GPUs twice a second.

Memory is PSS (each shared page divided among those who share it), summed over the tree, so that the parts
of a tree add up. What cannot be read is recorded as unavailable with the reason, never guessed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from evalrun.runner.machine import MachineFigures
from evalrun.runner.memory import MemoryWatch
from evalrun.runner.processes import Cgroup, Usage, usage

if TYPE_CHECKING:
    from evalrun.runner.gpus import GpuReading, Gpus

INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True)
class SystemSample:
    """One reading. `t_s` is the run's clock (that of `sent_s` of its samples; the load phase comes before
    0); CPU times and disk bytes are totals since the processes began. None: not read this time."""

    t_s: float
    phase: str
    engine_pss_bytes: int | None
    client_pss_bytes: int | None
    engine_cpu_s: float | None
    client_cpu_s: float
    engine_read_bytes: int | None = None
    engine_written_bytes: int | None = None
    client_read_bytes: int | None = None
    client_written_bytes: int | None = None
    cgroup_bytes: int | None = None
    cgroup_peak_bytes: int | None = None
    gpus: tuple[GpuReading, ...] = ()
    engine: Mapping[str, float] = field(default_factory=dict)
    """What the engine said of itself last: see `Provider.engine_stats`."""

    def row(self) -> dict[str, Any]:
        """Flat, for the time series: `gpu.<index>.<query>` and `engine.<figure>` beside the others."""
        row: dict[str, Any] = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("gpus", "engine")
        }
        for gpu in self.gpus:
            values = asdict(gpu)
            index = values.pop("index")
            row |= {f"gpu.{index}.{query}": value for query, value in values.items()}
        return row | {f"engine.{name}": value for name, value in self.engine.items()}


@dataclass(frozen=True, slots=True)
class Watched:
    """What a monitor reads. `engine_pid` is asked each time, since an engine may start after the monitor;
    `gpus` are those of this machine where the model may run on them, else `no_gpus` says why there are
    none; `origin` is the moment (perf_counter) of t_s = 0."""

    engine_pid: Callable[[], int | None]
    gpus: Gpus | None = None
    no_gpus: str = ""
    origin: float = field(default_factory=time.perf_counter)


class Monitor:
    """Samples in a thread between `start` and `stop`. The first and the last sample are always taken.

    Readings go to `sink` as they are made, so that memory does not grow with the length of the run.
    """

    def __init__(self, watched: Watched, sink: Callable[[SystemSample], None]) -> None:
        self._watched = watched
        self._sink = sink
        self._stop = threading.Event()
        self._phase = "inference"
        self._thread: threading.Thread | None = None
        self._cgroup = Cgroup()
        self._memory = MemoryWatch(watched.engine_pid)
        self._engine: Mapping[str, float] = {}
        self.figures = MachineFigures()

    def start(self, phase: str) -> None:
        """Take the first sample and go on in a thread, which also reads the memory of the first: that can
        take long, and what is to be measured need not wait. `phase` is "load" or "inference"."""
        self._phase = phase
        first = self._glance(anew=True)
        self._thread = threading.Thread(target=self._run, args=(first,), name="evalrun-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take the last sample and end the thread. Safe to call again."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._keep(self._glance(anew=True), anew=True)

    def engine_says(self, figures: Mapping[str, float]) -> None:
        """What the engine said of itself just now: it stands in the samples from here on."""
        self._engine = figures

    @property
    def unavailable(self) -> dict[str, str]:
        """Figures that could not be read, with the reason."""
        figures, watched = self.figures, self._watched
        missing = {}
        if figures.client_peak_bytes is None:
            missing["client_peak_bytes"] = "the kernel gives no /proc/self/smaps_rollup"
        if figures.engine_peak_bytes is None:
            missing["engine_peak_bytes"] = (
                "the engine is not a process that evalrun started"
                if watched.engine_pid() is None
                else "the engine's /proc/PID/smaps_rollup cannot be read"
            )
        if not self._cgroup.available:
            missing["cgroup"] = "there is no cgroup with memory accounting"
        if watched.gpus is None:
            missing["gpu"] = watched.no_gpus
        else:
            missing |= watched.gpus.unavailable
        return missing

    def _run(self, first: SystemSample) -> None:
        self._keep(first, anew=True)
        while not self._stop.wait(INTERVAL_S):
            self._keep(self._glance(anew=False), anew=False)

    def _glance(self, *, anew: bool) -> SystemSample:
        """All that takes little time: everything but PSS. With `anew`, processes are listed anew."""
        self._memory.list(anew=anew)
        engine_pids, client_pids = self._memory.engine, self._memory.client
        engine, client = usage(engine_pids), usage(client_pids)
        return SystemSample(
            t_s=time.perf_counter() - self._watched.origin,
            phase=self._phase,
            engine_pss_bytes=None,
            client_pss_bytes=None,
            engine_cpu_s=engine.cpu_s,
            client_cpu_s=self._client_cpu_s(client_pids),
            engine_read_bytes=engine.read_bytes,
            engine_written_bytes=engine.written_bytes,
            client_read_bytes=client.read_bytes,
            client_written_bytes=client.written_bytes,
            cgroup_bytes=self._cgroup.current_bytes(),
            cgroup_peak_bytes=self._cgroup.peak_bytes(),
            gpus=self._gpus(engine_pids),
            engine=self._engine,
        )

    def _keep(self, sample: SystemSample, *, anew: bool) -> None:
        """Add PSS where it is time, or with `anew` in any case, and hand the sample on."""
        pss = self._memory.pss(anew=anew)
        whole = replace(sample, engine_pss_bytes=pss.engine, client_pss_bytes=pss.client)
        self.figures.add(whole)
        self._sink(whole)

    @staticmethod
    def _client_cpu_s(pids: Sequence[int]) -> float:
        """Our own to the microsecond, that of our other processes to the clock tick."""
        others: Usage = usage(pid for pid in pids if pid != os.getpid())
        return time.process_time() + (others.cpu_s or 0.0)

    def _gpus(self, engine_pids: Collection[int]) -> tuple[GpuReading, ...]:
        gpus = self._watched.gpus
        if gpus is None:
            return ()
        if engine_pids:
            self.figures.gpus_used |= gpus.used_by(engine_pids)
        return tuple(gpus.read())
