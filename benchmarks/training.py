"""What tracking costs a training, and how long importing one takes.

python benchmarks/training.py [--points 1000000]

Prints one JSON document: the time of a call of `log` over 100,000 calls (median, 99th percentile, whole), and
for each form of file the seconds and the peak memory of a process of its own that imports a million points.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

CALLS = 100_000
METRICS = ("loss", "grad_norm", "learning_rate", "tokens_per_s", "accuracy")


def time_log(store: Path) -> dict[str, float]:
    """Microseconds of a call of `log` with two numbers."""
    import evalrun

    times = []
    with evalrun.track("cost", store=store) as run:
        began = time.perf_counter()
        for step in range(CALLS):
            at = time.perf_counter()
            run.log({"loss": 1.5, "grad_norm": 0.5}, step=step)
            times.append(time.perf_counter() - at)
        whole = time.perf_counter() - began
    times.sort()
    return {
        "median_us": round(statistics.median(times) * 1e6, 2),
        "p99_us": round(times[int(CALLS * 0.99)] * 1e6, 2),
        "seconds_for_all": round(whole, 2),
    }


def write_csv(path: Path, points: int) -> None:
    with path.open("w") as file:
        file.write(f"step,{','.join(METRICS)}\n")
        for step in range(points // len(METRICS)):
            file.write(f"{step},{','.join(f'{random.random():.6f}' for _ in METRICS)}\n")


def write_state(path: Path, points: int) -> None:
    rows = [
        {"step": step, "epoch": step / 1000, **{name: random.random() for name in METRICS}}
        for step in range(points // len(METRICS))
    ]
    path.write_text(json.dumps({"global_step": len(rows), "log_history": rows}))


def write_events(path: Path, points: int) -> None:
    with path.open("wb") as file:
        for at in range(points):
            name = METRICS[at % len(METRICS)].encode()
            value = b"\x0a" + bytes([len(name)]) + name + b"\x15" + struct.pack("<f", random.random())
            step, told = at // len(METRICS), b""
            while step > 127:
                told += bytes([step & 127 | 128])
                step >>= 7
            told += bytes([step])
            summary = b"\x0a" + bytes([len(value)]) + value
            body = (
                b"\x09"
                + struct.pack("<d", float(at))
                + b"\x10"
                + told
                + b"\x2a"
                + bytes([len(summary)])
                + summary
            )
            file.write(struct.pack("<Q", len(body)) + bytes(4) + body + bytes(4))


IMPORT = """
import sys, time
from pathlib import Path
from evalrun.tracking.store import Store
from evalrun.training.importing import ImportOptions, import_training
began, cpu = time.perf_counter(), time.process_time()
done = import_training(Store(Path(sys.argv[2])), ImportOptions(sys.argv[1]))
# ru_maxrss would count what the process that started this one held.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(time.perf_counter() - began, time.process_time() - cpu, int(peak.split()[1]) / 1024)
"""

FORMS: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "csv": ("rows.csv", write_csv),
    "trainer_state": ("trainer_state.json", write_state),
    "tensorboard": ("events.out.tfevents.1", write_events),
}


def time_import(folder: Path, form: str, points: int) -> dict[str, float]:
    """Seconds and peak memory (MB) of an import, in a process of its own."""
    name, write = FORMS[form]
    source = folder / form / name
    source.parent.mkdir()
    write(source, points)
    command = [sys.executable, "-c", IMPORT, str(source), str(folder / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, cpu, peak = map(float, done.stdout.split())
    return {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "peak_mb": round(peak)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1_000_000)
    points = parser.parse_args().points
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        found = {"points": points, "log": time_log(folder / "store")}
        for form in FORMS:
            found[form] = time_import(folder, form, points)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
