"""NVIDIA GPUs through NVML (the package `nvidia-ml-py`): use, memory, power and the energy counter.

Loaded only where a model may run on this machine. Every query may be missing on a device (MIG, older or
virtual GPUs): what a device does not answer is left out and named in `unavailable`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from evalrun.frozen import frozen

DRIVER_TRACES = (Path("/dev/nvidiactl"), Path("/proc/driver/nvidia"), Path("/dev/dxg"))
_QUERIES = ("use", "memory_bytes", "power_w", "energy_j")


@frozen
class GpuReading:
    """One device at one moment. `use` is the fraction of the last sampling period (up to 1 s) in which a
    kernel ran; `energy_j` counts since the driver was loaded; None where the device does not say."""

    index: int
    use: float | None = None
    memory_bytes: int | None = None
    power_w: float | None = None
    energy_j: float | None = None


class Gpus:
    """The devices that are watched. Made by `open_gpus`; `close` it."""

    def __init__(self, nvml: Any, environment: Mapping[str, str]) -> None:
        """`nvml` is the module `pynvml`, initialised; CUDA_VISIBLE_DEVICES narrows the devices."""
        self._nvml = nvml
        every = {index: nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())}
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        self._handles = every if visible is None else self._chosen(every, visible)
        self._silent: dict[str, str] = {}

    @property
    def indices(self) -> list[int]:
        """The devices' numbers, as NVML counts them."""
        return list(self._handles)

    @property
    def unavailable(self) -> dict[str, str]:
        """Queries that some device did not answer, `gpu.<index>.<query>`, with what the driver said."""
        return dict(self._silent)

    def describe(self) -> list[dict[str, Any]]:
        """Number, name and whole memory of each device."""
        found = []
        for index, handle in self._handles.items():
            entry: dict[str, Any] = {"index": index}
            with contextlib.suppress(self._nvml.NVMLError):
                entry["name"] = _text(self._nvml.nvmlDeviceGetName(handle))
            with contextlib.suppress(self._nvml.NVMLError):
                entry["memory_bytes"] = int(self._nvml.nvmlDeviceGetMemoryInfo(handle).total)
            found.append(entry)
        return found

    def read(self) -> list[GpuReading]:
        """All devices now. Milliseconds a device: call it from a thread."""
        return [
            GpuReading(index, **{query: self._query(index, handle, query) for query in _QUERIES})
            for index, handle in self._handles.items()
        ]

    def used_by(self, pids: Collection[int]) -> set[int]:
        """The devices on which one of these processes computes. Empty where the driver cannot tell, as in
        containers, whose process ids it does not know."""
        found = set()
        for index, handle in self._handles.items():
            with contextlib.suppress(self._nvml.NVMLError):
                running = self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)
                if any(process.pid in pids for process in running):
                    found.add(index)
        return found

    def close(self) -> None:
        """Give NVML back."""
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def _query(self, index: int, handle: Any, query: str) -> Any:
        nvml = self._nvml
        try:
            match query:
                case "use":
                    return nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
                case "memory_bytes":
                    return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)
                case "power_w":
                    return nvml.nvmlDeviceGetPowerUsage(handle) / 1000
                case _:
                    return nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
        except nvml.NVMLError as error:
            self._silent[f"gpu.{index}.{query}"] = str(error)
            return None

    def _chosen(self, every: Mapping[int, Any], visible: str) -> dict[int, Any]:
        """Those that CUDA_VISIBLE_DEVICES names, by number or by (the beginning of) UUID."""
        names = {part.strip() for part in visible.split(",")}
        uuids = tuple(name for name in names if name.startswith("GPU-"))
        return {
            index: handle
            for index, handle in every.items()
            if str(index) in names or (uuids and self._uuid(handle).startswith(uuids))
        }

    def _uuid(self, handle: Any) -> str:
        try:
            return _text(self._nvml.nvmlDeviceGetUUID(handle))
        except self._nvml.NVMLError:
            return ""


def open_gpus(
    environment: Mapping[str, str] = os.environ, traces: Iterable[Path] = DRIVER_TRACES
) -> tuple[Gpus | None, str]:
    """The GPUs of this machine and "", or None and the reason why there is nothing to read.

    `traces` are files of which a driver has one; where there is none, `pynvml` is not even imported.
    """
    if sys.platform == "linux" and not any(path.exists() for path in traces):
        return None, "no NVIDIA driver: it has no device here"
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None, "the package nvidia-ml-py is not installed (pip install 'nvidia-ml-py>=12')"
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return None, f"no NVIDIA driver: {error}"
    try:
        gpus = Gpus(nvml, environment)
    except nvml.NVMLError as error:
        return None, f"NVML lists no devices: {error}"
    if not gpus.indices:
        gpus.close()
        return None, "no GPU is visible to this process"
    return gpus, ""


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
