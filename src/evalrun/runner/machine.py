"""From resource readings, as they come, to the figures of a run. Pure: reads nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evalrun.runner.gpus import GpuReading
    from evalrun.runner.monitor import SystemSample

SHORT_WINDOW_S = 2.0
"""GPUs refresh their energy counter about every 100 ms: below this, the window's ends count for much."""
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
        return dict([*self._memory_and_disk(), *self._gpu(), *self._engine()])

    def notes(self) -> dict[str, str]:
        """What must be said beside a figure, by metric name."""
        devices = self._counted()
        if not devices:
            return {}
        notes = []
        if any(each.counted_j is None for each in devices):
            notes.append("integrated from power readings: there is no energy counter")
        if max(each.last_t_s - each.first_t_s for each in devices) < SHORT_WINDOW_S:
            notes.append(f"measured for less than {SHORT_WINDOW_S:g} s, which the counter resolves coarsely")
        if not self.gpus_used and len(self._devices) > 1:
            notes.append("over all GPUs: the driver does not say on which the model runs")
        return {"energy.gpu_j": "; ".join(notes)} if notes else {}

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

    def _counted(self) -> list[_Device]:
        used = self.gpus_used & self._devices.keys() or self._devices.keys()
        return [self._devices[index] for index in sorted(used)]

    def _gpu(self) -> Iterator[tuple[str, float]]:
        devices = self._counted()
        peaks = [each.memory_peak_bytes for each in devices if each.memory_peak_bytes is not None]
        if peaks:
            yield "memory.gpu_peak_bytes", sum(peaks)
        uses = [each.use_sum / each.use_n for each in devices if each.use_n]
        if uses:
            yield "gpu.use.mean", sum(uses) / len(uses)
        powers = [each.power_integral_j / each.power_s for each in devices if each.power_s > 0]
        if powers:
            yield "gpu.power_w.mean", sum(powers)
        joules = [
            each.counted_j if each.counted_j is not None else each.power_integral_j
            for each in devices
            if each.counted_j is not None or each.power_s > 0
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
