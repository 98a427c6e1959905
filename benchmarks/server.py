"""Fifty readers on ten thousand sweeps: how long pages take, and the memory of the server. Five who watch a
running sweep: what it costs the sweep.

    python benchmarks/server.py [--sweeps 10000] [--readers 50] [--seconds 10] [--watchers 5] [--keep FOLDER]

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

SUITE = """name: bench
models: [{id: m, provider: recorded, column: m}]
prompts: [{id: p, text: '{{ id }}'}]
datasets: [{id: d, path: rows.jsonl, key: id, target: m}]
scorers: [exact_match]
"""
PAGES = ("/", "/p/bench", "/p/bench?page=40", "/api/v1/sweeps", "/s/{sweep}", "/queues")


def fill(root: Path, count: int) -> None:
    """A store of so many sweeps of one run."""
    suite = root / "suite.yaml"
    root.mkdir(parents=True, exist_ok=True)
    (root / "rows.jsonl").write_text(
        "".join(json.dumps({"id": f"r{i}", "m": "yes"}) + "\n" for i in range(5))
    )
    suite.write_text(SUITE)
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


class Served:
    """A server in a process of its own, and one who signed in."""

    def __init__(self, store: Path) -> None:
        command = [sys.executable, "-m", "evalrun", "serve", "--store", str(store), "--bind", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        said = self.process.stderr.readline() + self.process.stderr.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", said)
        assert found, said
        self.port = int(found[1])
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        own = {"Origin": f"http://127.0.0.1:{self.port}", "Content-Type": "application/json"}
        connection.request("POST", "/sign-in", json.dumps({"link": said.rpartition("#")[2].strip()}), own)
        self.cookie = str(connection.getresponse().headers["Set-Cookie"]).partition(";")[0]

    def stop(self) -> float:
        """End it; how long that took, in seconds."""
        began = time.monotonic()
        os.kill(self.process.pid, signal.SIGTERM)
        self.process.wait(30)
        return time.monotonic() - began


def readers(store: Path, count: int, seconds: float) -> dict[str, float]:
    """How long pages take so many readers."""
    served, sweep = Served(store), Store(store).ulids()[0]
    paths = [each.replace("{sweep}", sweep) for each in PAGES]
    times: list[float] = []
    read(served.port, served.cookie, paths, time.monotonic() + 0.1, [])
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=read, args=(served.port, served.cookie, paths, until, times))
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    resident = psutil.Process(served.process.pid).memory_info().rss
    return {
        "readers": count, "pages": len(times), "median_s": round(statistics.median(times), 3),
        "p95_s": round(sorted(times)[int(0.95 * len(times))], 3),
        "resident_mb": round(resident / 1e6), "stop_s": round(served.stop(), 2),
    }  # fmt: skip


def watch(served: Served, sweep: str, told: list[int]) -> None:
    """One who follows a sweep to its end."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request("GET", f"/api/v1/sweeps/{sweep}/live", headers={"Cookie": served.cookie})
    answer, count = connection.getresponse(), 0
    while line := answer.fp.readline():
        count += line.startswith(b"event: state")
        if line.startswith(b"event: end"):
            break
    told.append(count)


def watchers(root: Path, samples: int, count: int, pairs: int) -> dict[str, float]:
    """How many times as long a running sweep takes with so many watchers, in turns with none; and how many
    times the processor's time, which other programs on the machine change less."""
    folder = root / "watched"
    folder.mkdir()
    rows = ({"id": f"r{at}", "m": "yes"} for at in range(samples))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "suite.yaml").write_text(SUITE)
    store, told = folder / "store", list[int]()
    seconds, busy = {0: list[float](), count: list[float]()}, {0: list[float](), count: list[float]()}
    command = [sys.executable, "-m", "evalrun", str(folder / "suite.yaml"), "--store", str(store), "--fresh",
               "--no-report", "-q"]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    served = Served(store)
    for turn in range(2 * pairs):
        known, of = set(Store(store).ulids()), (0, count)[(turn + turn // 2) % 2]
        began = time.monotonic()
        sweep = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not (new := set(Store(store).ulids()) - known):
            time.sleep(0.02)
        ulid = new.pop()
        while of and not any((store / "sweeps").glob(f"{ulid}-*/sweep.json")):
            time.sleep(0.02)
        threads = [threading.Thread(target=watch, args=(served, ulid, told)) for _ in range(of)]
        for thread in threads:
            thread.start()
        _, sweep.returncode, used = os.wait4(sweep.pid, 0)
        seconds[of].append(time.monotonic() - began)
        busy[of].append(used.ru_utime + used.ru_stime)
        for thread in threads:
            thread.join()
    served.stop()
    ratios = [
        round(statistics.median(b / a for a, b in zip(each[0], each[count], strict=True)), 3)
        for each in (seconds, busy)
    ]
    return {"watchers": count, "samples": samples, "times_as_long": ratios[0], "times_as_busy": ratios[1],
            "states_told": min(told)}  # fmt: skip


def main() -> None:
    """Fill, serve, read, watch; print a JSON line of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=10_000)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--watchers", type=int, default=5)
    parser.add_argument("--samples", type=int, default=20_000, help="of the sweep that is watched")
    parser.add_argument("--pairs", type=int, default=5, help="how often it runs with and without watchers")
    parser.add_argument("--keep", type=Path, help="a folder for the filled store, to use it again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="evalrun-bench-") as place:
        root = options.keep or Path(place)
        if options.sweeps and not (root / "store").exists():
            fill(root, options.sweeps)
        if options.sweeps:
            found = readers(root / "store", options.readers, options.seconds)
            print(json.dumps({"sweeps": options.sweeps, **found}), flush=True)
        if options.watchers:
            print(json.dumps(watchers(Path(place), options.samples, options.watchers, options.pairs)))


if __name__ == "__main__":
    main()
