import asyncio
import subprocess
import sys
import time

from evalrun.runner.monitor import LagWatch, Monitor, SystemSample


def test_memory_of_a_process_tree_that_we_know() -> None:
    size = 60_000_000
    hold = f"block = bytearray({size}); print('ready', flush=True); input()"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    samples: list[SystemSample] = []
    monitor = Monitor(lambda: process.pid, samples.append)
    monitor.start("inference")
    monitor.stop()
    process.stdin.write("\n")
    process.stdin.close()
    process.wait()
    assert monitor.engine_peak_bytes is not None
    assert size < monitor.engine_peak_bytes < size + 60_000_000, (
        "the grandchild's block, and two interpreters"
    )
    assert len(samples) == 2, "the first and the last sample are always taken"
    assert monitor.unavailable == {}


def test_what_cannot_be_read_says_why() -> None:
    monitor = Monitor(lambda: None, lambda sample: None)
    monitor.start("inference")
    monitor.stop()
    assert monitor.engine_peak_bytes is None
    assert "not a process that evalrun started" in monitor.unavailable["engine_peak_bytes"]
    assert monitor.client_peak_bytes is not None and monitor.client_peak_bytes > 5_000_000


def test_cpu_time_is_what_was_burnt() -> None:
    monitor = Monitor(lambda: None, lambda sample: None)
    monitor.start("inference")
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    monitor.stop()
    assert monitor.client_cpu_s is not None and 0.3 <= monitor.client_cpu_s < 0.6


async def test_lag_is_how_long_the_loop_was_blocked() -> None:
    watch = LagWatch()
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(0.05)
    time.sleep(0.25)  # noqa: ASYNC251  (the block under test)
    await asyncio.sleep(0.05)
    task.cancel()
    worst = watch.quantile_s(1.0)
    assert worst is not None and 0.2 <= worst <= 0.4


def test_no_lag_was_seen() -> None:
    assert LagWatch().quantile_s(0.99) is None
