"""What is read of the machine, against processes, files and time whose truth the test knows."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from evalrun.runner.monitor import INTERVAL_S, MachineFigures, Monitor, SystemSample, Watched
from evalrun.runner.processes import Cgroup, own_tree, tree, usage
from evalrun.runner.watch import LagWatch

NO_GPUS = "not in this test"


def watched(pid: int | None = None) -> Watched:
    return Watched(lambda: pid, no_gpus=NO_GPUS)


@contextmanager
def child(code: str, session: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs the code, says "ready" and waits for a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}\nprint('ready', flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=session,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def measured(pid: int | None) -> tuple[Monitor, list[SystemSample]]:
    samples: list[SystemSample] = []
    monitor = Monitor(watched(pid), samples.append)
    monitor.start("inference")
    monitor.stop()
    return monitor, samples


def test_memory_of_a_process_tree_that_we_know() -> None:
    size = 60_000_000
    hold = f"block = bytearray({size}); print('ready', flush=True); input()"
    nested = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {hold!r}], stdout=-1)"
    with child(f"{nested}; p.stdout.readline()") as process:
        monitor, samples = measured(process.pid)
    peak = monitor.figures.engine_peak_bytes
    assert peak is not None
    assert size < peak < size + 60_000_000, "the grandchild's block, and two interpreters"
    assert len(samples) == 2, "the first and the last sample are always taken"
    assert set(monitor.unavailable) <= {"gpu", "cgroup"}
    assert monitor.unavailable["gpu"] == NO_GPUS


def test_what_cannot_be_read_says_why() -> None:
    monitor, samples = measured(None)
    assert monitor.figures.engine_peak_bytes is None
    assert samples[-1].engine_cpu_s is None and samples[-1].engine_read_bytes is None
    assert "not a process that evalrun started" in monitor.unavailable["engine_peak_bytes"]
    peak = monitor.figures.client_peak_bytes
    assert peak is not None and peak > 5_000_000


def test_an_engine_that_is_gone_is_not_there_rather_than_zero() -> None:
    with child("") as process:
        pid = process.pid
    assert tree(pid) == []
    monitor, samples = measured(pid)
    assert samples[-1].engine_pss_bytes is None and monitor.figures.engine_cpu_s is None


def test_cpu_time_is_what_was_burnt() -> None:
    monitor = Monitor(watched(), lambda sample: None)
    monitor.start("inference")
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    monitor.stop()
    spent = monitor.figures.client_cpu_s
    assert spent is not None and 0.3 <= spent < 0.6


def test_children_of_ours_are_ours_and_engines_are_not() -> None:
    with child("") as helper, child("", session=True) as engine:
        ours = own_tree()
    assert helper.pid in ours and engine.pid not in ours and os.getpid() in ours


def test_processor_time_of_a_child_that_ended_stays_counted() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    with child(nested) as process:
        spent = usage(tree(process.pid)).cpu_s
    assert spent is not None and spent >= 0.29


def test_bytes_written_to_a_device_are_counted(tmp_path: Path) -> None:
    before = usage([os.getpid()]).written_bytes
    with (tmp_path / "block").open("wb") as file:
        file.write(os.urandom(1_000_000))
        file.flush()
        os.fsync(file.fileno())
    after = usage([os.getpid()]).written_bytes
    if before is None or after is None:
        pytest.skip("the kernel gives no /proc/self/io")
    if after == before:
        pytest.skip("the temporary folder is not on a device")
    assert after - before >= 1_000_000


def test_samples_are_less_than_a_second_apart_and_on_the_clock_of_the_run() -> None:
    samples: list[SystemSample] = []
    offset = 100.0
    origin = time.perf_counter() - offset
    monitor = Monitor(Watched(lambda: None, no_gpus=NO_GPUS, origin=origin), samples.append)
    monitor.start("inference")
    while len(samples) < 3:
        time.sleep(INTERVAL_S / 10)
    monitor.stop()
    assert INTERVAL_S <= 0.5
    assert all(earlier.t_s < later.t_s for earlier, later in pairwise(samples))
    assert offset <= samples[0].t_s and samples[-1].t_s <= time.perf_counter() - origin


def test_stopping_twice_takes_one_last_sample() -> None:
    monitor, samples = measured(None)
    monitor.stop()
    assert len(samples) == 2


def test_a_row_of_the_time_series_is_flat() -> None:
    samples: list[SystemSample] = []
    monitor = Monitor(watched(), samples.append)
    monitor.engine_says({"kv_cache_usage": 0.25, "preemptions": 1.0})
    monitor.start("load")
    monitor.stop()
    row = samples[0].row()
    assert row["engine.kv_cache_usage"] == 0.25 and row["phase"] == "load"
    assert all(value is None or isinstance(value, (str, int, float)) for value in row.values())


class TestCgroup:
    def write(self, folder: Path, **files: int) -> None:
        folder.mkdir(parents=True)
        for name, value in files.items():
            (folder / name.replace("__", ".")).write_text(f"{value}\n")

    def test_version_2(self, tmp_path: Path) -> None:
        (tmp_path / "own").write_text("0::/jobs/one\n")
        self.write(tmp_path / "sys/jobs/one", memory__current=10, memory__peak=30)
        group = Cgroup(tmp_path / "own", tmp_path / "sys")
        assert (group.current_bytes(), group.peak_bytes(), group.available) == (10, 30, True)

    def test_version_1(self, tmp_path: Path) -> None:
        (tmp_path / "own").write_text("4:memory:/jobs/two\n0::/\n")
        self.write(tmp_path / "sys/memory/jobs/two", memory__usage_in_bytes=5, memory__max_usage_in_bytes=6)
        group = Cgroup(tmp_path / "own", tmp_path / "sys")
        assert (group.current_bytes(), group.peak_bytes()) == (5, 6)

    def test_a_path_that_the_container_does_not_see(self, tmp_path: Path) -> None:
        (tmp_path / "own").write_text("0::/outside/of/us\n")
        self.write(tmp_path / "sys", memory__current=7)
        group = Cgroup(tmp_path / "own", tmp_path / "sys")
        assert (group.current_bytes(), group.peak_bytes()) == (7, None), "older kernels have no peak"

    def test_none(self, tmp_path: Path) -> None:
        group = Cgroup(tmp_path / "own", tmp_path / "sys")
        assert (group.current_bytes(), group.peak_bytes(), group.available) == (None, None, False)


def sample(t_s: float, **values: object) -> SystemSample:
    known: dict[str, object] = {
        "engine_pss_bytes": None, "client_pss_bytes": 10, "engine_cpu_s": None, "client_cpu_s": t_s,
        **values,
    }  # fmt: skip
    return SystemSample(t_s, "inference", **known)  # type: ignore[arg-type]


def test_figures_of_the_engine_are_peaks_and_rises() -> None:
    figures = MachineFigures()
    for t_s, kv, waiting, hits, looked_up, preempted in (
        (0.0, 0.0, 0.0, 100.0, 1000.0, 5.0),
        (1.0, 0.9, 7.0, 150.0, 1100.0, 6.0),
        (2.0, 0.1, 0.0, 200.0, 1400.0, 8.0),
    ):
        said = {"kv_cache_usage": kv, "requests_waiting": waiting, "prefix_cache_hits": hits}
        said |= {"prefix_cache_queries": looked_up, "preemptions": preempted}
        figures.add(sample(t_s, engine=said))
    assert figures.figures() == {
        "engine.kv_cache_use.max": 0.9,
        "engine.requests_waiting.max": 7.0,
        "engine.preemptions": 3.0,
        "engine.prefix_cache_hit_rate": 0.25,
    }


def test_memory_that_was_not_read_this_time_is_no_smaller_peak() -> None:
    figures = MachineFigures()
    for t_s, pss in ((0.0, 100), (0.5, None), (1.0, 70)):
        figures.add(sample(t_s, engine_pss_bytes=pss))
    assert figures.engine_peak_bytes == 100


async def test_lag_is_how_long_the_loop_was_blocked() -> None:
    watch = LagWatch()
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(2 * LagWatch.INTERVAL_S)
    time.sleep(0.25)  # noqa: ASYNC251  (the block under test)
    await asyncio.sleep(2 * LagWatch.INTERVAL_S)
    task.cancel()
    worst = watch.quantile_s(1.0)
    assert worst is not None and 0.2 <= worst <= 0.4


def test_no_lag_was_seen() -> None:
    assert LagWatch().quantile_s(0.99) is None
