"""How well evalrun keeps a schedule: lateness, response times against scripted truth, memory of a schedule.

    python benchmarks/load.py            two minutes; wants a quiet machine with two cores

- lateness: how long after its moment each of the requests was sent, at 500/s and 1,000/s with `workers: 2`
  against a server that costs nothing (bar: 99th percentile at most 5 ms);
- truth: D/D/1 and M/D/1 against a server with one place and a fixed service time that remembers when it ended
  each answer by the machine's clock (bar: response times within 2 ms, by the median and the 95th percentile);
- schedule: 10,000,000 arrivals in constant memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 200


def suite(folder: Path, base_url: str, load: dict[str, Any], workers: int) -> Path:
    """A suite of one model under load."""
    import yaml

    document = {
        "name": "bench-load",
        "models": [{"id": "m", "provider": "openai_compatible", "base_url": base_url, "model": "m"}],
        "prompts": [{"id": "p", "text": "say {{ w }}"}],
        "datasets": [{"id": "d", "rows": [{"w": f"w{at}"} for at in range(ROWS)], "target": "{{ w }}"}],
        "scorers": ["exact_match"],
        "performance": {"workers": workers},
        "load": {"reference": "none", "max_in_flight": 2_000, **load},
    }
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def run(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The document of the run, and its samples in the order of the schedule."""
    from evalrun.tracking.parquet import iter_samples

    command = [sys.executable, "-m", "evalrun", str(path), "--no-report", "--quiet", "--json"]
    done = subprocess.run([*command, "--store", str(path.parent / "store")], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    document = json.loads(done.stdout)
    name = document["runs"][0]["run"]
    rows = iter_samples(Path(document["folder"]) / "runs" / name / "samples.parquet")
    return document["runs"][0], sorted(rows, key=lambda row: row["scheduled_s"])


def lateness(rates: list[int], seconds: float) -> list[dict[str, Any]]:
    """Lateness of the client at each rate."""
    server = subprocess.Popen(
        [sys.executable, "-m", "evalrun.runner.null_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    port = int(server.stdout.readline())
    found = []
    try:
        for rate in rates:
            with tempfile.TemporaryDirectory() as folder:
                load = {"rates": [rate], "seconds": seconds, "warmup_s": 2}
                document, rows = run(suite(Path(folder), f"http://127.0.0.1:{port}/v1", load, workers=2))
            late = np.array([row["client_queue_s"] for row in rows if not row["warmup"]]) * 1000
            said = document["details"]["load"]
            found.append(
                {"rate": rate, "n": len(late), "p50_ms": float(np.quantile(late, 0.5)),
                 "p99_ms": float(np.quantile(late, 0.99)), "max_ms": float(late.max()),
                 "verdict": said["verdict"], "capped": said["capped"]}
            )  # fmt: skip
            print(json.dumps(found[-1]), flush=True)
    finally:
        server.kill()
        server.wait()
    return found


_FIFO = """
import asyncio, json, sys, time
service = float(sys.argv[1]); ended = []; turn = asyncio.Semaphore(1); free = 0.0
BODY = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}'
async def serve(reader, writer):
    global free
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = next((int(l.split(b":")[1]) for l in head.lower().split(b"\\r\\n") if l.startswith(b"content-length")), 0)
            await reader.readexactly(length)
            body = BODY
            if head.startswith(b"GET"):
                body = json.dumps(ended).encode()
            else:  # the end of each answer is set by the clock, so that lateness does not add up
                now = time.perf_counter(); free = max(free, now) + service; end = free
                while (left := end - time.perf_counter()) > 0:
                    await asyncio.sleep(left - 0.001 if left > 0.002 else 0)
                ended.append([now, time.perf_counter()])
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (len(body), body))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
import uvloop; uvloop.run(main())
"""  # noqa: E501


def truth(what: str, load: dict[str, Any], service: float) -> dict[str, Any]:
    """Response times against Lindley's recursion for the schedule that was drawn."""
    server = subprocess.Popen(
        [sys.executable, "-c", _FIFO, str(service)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    port = int(server.stdout.readline())
    try:
        with tempfile.TemporaryDirectory() as folder:
            document, rows = run(suite(Path(folder), f"http://127.0.0.1:{port}/v1", load, workers=0))
    finally:
        server.kill()
        server.wait()
    due = np.array([row["scheduled_s"] for row in rows])
    response = np.array([row["done_s"] for row in rows]) - due
    wait, expected = 0.0, []
    for at in range(len(due)):
        if at:
            wait = max(0.0, wait + service - (due[at] - due[at - 1]))
        expected.append(wait + service)
    off = np.abs(response - np.array(expected)) * 1000
    found = {"what": what, "n": len(due), "off_p50_ms": float(np.median(off)),
             "off_p95_ms": float(np.quantile(off, 0.95)), "off_max_ms": float(off.max()),
             "verdict": document["details"]["load"]["verdict"]}  # fmt: skip
    print(json.dumps(found), flush=True)
    return found


def schedule(count: int) -> dict[str, Any]:
    """Memory and time of going through so many arrivals."""
    from evalrun.runner.load.schedule import schedule_of
    from evalrun.suite.levels import LoadSpec, levels_of

    spec = LoadSpec.model_validate({"rates": [1_000], "requests": count, "reference": "none"})
    offsets = schedule_of(spec, levels_of(spec)[0], seed=1, rows=1, base_dir=Path())
    sum(1 for _ in islice(offsets, 200_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, last, n = time.perf_counter(), 0.0, 0
    for offset in offsets:
        last, n = offset, n + 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    found = {"arrivals": n, "grown_mb": grown / 1024, "s": time.perf_counter() - began, "rate": n / last}
    print(json.dumps(found), flush=True)
    return found


def main() -> None:
    """Measure, print, and say which bars hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    late = lateness([500, 1_000], options.seconds)
    right = [
        truth("D/D/1 at twice its capacity", {"rates": [20], "arrivals": "constant", "requests": 60}, 0.1),
        truth("M/D/1 at 0.5", {"rates": [10], "requests": 200}, 0.05),
        truth("M/D/1 at 0.8", {"rates": [16], "requests": 300}, 0.05),
    ]
    memory = schedule(10_000_000)
    bars = {
        "lateness p99 <= 5 ms": all(each["p99_ms"] <= 5 for each in late),
        "within 2 ms of the truth (p95)": all(each["off_p95_ms"] <= 2 for each in right),
        "10,000,000 arrivals in constant memory": memory["grown_mb"] < 8,
    }
    print(json.dumps(bars))


if __name__ == "__main__":
    main()
