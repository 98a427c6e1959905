"""What `performance: {workers: N}` gains: samples a second with 0, 1, 2 … processes that send the requests.

    python benchmarks/workers.py [--base-url http://127.0.0.1:8900/v1] [--workers 0 1 2] [--out FILE.json]

The server must answer at once (a null server) and needs a core of its own, as do evalrun and each worker:
with fewer cores they take each other's time, and the rates say so. `main_us` does not depend on that: it is
the CPU time that evalrun's own process takes for a sample while it asks, and `1e6 / main_us` the rate that
one core allows it, however many workers there are; `worker_us` is what all workers together take. The
numbers of workers are measured in turns; figures are medians over the turns, ratios those of each turn.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from overhead import IN_FLIGHT, SUITE, SYSTEM, server, write_data

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_POLL_S = 0.02


@dataclass
class Clock:
    """CPU seconds of evalrun's own process and of its workers, at the first and the last look at a run."""

    first: tuple[float, float] | None = None
    last: tuple[float, float] = (0.0, 0.0)
    journalled: int = 0

    def look(self, pid: int, journalled: int) -> None:
        """Look again if the journal has grown since: after the last sample comes the analysis."""
        if journalled == self.journalled:
            return
        self.journalled = journalled
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self.last = _cpu_s(pid), sum(_cpu_s(int(each)) for each in workers)
        self.first = self.first or self.last

    def spent(self) -> tuple[float, float]:
        first = self.first or self.last
        return self.last[0] - first[0], self.last[1] - first[1]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def run(folder: Path, base_url: str, n: int, stream: bool, workers: int) -> dict[str, float]:
    """One sweep in a fresh store: its rate, and what CPU it took per sample while it asked."""
    suite = folder / f"suite-{n}-{stream}-{workers}.yaml"
    text = SUITE.format(
        base_url=base_url,
        data=write_data(folder, n),
        stream=str(stream).lower(),
        in_flight=IN_FLIGHT,
        system=SYSTEM,
    )
    suite.write_text(text.replace("performance: {", f"performance: {{workers: {workers}, "))
    store = Path(tempfile.mkdtemp(dir=folder))
    command = [
        sys.executable,
        "-m",
        "evalrun",
        "run",
        str(suite),
        "--store",
        str(store),
        "--quiet",
        "--no-report",
    ]
    clock = Clock()
    with (store / "out.txt").open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        while process.poll() is None:
            journals = list(store.glob("sweeps/*/runs/*/journal.jsonl"))
            with contextlib.suppress(OSError):  # it has just gone
                if journals:
                    clock.look(process.pid, journals[0].stat().st_size)
            time.sleep(_POLL_S)
    if process.wait() != 0:
        raise SystemExit((store / "out.txt").read_text())
    (run_file,) = store.glob("sweeps/*/runs/*/run.json")
    document = json.loads(run_file.read_text())
    assert document["counts"]["scored"] == n, document["counts"]
    main_s, workers_s = clock.spent()
    return {
        "samples_per_s": n / document["timings"]["wall_s"],
        "main_us": main_s / n * 1e6,
        "worker_us": workers_s / n * 1e6,
    }


def measure(base_url: str, samples: int, turns: int, numbers: list[int]) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "in_flight": IN_FLIGHT,
        "turns": turns,
        "samples": samples,
        "cpus": os.cpu_count(),
    }
    with tempfile.TemporaryDirectory(prefix="evalrun-bench-") as name:
        for stream, label, n in ((False, "plain", samples), (True, "streamed", samples // 4)):
            made = [
                {number: run(Path(name), base_url, n, stream, number) for number in numbers}
                for _ in range(turns)
            ]
            figures[label] = {
                str(number): {
                    **{
                        key: round(statistics.median(turn[number][key] for turn in made), 1)
                        for key in ("samples_per_s", "main_us", "worker_us")
                    },
                    f"ratio_to_{numbers[0]}": round(
                        statistics.median(
                            turn[number]["samples_per_s"] / turn[numbers[0]]["samples_per_s"] for turn in made
                        ),
                        2,
                    ),
                }
                for number in numbers
            }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-url", help="a null server's base URL, on loopback; default: our own")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    options = parser.parse_args()
    with server(options.base_url) as base_url:
        text = json.dumps(measure(base_url, options.samples, options.turns, options.workers), indent=2)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
