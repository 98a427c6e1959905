"""NVML: without the package, without a driver, and against a library that answers as one with GPUs does.

The real one is checked by `benchmarks/gpu_check.py` on a machine that has a GPU.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evalrun.runner.gpus import GpuReading, Gpus, open_gpus
from evalrun.runner.monitor import MachineFigures, SystemSample


class NVMLError(Exception):
    pass


class Library:
    """Answers the calls of `pynvml` for devices given as dicts; a query that a dict lacks is refused."""

    NVMLError = NVMLError

    def __init__(self, *devices: dict[str, Any]) -> None:
        self.devices = devices
        self.closed = False

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
        return self.devices[index]

    def nvmlShutdown(self) -> None:
        self.closed = True

    def __getattr__(self, name: str) -> Any:
        def answer(handle: dict[str, Any]) -> Any:
            if name not in handle:
                raise NVMLError("Not Supported")
            return handle[name]

        return answer


def device(number: int, **values: Any) -> dict[str, Any]:
    return {
        "nvmlDeviceGetName": b"NVIDIA Test",
        "nvmlDeviceGetUUID": f"GPU-{number}{number}-aa",
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=40 + number, memory=9),
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80_000, used=1000 * (number + 1)),
        "nvmlDeviceGetPowerUsage": 250_000,
        "nvmlDeviceGetTotalEnergyConsumption": 5_000_000 + number,
        "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=70 + number)],
    } | values


def without(number: int, *names: str) -> dict[str, Any]:
    return {key: value for key, value in device(number).items() if key not in names}


def test_units_are_those_that_the_names_say() -> None:
    (reading,) = Gpus(Library(device(0)), {}).read()
    assert reading == GpuReading(0, use=0.4, memory_bytes=1000, power_w=250.0, energy_j=5000.0)


def test_what_a_device_does_not_answer_is_named_and_left_out() -> None:
    gpus = Gpus(
        Library(without(0, "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetUtilizationRates")), {}
    )
    (reading,) = gpus.read()
    assert (reading.use, reading.energy_j, reading.power_w) == (None, None, 250.0)
    assert gpus.unavailable == {"gpu.0.use": "Not Supported", "gpu.0.energy_j": "Not Supported"}


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, [0, 1, 2]), ("1", [1]), ("2,0", [0, 2]), ("GPU-11", [1]), ("", []), ("-1", [])],
)
def test_only_visible_devices_are_watched(visible: str | None, expected: list[int]) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert Gpus(Library(device(0), device(1), device(2)), environment).indices == expected


def test_the_devices_of_a_process_tree() -> None:
    gpus = Gpus(Library(device(0), device(1), without(2, "nvmlDeviceGetComputeRunningProcesses")), {})
    assert gpus.used_by({1, 71}) == {1}
    assert gpus.used_by({1}) == set()


def test_says_what_they_are() -> None:
    assert Gpus(Library(device(0)), {}).describe() == [
        {"index": 0, "name": "NVIDIA Test", "memory_bytes": 80_000}
    ]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    gpus, why = open_gpus({}, [Path("/")])
    assert gpus is None and "nvidia-ml-py is not installed" in why


def test_nothing_is_imported_where_no_driver_left_a_trace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    gpus, why = open_gpus({}, [tmp_path / "nothing"])
    assert gpus is None and why.startswith("no NVIDIA driver")
    assert "pynvml" not in sys.modules


def test_without_a_driver() -> None:
    """The real package, where it is installed and finds no driver."""
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        gpus, why = open_gpus({}, [Path("/")])
        assert gpus is None and why.startswith("no NVIDIA driver: ")
    else:
        pytest.skip("this machine has a driver: see benchmarks/gpu_check.py")


def summed(*rows: tuple[float, tuple[GpuReading, ...]], used: set[int] | None = None) -> MachineFigures:
    figures = MachineFigures()
    for t_s, gpus in rows:
        figures.add(SystemSample(t_s, "inference", None, None, None, 0.0, gpus=gpus))
    figures.gpus_used = used or set()
    return figures


def test_energy_is_the_rise_of_the_counters_of_the_devices_in_use() -> None:
    def at(first: float, second: float) -> tuple[GpuReading, ...]:
        return (GpuReading(0, 0.5, 10, 100.0, first), GpuReading(1, 1.0, 30, 300.0, second))

    rows = ((0.0, at(1000.0, 50.0)), (1.0, at(1100.0, 300.0)), (4.0, at(1400.0, 1250.0)))
    both = summed(*rows)
    assert both.figures()["energy.gpu_j"] == 1600.0
    assert both.figures()["memory.gpu_peak_bytes"] == 40
    assert "over all GPUs" in both.notes()["energy.gpu_j"]
    one = summed(*rows, used={1})
    assert one.figures()["energy.gpu_j"] == 1200.0
    assert one.figures()["gpu.power_w.mean"] == pytest.approx(300.0)
    assert one.figures()["gpu.use.mean"] == 1.0 and one.notes() == {}


def test_without_a_counter_power_is_integrated_and_that_is_said() -> None:
    rows = [(t, (GpuReading(0, None, None, watts, None),)) for t, watts in ((0.0, 100.0), (1.0, 200.0))]
    figures = summed(*rows)
    assert figures.figures() == {"gpu.power_w.mean": 150.0, "energy.gpu_j": 150.0}
    assert "integrated from power readings" in figures.notes()["energy.gpu_j"]
    assert "less than 2 s" in figures.notes()["energy.gpu_j"]


def test_one_silent_device_leaves_the_sum_out() -> None:
    rows = [
        (t, (GpuReading(0, None, None, None, 10.0 * t), GpuReading(1, 0.5, None, None, None)))
        for t in (0.0, 5.0)
    ]
    assert "energy.gpu_j" not in summed(*rows).figures()
