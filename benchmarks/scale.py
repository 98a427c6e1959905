"""A sweep on a Ray cluster: what Ray costs on this machine, and what a hundred nodes would take by that.

    python benchmarks/scale.py [--samples 100000] [--out FILE.json] [--nodes 100 --rate 40 --of 100000000]

needs the extra `ray`. A cluster of two nodes with one core each asks a server that costs nothing; beside it
the same suite is asked in one process with `performance: {workers: 2}`. Ray's share is what the sweep on the
cluster takes more of that process's time, joining the cluster left out (it is a constant). The simulation is
discrete: shards on nodes that die at random, one driver that gathers, segments at most one a second and node;
its costs for each sample and shard are those that were measured just before. What it cannot know: how fast a
model answers (`--rate`, answers a second and node), and what a network between real machines costs.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from evalrun.cluster.plan import SHARD
from evalrun.cluster.segments import FLUSH_S, FLUSH_SAMPLES, PUT_INTERVAL_S

PUT_USD, GET_USD, GB_MONTH_USD = 5e-6, 4e-7, 0.023
"""S3 Standard, us-east-1: PUT and LIST, GET, storage."""


def suite(folder: Path, url: str, rows: int, workers: int) -> Path:
    """A suite over so many short rows."""
    data = folder / "rows.jsonl"
    if not data.exists():
        with data.open("w") as file:
            for number in range(rows):
                row = {"id": f"r{number}", "q": f"What is {number} plus {number % 7}?", "a": "42"}
                file.write(json.dumps(row) + "\n")
    path = folder / f"suite{workers}.yaml"
    model = {"id": "null", "provider": "openai_compatible", "base_url": url, "model": "null"}
    document = {
        "name": "scale", "models": [{**model, "params": {"temperature": 0, "max_tokens": 16}}],
        "prompts": [{"id": "direct", "text": "{{ q }}"}],
        "datasets": [{"id": "rows", "path": "rows.jsonl", "key": "id", "target": "{{ a }}"}],
        "parse": ["last_number"], "scorers": ["exact_match"],
        "performance": {"concurrency": 32, "workers": workers},
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path


def sweep(path: Path, *words: str) -> dict[str, float]:
    """Seconds of the run and of the whole process, the driver's processor time, its peak memory."""
    store = path.parent / f"store-{time.monotonic_ns()}"
    command = [
        sys.executable,
        "-m",
        "evalrun",
        path.name,
        "--store",
        store,
        "--no-report",
        "--no-cache",
        "-q",
    ]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [*map(str, command), *words], cwd=path.parent, check=True, stdout=subprocess.DEVNULL
    )  # fmt: skip
    whole_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    (run,) = store.glob("sweeps/*/runs/*/run.json")
    document = json.loads(run.read_text())
    return {
        "run_s": document["timings"]["wall_s"],
        "whole_s": whole_s,
        "driver_cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_mb": after.ru_maxrss / 1024,
        "right": float(document["counts"]["scored"]),
    }


def measure(samples: int) -> dict[str, Any]:
    """The same sweep by `workers` and on two nodes."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 100 << 20}
    server = subprocess.Popen(
        [sys.executable, "-m", "evalrun.runner.null_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    cluster = None
    try:
        with tempfile.TemporaryDirectory(prefix="evalrun-scale-") as name:
            folder = Path(name)
            alone = sweep(suite(folder, url, samples, 2))
            cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
            cluster.add_node(**small)
            cluster.wait_for_nodes()
            at = folder / "at"
            on = sweep(suite(folder, url, samples, 0), "--on", f"ray://{cluster.address}", "--at", str(at))
            segments = list(at.rglob("*.zst"))
            size = sum(path.stat().st_size for path in segments)
    finally:
        if cluster is not None:
            cluster.shutdown()
        server.kill()
        server.wait()
    return {
        "samples": samples,
        "workers": alone,
        "ray": on,
        "share_of_ray": round(on["run_s"] / alone["run_s"] - 1, 3),
        "segments": len(segments),
        "puts_per_s_and_node": round(len(segments) / on["run_s"] / 2, 3),
        "bytes_a_sample": round(size / samples, 1),
        "gather_us": round(on["driver_cpu_s"] / samples * 1e6, 1),
        "same_results": alone["right"] == on["right"] == samples,
    }


def simulate(
    samples: int, nodes: int, rate: float, gather_us: float, bytes_a_sample: float, deaths: float, usd: float
) -> dict[str, Any]:
    """What `samples` take on `nodes` that each answer `rate` a second and die `deaths` times an hour (to come
    back after five minutes), at `usd` an hour and node. A death loses what is in no segment."""
    draw, shards = random.Random(7), -(-samples // SHARD)
    free = [(0.0, node) for node in range(nodes)]
    dies = [draw.expovariate(deaths / 3600) if deaths else float("inf") for _ in range(nodes)]
    driver_s, puts, again, lost, left = 0.0, 0, 0.0, 0, [float(SHARD)] * shards
    every = max(PUT_INTERVAL_S, min(FLUSH_S, FLUSH_SAMPLES / rate))
    end_s = 0.0
    while left:
        begin_s, node = heapq.heappop(free)
        work = left.pop()
        end = begin_s + work / rate
        if dies[node] < end:
            at = max(dies[node], begin_s)
            kept = rate * every * int((at - begin_s) / every)
            again += rate * (at - begin_s) - kept
            lost += at > begin_s
            puts += int((at - begin_s) / every)
            left.append(work - kept)
            dies[node] = at + 300 + draw.expovariate(deaths / 3600)
            heapq.heappush(free, (at + 300, node))
            continue
        puts += -(-int(work) // int(rate * every)) if rate * every >= 1 else 1
        driver_s = max(driver_s, end) + work * gather_us / 1e6
        end_s = max(end_s, end)
        heapq.heappush(free, (end, node))
    return {
        "samples": samples,
        "nodes": nodes,
        "answers_per_s_and_node": rate,
        "shards": shards,
        "asked_h": round(end_s / 3600, 2),
        "gathered_h": round(driver_s / 3600, 2),
        "bound_by": "the driver" if driver_s > 1.1 * end_s else "the nodes",
        "gb": round(samples * bytes_a_sample / 1e9, 1),
        "puts": puts,
        "puts_per_s_and_node": round(puts / max(end_s, 1e-9) / nodes, 4),
        "lists": shards + lost,
        "gets": puts,
        "deaths": lost,
        "asked_again_share": round(again / samples, 5),
        "store_usd": round((puts + shards + lost) * PUT_USD + puts * GET_USD, 2),
        "storage_usd_a_month": round(samples * bytes_a_sample / 1e9 * GB_MONTH_USD, 2),
        "nodes_usd": round(end_s / 3600 * nodes * usd, 2),
    }


def main() -> None:
    """Measure, simulate, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--of", type=int, default=100_000_000, help="samples of the simulation")
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--rate", type=float, default=40.0, help="answers a second and node")
    parser.add_argument("--deaths", type=float, default=0.05, help="an hour and node")
    parser.add_argument("--usd", type=float, default=2.5, help="an hour and node")
    parser.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    options = parser.parse_args()
    measured = measure(options.samples)
    simulated = simulate(
        options.of, options.nodes, options.rate, measured["gather_us"], measured["bytes_a_sample"],
        options.deaths, options.usd,
    )  # fmt: skip
    text = json.dumps({"measured": measured, "simulated": simulated}, indent=2)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
