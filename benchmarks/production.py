"""What a probe costs between its turns, how long a turn takes, and how often its alarms are wrong.

    python benchmarks/production.py [--months 200]

Memory is that of `evalrun probe` itself while it waits. The alarms are simulated over months in which a
deployment just keeps its promise: at most 5 % of them may be alarmed about.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np

from evalrun.production.experiment import half_width
from evalrun.production.slo import BURN_RULES, Counts, Rules, burns

SUITE = """
name: probe-benchmark
models: [{id: live, provider: openai_compatible, base_url: "http://127.0.0.1:%d/v1", model: m}]
prompts: [{id: p, messages: [{role: user, content: "{{ q }}"}]}]
datasets: [{id: d, rows: [{q: a}, {q: b}, {q: c}, {q: d}, {q: e}], target: "{{ 'x' }}"}]
scorers: [exact_match]
"""


class Server(BaseHTTPRequestHandler):
    """Answers x."""

    def do_GET(self) -> None:
        self._say({"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
        self._say({"id": "c", "model": "m", "choices": [choice], "usage": {}})

    def _say(self, document: object) -> None:
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def waiting() -> tuple[float, float]:
    """Megabytes of the prober between its turns, and the seconds of a turn."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "probe.yaml"
        suite.write_text(SUITE % server.server_address[1])
        command = [sys.executable, "-m", "evalrun", "probe", str(suite), "--store", folder, "--every", "1h"]
        begun = time.monotonic()
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()  # the turn's line
        took = time.monotonic() - begun
        time.sleep(1)
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.terminate()
        process.wait()
    server.shutdown()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024, took


def false_alarms(months: int, objective: float = 0.995, every_s: float = 1800.0) -> float:
    """The share of months alarmed about in which requests fail by chance, just as often as they may."""
    rng = np.random.default_rng(0)
    turns = int(30 * 86400 / every_s)
    at = np.arange(turns) * every_s
    rules, wrong = Rules(objective), 0
    for _ in range(months):
        bad = (rng.random(turns) > objective).astype(float)
        counts = Counts(at, np.ones(turns), bad)
        # An alarm opens at a turn that is bad: the others need not be looked at.
        moments = at[bad > 0]
        wrong += any(burns(counts, rule, rules, moment)[0] for rule in BURN_RULES for moment in moments)
    return wrong / months


def peeking(experiments: int = 1000) -> tuple[float, float]:
    """Experiments without an effect in which one is found, looked at every 100 units an arm up to 4,000: by a
    z test, and by the confidence sequence."""
    rng = np.random.default_rng(1)
    a, b = (np.cumsum(rng.random((experiments, 4000)) < 0.5, axis=1) for _ in "ab")
    fixed, always = np.zeros(experiments, bool), np.zeros(experiments, bool)
    for n in range(100, 4001, 100):
        left, right = a[:, n - 1] / n, b[:, n - 1] / n
        se = np.sqrt((left * (1 - left) + right * (1 - right)) / n)
        fixed |= np.abs(right - left) > 1.96 * se
        always |= np.abs(right - left) > se * half_width(1.0, 2 * n, 0.05, 5000)
    return float(fixed.mean()), float(always.mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--months", type=int, default=200)
    months = parser.parse_args().months
    memory, took = waiting()
    z, sequence = peeking()
    print("| what | bar | measured |\n|---|---|---|")
    print(f"| a probe between its turns, resident | 50 MB | {memory:.0f} MB |")
    print(f"| its first turn of five rows, all of the process | | {took:.1f} s |")
    print(f"| months that just keep an SLO of 99.5 %, alarmed about | 5 % | {false_alarms(months):.1%} |")
    print(f"| experiments without an effect, looked at 40 times: sequence | 5 % | {sequence:.1%} |")
    print(f"| the same by a z test, for comparison | | {z:.1%} |")


if __name__ == "__main__":
    main()
