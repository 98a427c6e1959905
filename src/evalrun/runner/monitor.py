"""What the machine did while a run ran: a thread that reads the engine's process tree, evalrun itself, the
cgroup and the GPUs twice a second.

Memory is PSS (each shared page divided among those who share it), summed over the tree, so that the parts
of a tree add up. What cannot be read is recorded as unavailable with the reason, never guessed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from evalrun.frozen import frozen
from evalrun.runner.processes import Cgroup, JustRead, MemoryWatch, Usage, usage

if TYPE_CHECKING:
    from evalrun.runner.gpus import GpuReading, Gpus
    from evalrun.runner.rapl import Rapl


SHORT_WINDOW_S = 2.0
"""GPUs refresh their energy counter about every 100 ms: below this, the window's ends count for much."""
_WHOLE = "of the machine's processors as a whole: what other programs used is in it"
_MAXIMA = {
    "kv_cache_usage": "engine.kv_cache_use.max",
    "requests_running": "engine.requests_running.max",
    "requests_waiting": "engine.requests_waiting.max",
}


@dataclass(slots=True)
class _Device:
    """One GPU over the run."""

    first_t_s: float
    last_t_s: float
    memory_peak_bytes: int | None = None
    use_sum: float = 0.0
    use_n: int = 0
    first_energy_j: float | None = None
    last_energy_j: float | None = None
    last_power_w: float | None = None
    power_integral_j: float = 0.0
    power_s: float = 0.0

    def add(self, t_s: float, reading: GpuReading) -> None:
        if reading.memory_bytes is not None:
            self.memory_peak_bytes = max(reading.memory_bytes, self.memory_peak_bytes or 0)
        if reading.use is not None:
            self.use_sum += reading.use
            self.use_n += 1
        if reading.energy_j is not None:
            self.first_energy_j = reading.energy_j if self.first_energy_j is None else self.first_energy_j
            self.last_energy_j = reading.energy_j
        if reading.power_w is not None and self.last_power_w is not None:
            self.power_integral_j += (reading.power_w + self.last_power_w) / 2 * (t_s - self.last_t_s)
            self.power_s += t_s - self.last_t_s
        self.last_power_w = reading.power_w
        self.last_t_s = t_s

    @property
    def counted_j(self) -> float | None:
        if self.first_energy_j is None or self.last_energy_j is None:
            return None
        return self.last_energy_j - self.first_energy_j


