"""Energy counters of processors, as files of the form that Linux gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalrun.runner.monitor import MachineFigures, SystemSample
from evalrun.runner.rapl import Rapl, open_rapl

RANGE = 262_143_328_850


def zone(root: Path, name: str, kind: str, energy_uj: int) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "name").write_text(f"{kind}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE}\n")
    return folder


def opened(root: Path) -> Rapl:
    rapl, reason = open_rapl(root)
    assert rapl is not None and reason == ""
    return rapl


def test_packages_are_added_up_and_parts_of_them_are_not(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 5_000_000)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 0)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0)
    rapl = opened(tmp_path)
    (first / "energy_uj").write_text("3000000\n")
    (second / "energy_uj").write_text("5500000\n")
    (core / "energy_uj").write_text("9000000\n")
    assert rapl.joules() == pytest.approx(2.5)
    assert rapl.joules() == pytest.approx(2.5), "what was counted is not counted again"


def test_a_counter_that_begins_anew_goes_on(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 1_000_000)
    rapl = opened(tmp_path)
    (package / "energy_uj").write_text("2000000")
    assert rapl.joules() == pytest.approx(3.0)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    rapl, reason = open_rapl(tmp_path)
    assert rapl is None and "shows no energy counters" in reason
    package = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    rapl = opened(tmp_path)
    (package / "energy_uj").unlink()
    assert rapl.joules() is None
    (package / "energy_uj").mkdir()
    rapl, reason = open_rapl(tmp_path)
    assert rapl is None and "cannot be read" in reason


def test_energy_and_power_of_a_run() -> None:
    figures = MachineFigures()
    for t_s, joules in ((1.0, 10.0), (3.0, None), (5.0, 50.0)):
        figures.add(SystemSample(t_s, "inference", None, None, None, 0.0, cpu_energy_j=joules))
    assert figures.figures() == {"energy.cpu_j": 40.0, "cpu.power_w.mean": 10.0}
    assert "other programs" in figures.notes()["energy.cpu_j"]
