"""What evalrun reads of a GPU, beside what torch did to it. Run it by hand on a machine with an NVIDIA GPU.

    pip install 'nvidia-ml-py>=12' torch;  python benchmarks/gpu_check.py

Multiplies matrices for some seconds in a child process that stands for the engine, watches it as a run is
watched, and checks that use, memory, power and energy are plausible: memory holds what was allocated, the
GPU was busy, and the energy counter agrees with the power readings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from evalrun.runner.gpus import open_gpus
from evalrun.runner.monitor import Monitor, SystemSample, Watched

SECONDS = 8.0
BLOCK_BYTES = 4 << 30
WORK = f"""
import time, torch
block = torch.empty({BLOCK_BYTES}, dtype=torch.uint8, device="cuda")
a = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda")
torch.cuda.synchronize()
print("ready", flush=True)
end = time.monotonic() + {SECONDS}
while time.monotonic() < end:
    for _ in range(20):
        b = a @ a
    torch.cuda.synchronize()
"""


def main() -> None:
    gpus, why = open_gpus(os.environ)
    if gpus is None:
        raise SystemExit(f"nothing to check: {why}")
    before = {reading.index: reading.memory_bytes or 0 for reading in gpus.read()}
    process = subprocess.Popen([sys.executable, "-c", WORK], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise SystemExit("torch could not use the GPU")
    samples: list[SystemSample] = []
    monitor = Monitor(Watched(lambda: process.pid, gpus), samples.append)
    monitor.start("inference")
    time.sleep(SECONDS - 1)
    monitor.stop()
    process.wait()
    figures, notes = monitor.figures.figures(), monitor.figures.notes()
    used = sorted(monitor.figures.gpus_used) or gpus.indices
    print(json.dumps({
        "gpus": gpus.describe(), "used": used, "figures": figures, "notes": notes,
        "unavailable": monitor.unavailable, "samples": len(samples), "last": samples[-1].row(),
    }, indent=2))  # fmt: skip
    gpus.close()
    elapsed = samples[-1].t_s - samples[0].t_s
    grown = figures["memory.gpu_peak_bytes"] - sum(before[index] for index in used)
    checks = {
        "memory holds the block": grown >= BLOCK_BYTES,
        "the GPU was busy": figures["gpu.use.mean"] > 0.5,
        "energy agrees with power": 0.7
        < figures["energy.gpu_j"] / (figures["gpu.power_w.mean"] * elapsed)
        < 1.4,
    }
    for what, right in checks.items():
        print(f"{'ok  ' if right else 'FAIL'} {what}")
    raise SystemExit(0 if all(checks.values()) else 1)


if __name__ == "__main__":
    main()