class MachineFigures:
    """Takes samples one by one; nothing grows with their number."""

    def __init__(self) -> None:
        self.engine_peak_bytes: int | None = None
        self.client_peak_bytes: int | None = None
        self.gpus_used: set[int] = set()
        """GPUs on which the engine was seen to compute; where that cannot be seen, all count."""
        self._first: SystemSample | None = None
        self._last: SystemSample | None = None
        self._cgroup_peak: int | None = None
        self._cpu_energy: list[tuple[float, float]] = []
        """The first and the last reading: when (seconds), and the energy until then (joules)."""
        self._devices: dict[int, _Device] = {}
        self._maxima: dict[str, float] = {}
        self._counters: dict[str, tuple[float, float]] = {}

    def add(self, sample: SystemSample) -> None:
        """Take the next sample."""
        self._first = self._first or sample
        self._last = sample
        self.engine_peak_bytes = _larger(self.engine_peak_bytes, sample.engine_pss_bytes)
        self.client_peak_bytes = _larger(self.client_peak_bytes, sample.client_pss_bytes)
        self._cgroup_peak = _larger(self._cgroup_peak, sample.cgroup_peak_bytes)
        if sample.cpu_energy_j is not None:
            self._cpu_energy = [*self._cpu_energy[:1], (sample.t_s, sample.cpu_energy_j)]
        for reading in sample.gpus:
            device = self._devices.setdefault(reading.index, _Device(sample.t_s, sample.t_s))
            device.add(sample.t_s, reading)
        for name, value in sample.engine.items():
            self._maxima[name] = max(value, self._maxima.get(name, value))
            self._counters[name] = (self._counters.get(name, (value, value))[0], value)

    @property
    def engine_cpu_s(self) -> float | None:
        """CPU seconds that the engine used between the first and the last sample."""
        if self._first is None or self._last is None or self._last.engine_cpu_s is None:
            return None
        return self._last.engine_cpu_s - (self._first.engine_cpu_s or 0.0)

    @property
    def client_cpu_s(self) -> float | None:
        """CPU seconds that evalrun used between the first and the last sample."""
        if self._first is None or self._last is None:
            return None
        return max(0.0, self._last.client_cpu_s - self._first.client_cpu_s)

    def figures(self) -> dict[str, float]:
        """Metric name to value, for what was read; see `analysis.catalogue` for what each one means."""
        return dict([*self._memory_and_disk(), *self._cpu(), *self._gpu(), *self._engine()])

    def notes(self) -> dict[str, str]:
        """What must be said beside a figure, by metric name."""
        of_cpu = {"energy.cpu_j": _WHOLE, "cpu.power_w.mean": _WHOLE} if len(self._cpu_energy) > 1 else {}
        devices = self._counted()
        if not devices:
            return of_cpu
        notes = []
        if any(device.counted_j is None for device in devices):
            notes.append("integrated from power readings: there is no energy counter")
        if max(device.last_t_s - device.first_t_s for device in devices) < SHORT_WINDOW_S:
            notes.append(f"measured for less than {SHORT_WINDOW_S:g} s, which the counter resolves coarsely")
        if not self.gpus_used and len(self._devices) > 1:
            notes.append("over all GPUs: the driver does not say on which the model runs")
        return {**of_cpu, **({"energy.gpu_j": "; ".join(notes)} if notes else {})}

    def _memory_and_disk(self) -> Iterator[tuple[str, float]]:
        if self._cgroup_peak is not None:
            yield "memory.cgroup_peak_bytes", self._cgroup_peak
        first, last = self._first, self._last
        if first is None or last is None:
            return
        for what in ("read", "written"):
            parts = [
                now - (getattr(first, name) or 0)
                for name in (f"engine_{what}_bytes", f"client_{what}_bytes")
                if (now := getattr(last, name)) is not None
            ]
            if parts:
                yield f"disk.{what}_bytes", max(0, sum(parts))

    def _cpu(self) -> Iterator[tuple[str, float]]:
        if len(self._cpu_energy) > 1:
            (began, before), (ended, after) = self._cpu_energy
            yield "energy.cpu_j", after - before
            if ended > began:
                yield "cpu.power_w.mean", (after - before) / (ended - began)

    def _counted(self) -> list[_Device]:
        used = self.gpus_used & self._devices.keys() or self._devices.keys()
        return [self._devices[index] for index in sorted(used)]

    def _gpu(self) -> Iterator[tuple[str, float]]:
        devices = self._counted()
        peaks = [device.memory_peak_bytes for device in devices if device.memory_peak_bytes is not None]
        if peaks:
            yield "memory.gpu_peak_bytes", sum(peaks)
        uses = [device.use_sum / device.use_n for device in devices if device.use_n]
        if uses:
            yield "gpu.use.mean", sum(uses) / len(uses)
        powers = [device.power_integral_j / device.power_s for device in devices if device.power_s > 0]
        if powers:
            yield "gpu.power_w.mean", sum(powers)
        joules = [
            device.counted_j if device.counted_j is not None else device.power_integral_j
            for device in devices
            if device.counted_j is not None or device.power_s > 0
        ]
        if joules and len(joules) == len(devices):
            yield "energy.gpu_j", sum(joules)

    def _engine(self) -> Iterator[tuple[str, float]]:
        for name, metric in _MAXIMA.items():
            if name in self._maxima:
                yield metric, self._maxima[name]
        rise = {name: last - first for name, (first, last) in self._counters.items()}
        if "preemptions" in rise:
            yield "engine.preemptions", rise["preemptions"]
        looked_up = rise.get("prefix_cache_queries", 0)
        if looked_up > 0 and "prefix_cache_hits" in rise:
            yield "engine.prefix_cache_hit_rate", rise["prefix_cache_hits"] / looked_up


def _larger(known: int | None, new: int | None) -> int | None:
    return known if new is None else new if known is None else max(known, new)


INTERVAL_S = 0.5


@frozen
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
    cpu_energy_j: float | None = None
    """Of all processors of the machine, since the watch began."""
    gpus: tuple[GpuReading, ...] = ()
    engine: Mapping[str, float] = field(default_factory=dict)
    """What the engine said of itself last: see `Provider.engine_stats`."""

    def row(self) -> dict[str, Any]:
        """Flat, for the time series: `gpu.<index>.<query>` and `engine.<figure>` beside the others."""
        row: dict[str, Any] = {
            name: getattr(self, name) for name in self.__match_args__ if name not in ("gpus", "engine")
        }
        for gpu in self.gpus:
            values = asdict(gpu)
            index = values.pop("index")
            row |= {f"gpu.{index}.{query}": value for query, value in values.items()}
        return row | {f"engine.{name}": value for name, value in self.engine.items()}


@frozen
class Watched:
    """What a monitor reads. `engine_pid` is asked each time, since an engine may start after the monitor;
    `gpus` are those of this machine where the model may run on them, else `no_gpus` says why there are
    none; `rapl` and `no_rapl` likewise for the energy of its processors; `origin` is the moment
    (perf_counter) of t_s = 0; `just_read` is shared by what is watched one after the other."""

    engine_pid: Callable[[], int | None]
    gpus: Gpus | None = None
    no_gpus: str = ""
    rapl: Rapl | None = None
    no_rapl: str = ""
    origin: float = field(default_factory=time.perf_counter)
    just_read: JustRead = field(default_factory=JustRead)


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
        self._memory = MemoryWatch(watched.engine_pid, watched.just_read)
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
        if watched.no_rapl:
            missing["energy.cpu_j"] = watched.no_rapl
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
            cpu_energy_j=self._watched.rapl.joules() if self._watched.rapl is not None else None,
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
