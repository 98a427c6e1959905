"""A great many recorded answers: what gathering, analysing and reporting them takes in time and memory.

    python benchmarks/large.py --samples 1000000

Makes a Parquet file of so many rows with answers of 40 words, scores them in a process of its own, and prints
the process's greatest resident memory, and the seconds from the last answer to `run.json` (journal to
Parquet, all metrics) and from there to the end (report). Bars: 1,000,000 samples within 2 GB and 120 s.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

SUITE = """
name: large
models: [{id: m, provider: recorded, column: said}]
prompts: [{id: p, messages: [{role: user, content: "{{ question }}"}]}]
datasets: [{id: d, path: rows.parquet, key: id, target: "{{ label }}", sensitive: [group]}]
parse: [{regex: "^(\\\\w)"}]
scorers: [exact_match]
fairness: {by: [group]}
"""
BLOCK = 50_000


def make_rows(path: Path, samples: int) -> None:
    """Rows of random words."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(7)
    words = [f"word{n}" for n in range(5_000)]
    writer = None
    for start in range(0, samples, BLOCK):
        numbers = range(start, min(samples, start + BLOCK))
        table = pa.table(
            {
                "id": [f"r{n}" for n in numbers],
                "question": [" ".join(rng.choices(words, k=30)) for _ in numbers],
                "label": rng.choices("abc", k=len(numbers)),
                "group": rng.choices("xy", k=len(numbers)),
                "said": [" ".join([rng.choice("abc"), *rng.choices(words, k=40)]) for _ in numbers],
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


def measure(folder: Path) -> dict[str, Any]:
    """Run the suite; seconds, bytes."""
    words = ["run", "suite.yaml", "--no-cache", "--store", "store", "--report", "report.html"]
    child = subprocess.Popen([sys.executable, "-m", "evalrun", *words], cwd=folder, stdout=subprocess.DEVNULL)
    began, peak = time.time(), 0
    while child.poll() is None:
        try:
            status = Path(f"/proc/{child.pid}/status").read_text()
            peak = max(peak, int(status.partition("VmHWM:")[2].split()[0]) * 1024)
        except (OSError, IndexError):
            break
        time.sleep(0.2)
    if child.wait():
        raise SystemExit("evalrun failed")
    ended = time.time()
    (run,) = folder.glob("store/sweeps/*/runs/*/run.json")
    answered = datetime.fromisoformat(json.loads(run.read_text())["timings"]["finished_at"]).timestamp()
    table = run.with_name("samples.parquet")
    files = [table] if table.is_file() else list(table.iterdir())
    return {
        "ask_s": answered - began,
        "gather_and_analyse_s": run.stat().st_mtime - answered,
        "report_s": ended - run.stat().st_mtime,
        "peak_bytes": peak,
        "parts": len(files),
        "samples_bytes": sum(file.stat().st_size for file in files),
        "report_bytes": (folder / "report.html").stat().st_size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_rows(folder / "rows.parquet", arguments.samples)
        (folder / "suite.yaml").write_text(SUITE)
        print(json.dumps({"samples": arguments.samples, **measure(folder)}, indent=2))


if __name__ == "__main__":
    main()
