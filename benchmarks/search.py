"""What a race saves and how often it is wrong, by simulation; and what its statistics cost.

    python benchmarks/search.py [--races 200] [--server]

With `--server`: the time of a race whose eight candidates answer alike, so that none is dropped, beside that
of an ordinary sweep that sends the same requests, to a server here that takes 20 ms for an answer.

Candidates are prompts that find the same rows hard: right where a normal value, correlated 0.6 between
prompts, is below the quantile of the prompt's rate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import NormalDist

import numpy as np

from evalrun.stats import EProcess, Race

CASES = {
    "one at 0.80, fifteen at 0.70": [0.80] + [0.70] * 15,
    "spread from 0.60 to 0.75": list(np.linspace(0.75, 0.60, 16)),
    "all at 0.70": [0.70] * 16,
}
ROWS, BLOCK = 1000, 25


def race(rates: list[float], rng: np.random.Generator) -> Race:
    """One race to its end."""
    shared = rng.standard_normal((ROWS, 1)) * math.sqrt(0.6)
    own = rng.standard_normal((ROWS, len(rates))) * math.sqrt(0.4)
    hits = ((shared + own) < [NormalDist().inv_cdf(rate) for rate in rates]).astype(float)
    found = Race([str(at) for at in range(len(rates))], units=ROWS)
    at = 0
    while not found.over:
        found.tell({name: hits[at : at + BLOCK, int(name)] for name in found.left})
        at += BLOCK
    return found


async def _serve(port: int) -> None:
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(0.02)
        message = {"role": "assistant", "content": "yes"}
        usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return web.json_response({"model": "m", "choices": choices, "usage": usage})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def own_cost(rows: int = 300, candidates: int = 8, rounds: int = 3) -> None:
    """Print what a race and an ordinary sweep take for the same requests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = multiprocessing.Process(target=lambda: asyncio.run(_serve(port)), daemon=True)
    server.start()
    model = {
        "id": "m",
        "provider": "openai_compatible",
        "base_url": f"http://127.0.0.1:{port}/v1",
        "model": "m",
    }
    asked = [{"q": f"{at}", "t": "yes"} for at in range(rows)]
    suite = {
        "name": "cost",
        "models": [{**model, "params": {"temperature": 0}}],
        "prompts": [{"id": f"p{at}", "text": f"Question {at}: {{{{ q }}}}"} for at in range(candidates)],
        "datasets": [{"id": "d", "key": "q", "target": "t", "rows": asked}],
        "scorers": ["exact_match"],
        "performance": {"concurrency": 8, "stream": False},
        "search": {"metric": "exact_match", "hold_out": 0},
    }  # fmt: skip
    took: dict[str, list[float]] = {"sweep": [], "search": []}
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "suite.yaml"
        file.write_text(json.dumps(suite))
        for at in range(rounds):
            for what in took:
                store = f"{temporary}/{what}{at}"
                words = ["search"] if what == "search" else []
                command = [
                    sys.executable,
                    "-m",
                    "evalrun",
                    *words,
                    str(file),
                    "--store",
                    store,
                    "--no-report",
                    "-q",
                ]
                begun = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                took[what].append(time.perf_counter() - begun)
    server.terminate()
    best = {what: min(times) for what, times in took.items()}
    print(f"\n{rows * candidates:,} requests: sweep {best['sweep']:.2f} s, race {best['search']:.2f} s,")
    print(f"the race's own cost {best['search'] / best['sweep'] - 1:+.1%} (bar: 5 %)")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--races", type=int, default=200)
    parser.add_argument("--server", action="store_true")
    given = parser.parse_args()
    races = given.races
    if given.server:
        own_cost()
        return
    print(
        "| candidates | calls, of the whole grid | best dropped | the chosen is the best |\n|---|---|---|---|"
    )
    for name, rates in CASES.items():
        results = [race(rates, np.random.default_rng(seed)).result() for seed in range(races)]
        calls = np.mean([each.calls / each.grid for each in results])
        dropped = np.mean(["0" not in each.left for each in results])
        right = np.mean([each.best == "0" for each in results])
        print(f"| {name} | {calls:.0%} | {dropped:.1%} | {right:.0%} |")
    values = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 1_000_000)
    begun = time.process_time()
    EProcess().update(values)
    print(f"\n1,000,000 updates of an e-process: {time.process_time() - begun:.2f} s of processor time")


if __name__ == "__main__":
    main()
