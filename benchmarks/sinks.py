"""What sinks cost: a sweep with one that is down or silent against one without, and 10,000 samples as spans.

    python benchmarks/sinks.py [--rows 2000] [--rounds 5] [--spans 10000]

Bars: a sweep beside a sink that is down takes at most 1.05 of its time without; 10,000 samples are sent as
spans, events and metrics in at most 20 s. Sweeps of the three kinds take turns, each after the process that
sends for the one before has given up; the median of the ratios within a round is told.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SUITE = """name: bench
models: [{id: m, provider: recorded, column: o}]
prompts: [{id: p, text: "{{ q }}"}]
datasets: [{id: d, path: rows.jsonl, key: id, target: "{{ t }}"}]
scorers: [exact_match]
"""


class Taker(BaseHTTPRequestHandler):
    """Takes everything at once."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None: ...


def write(folder: Path, name: str, rows: int, sinks: str = "") -> Path:
    """A suite over so many recorded rows."""
    lines = (
        json.dumps({"id": f"r{i}", "q": f"question {i}", "t": "a", "o": "ab"[i % 3 > 0]}) for i in range(rows)
    )
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.yaml").write_text(SUITE + sinks)
    return folder / f"{name}.yaml"


def seconds(*words: str | Path) -> float:
    """How long the command takes."""
    begun = time.perf_counter()
    # One try, so that no process of one sweep is still at work beside the next.
    once = {**os.environ, "EVALRUN_SYNC_TRIES": "1"}
    subprocess.run(
        [sys.executable, "-m", "evalrun", *map(str, words)], check=True, capture_output=True, env=once
    )
    return time.perf_counter() - begun


def given_up(store: Path, sweeps: int) -> None:
    """Wait for what the last sweep left behind: it would take time from the next."""
    end = time.monotonic() + 30
    while len(list(store.glob("sweeps/*/outbox/otlp.jsonl"))) < sweeps and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spans", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="evalrun-bench-") as name, socket.socket() as silent:
        folder = Path(name)
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)  # takes connections and never answers
        sinks = {
            "none": "",
            "down": "sinks: [{otlp: 'http://127.0.0.1:9'}]\n",
            "silent": f"sinks: [{{otlp: 'http://127.0.0.1:{silent.getsockname()[1]}'}}]\n",
        }
        taken: dict[str, list[float]] = {kind: [] for kind in sinks}
        for turn in range(given.rounds):
            for kind, text in sinks.items():
                suite = write(folder, kind, given.rows, text)
                taken[kind].append(seconds(suite, "--store", folder / kind, "--no-report", "--fresh", "-q"))
                if text:
                    given_up(folder / kind, turn + 1)
        for kind in ("down", "silent"):
            ratio = statistics.median(w / o for w, o in zip(taken[kind], taken["none"], strict=True))
            print(
                f"sweep beside a sink that is {kind}: {ratio:.3f} of {statistics.median(taken['none']):.2f} s"
            )
        store = folder / "spans"
        seconds(write(folder, "spans", given.spans), "--store", store, "--no-report", "-q")
        with ThreadingHTTPServer(("127.0.0.1", 0), Taker) as http:
            threading.Thread(target=http.serve_forever, daemon=True).start()
            to = f"otlp=http://127.0.0.1:{http.server_port}"
            took = seconds("sync", "latest", "--store", store, "--to", to)
            http.shutdown()
        print(f"{given.spans:,} samples as spans, events and metrics: {took:.1f} s")


if __name__ == "__main__":
    main()
