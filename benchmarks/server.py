"""Fifty readers on ten thousand sweeps: how long pages take, and the memory of the server.

    python benchmarks/server.py [--sweeps 10000] [--readers 50] [--seconds 10]

Copies of one small sweep fill a store, under ids of their own; each reader asks for a page, waits a second,
asks for the next.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from evalrun.tracking.folder import new_ulid
from evalrun.tracking.store import Store

PAGES = ("/", "/p/bench", "/p/bench?page=40", "/api/v1/sweeps", "/s/{sweep}", "/queues")


def fill(root: Path, count: int) -> None:
    """A store of so many sweeps of one run."""
    suite = root / "suite.yaml"
    root.mkdir(parents=True, exist_ok=True)
    (root / "rows.jsonl").write_text(
        "".join(json.dumps({"id": f"r{i}", "m": "yes"}) + "\n" for i in range(5))
    )
    suite.write_text(
        "name: bench\n"
        "models: [{id: m, provider: recorded, column: m}]\nprompts: [{id: p, text: '{{ id }}'}]\n"
        "datasets: [{id: d, path: rows.jsonl, key: id, target: m}]\nscorers: [exact_match]\n"
    )
    store = root / "store"
    command = [sys.executable, "-m", "evalrun", str(suite), "--store", str(store), "--no-report", "-q"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = Store(store).folders()[0]
    files = {
        path.relative_to(first.path): path.read_bytes()
        for path in first.path.rglob("*")
        if path.name in ("sweep.json", "run.json", "events.jsonl")
    }
    for _ in range(count - 1):
        ulid = new_ulid()
        for name, data in files.items():
            path = first.path.with_name(f"{ulid}-bench") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.replace(first.ulid.encode(), ulid.encode()))
    Store(store).list(1)


def read(port: int, cookie: str, paths: list[str], until: float, times: list[float]) -> None:
    """One reader."""
    at = threading.get_ident()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while time.monotonic() < until:
        at += 1
        began = time.monotonic()
        connection.request("GET", paths[at % len(paths)], headers={"Cookie": cookie})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        times.append(time.monotonic() - began)
        time.sleep(1.0)


def main() -> None:
    """Fill, serve, read, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=10_000)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="evalrun-bench-") as place:
        fill(Path(place), options.sweeps)
        store = Path(place) / "store"
        command = [sys.executable, "-m", "evalrun", "serve", "--store", str(store), "--bind", "127.0.0.1:0"]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert server.stderr is not None
        said = server.stderr.readline() + server.stderr.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", said)
        link = said.rpartition("#")[2].strip()
        assert found
        port = int(found[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        own = {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
        connection.request("POST", "/sign-in", json.dumps({"link": link}), own)
        cookie = str(connection.getresponse().headers["Set-Cookie"]).partition(";")[0]
        sweep = Store(store).ulids()[0]
        paths = [each.replace("{sweep}", sweep) for each in PAGES]
        times: list[float] = []
        read(port, cookie, paths, time.monotonic() + 0.1, [])
        until = time.monotonic() + options.seconds
        readers = [
            threading.Thread(target=read, args=(port, cookie, paths, until, times))
            for _ in range(options.readers)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        resident = psutil.Process(server.pid).memory_info().rss
        began = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        server.wait(30)
        print(
            json.dumps(
                {
                    "sweeps": options.sweeps,
                    "readers": options.readers,
                    "pages": len(times),
                    "median_s": round(statistics.median(times), 3),
                    "p95_s": round(sorted(times)[int(0.95 * len(times))], 3),
                    "resident_mb": round(resident / 1e6),
                    "stop_s": round(time.monotonic() - began, 2),
                }
            )
        )


if __name__ == "__main__":
    main()
