"""What dies on a cluster, counted at the server: nodes killed at random, and the keeper of limits and budget.

    python benchmarks/cluster_faults.py nodes [--samples 2000 --every 6]
    python benchmarks/cluster_faults.py pause [--seconds 40]
    python benchmarks/cluster_faults.py limits --keeper killed|paused|alive [--rpm 240]
    python benchmarks/cluster_faults.py budget --keeper killed

needs the extra `ray`. A real cluster of two nodes and one that is killed without notice again and again (a
new one joins each time); the server takes a quarter of a second for an answer and notes each question and its
moment. `nodes` says how many requests came for questions that had been asked before, beside what the sweep
says of it; `pause` the same where one node is stopped for a while and comes back; `limits` the most requests
in any 60 seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from aiohttp import web

SECONDS_A_REQUEST = 0.25
IN_FLIGHT = 4


class Server:
    """Answers after a while; `asked` has the moment and text of each request."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, str]] = []
        self.url = ""
        threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True).start()
        while not self.url:
            time.sleep(0.01)

    async def _run(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        await asyncio.Event().wait()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append((time.monotonic(), body["messages"][-1]["content"]))
        await asyncio.sleep(SECONDS_A_REQUEST)
        message = {"role": "assistant", "content": "42"}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
        return web.json_response({"id": "a", "model": "m", "choices": choices, "usage": usage})

    def twice(self) -> int:
        """Requests for questions that had been asked before."""
        return sum(count - 1 for count in Counter(text for _, text in self.asked).values())

    def most_in_a_minute(self) -> int:
        """The most requests in any 60 seconds."""
        moments = [at for at, _ in self.asked]
        return max((sum(at <= other < at + 60 for other in moments) for at in moments), default=0)


def suite(folder: Path, url: str, rows: int, **keys: Any) -> Path:
    """A suite over so many rows."""
    path = folder / "suite.yaml"
    model = {
        "id": "m",
        "provider": "openai_compatible",
        "base_url": url,
        "model": "m",
        **keys.pop("model", {}),
    }
    questions = [{"id": f"r{number}", "q": f"question {number}", "a": "42"} for number in range(rows)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    document = {
        "name": "faults", "models": [model], "prompts": [{"id": "p", "text": "{{ q }}"}],
        "datasets": [{"id": "rows", "path": "rows.jsonl", "key": "id", "target": "{{ a }}"}],
        "scorers": ["exact_match"], "performance": {"concurrency": IN_FLIGHT}, **keys,
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path


def sweep(path: Path, cluster: Any, shard: int) -> subprocess.Popen[str]:
    """`evalrun` on the cluster."""
    command = [
        sys.executable, "-m", "evalrun", str(path), "--on", f"ray://{cluster.address}", "--at", "at",
        "--store", "store", "--shard", str(shard), "--no-report", "--no-cache", "-q",
    ]  # fmt: skip
    return subprocess.Popen(
        command, cwd=path.parent, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def said(folder: Path) -> dict[str, Any]:
    """What the newest sweep says of itself."""
    manifest = json.loads((max((folder / "store" / "sweeps").iterdir()) / "sweep.json").read_text())
    return {"status": manifest["status"], **manifest.get("cluster", {})}


def killing(cluster: Any, driver: subprocess.Popen[str], every_s: float) -> int:
    """Kill nodes at random until the driver ends; how many."""
    draw, killed = random.Random(11), 0
    while driver.poll() is None:
        node = cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
        end = time.monotonic() + every_s * draw.uniform(0.5, 1.5)
        while time.monotonic() < end and driver.poll() is None:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)
        killed += driver.poll() is None
    return killed


def pausing(cluster: Any, driver: subprocess.Popen[str], seconds: float) -> None:
    """Stop a node with all its workers for a while, then let it go on."""
    node = cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
    while not any("run_shard" in "".join(each.cmdline()) for each in processes(node)):
        time.sleep(0.2)
    time.sleep(3)
    stopped = processes(node)
    for each in stopped:
        each.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    for each in stopped:
        each.send_signal(signal.SIGCONT)
    driver.wait()
    cluster.remove_node(node, allow_graceful=False)


def processes(node: Any) -> list[psutil.Process]:
    """The raylet of a node and its workers."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [raylet, *raylet.children(recursive=True)]


def strike(what: str, server: Server, driver: subprocess.Popen[str], after: int) -> float | None:
    """Kill or pause the keeper once so many requests came; when that was."""
    while len(server.asked) < after and driver.poll() is None:
        time.sleep(0.02)
    if what == "alive" or driver.poll() is not None:
        return None
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [""])[0].startswith("ray::Keeper"):
            process.send_signal(signal.SIGKILL if what == "killed" else signal.SIGSTOP)
    return time.monotonic()


def main() -> None:
    """Run one of the three, print what was counted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["nodes", "pause", "limits", "budget"])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--shard", type=int, default=250)
    parser.add_argument("--every", type=float, default=6.0, help="seconds between two deaths, in the mean")
    parser.add_argument("--seconds", type=float, default=40.0, help="how long a node is paused")
    parser.add_argument("--keeper", choices=["killed", "paused", "alive"], default="killed")
    parser.add_argument("--rpm", type=int, default=240)
    options = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    server, struck, killed = Server(), None, 0
    keys: dict[str, Any] = {}
    if options.what == "limits":
        keys["model"] = {"limits": {"requests_per_minute": options.rpm}}
    if options.what == "budget":
        price = {"input_per_million_usd": 1000, "output_per_million_usd": 1000}
        keys = {"model": {"price": price}, "budget": {"usd": 0.02 * options.samples / 2}}
    small = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    try:
        cluster.add_node(**small)
        cluster.wait_for_nodes()
        with tempfile.TemporaryDirectory(prefix="evalrun-faults-") as name:
            folder, began = Path(name), time.monotonic()
            driver = sweep(suite(folder, server.url, options.samples, **keys), cluster, options.shard)
            if options.what == "nodes":
                killed = killing(cluster, driver, options.every)
            elif options.what == "pause":
                pausing(cluster, driver, options.seconds)
            else:
                struck = strike(options.keeper, server, driver, options.rpm // 3)
            messages = driver.communicate()[1]
            print(json.dumps({
                "what": options.what, "exit_code": driver.returncode,
                "seconds": round(time.monotonic() - began, 1),
                "nodes_killed": killed, "requests": len(server.asked),
                "questions": len({text for _, text in server.asked}), "asked_twice": server.twice(),
                "most_in_a_minute": server.most_in_a_minute(),
                "after_the_keeper": sum(at > struck + 1 for at, _ in server.asked) if struck else None,
                "usd": round(len(server.asked) * 0.02, 2), "said": said(folder),
                "messages": messages.strip().splitlines()[-3:],
            }, indent=2))  # fmt: skip
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
