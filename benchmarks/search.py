"""What a race saves and how often it is wrong, by simulation; and what its statistics cost.

    python benchmarks/search.py [--races 200] [--server] [--null 2000] [--years 1000]

With `--null`: so many whole searches among equal candidates (the race, then winner and baseline on rows held
out), and among unequal ones: how often chance drops a candidate or declares a winner, and whether the
difference reported is right on average. With `--years`: so many years of a gate that is checked each night
against one baseline while nothing changes. `--workers` processes share the searches.

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
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from evalrun.analysis.intervals import wilson
from evalrun.analysis.measures import Measure
from evalrun.analysis.paired import decided_difference, paired_difference
from evalrun.gates.check import fail_alpha, judge
from evalrun.gates.conditions import Gate, Verdict, parse_gate
from evalrun.stats import EProcess, Race

CASES = {
    "one at 0.80, fifteen at 0.70": [0.80] + [0.70] * 15,
    "spread from 0.60 to 0.75": list(np.linspace(0.75, 0.60, 16)),
    "all at 0.70": [0.70] * 16,
}
ROWS, BLOCK = 1000, 25


def answers(rates: list[float], rng: np.random.Generator, rows: int = ROWS) -> NDArray[np.float64]:
    """Which of the rows (first axis) each candidate gets right."""
    shared = rng.standard_normal((rows, 1)) * math.sqrt(0.6)
    own = rng.standard_normal((rows, len(rates))) * math.sqrt(0.4)
    return ((shared + own) < [NormalDist().inv_cdf(rate) for rate in rates]).astype(float)


def race(scores: NDArray[np.float64]) -> Race:
    """One race to its end; candidate "0" is the first column."""
    rows, candidates = scores.shape
    found = Race([str(at) for at in range(candidates)], units=rows)
    at = 0
    while not found.over:
        found.tell({name: scores[at : at + BLOCK, int(name)] for name in found.left})
        at += BLOCK
    return found


NULLS = {
    "16 equal, right or wrong": ([0.70] * 16, ""),
    "16 equal, scores from 0 to 1": ([0.70] * 16, "graded"),
    "16 equal, clusters of 5 rows": ([0.70] * 16, "clusters"),
    "16 from 0.60 to 0.75": (CASES["spread from 0.60 to 0.75"], ""),
}
SHARE_HELD_OUT = 0.3


@dataclass(frozen=True, slots=True)
class Searched:
    """What one search came to. `difference` is winner minus baseline on the rows held out, None where the
    baseline won; `apparent` the same on the rows that chose."""

    any_dropped: bool
    best_dropped: bool
    apparent: float = 0.0
    difference: float | None = None
    truth: float = 0.0
    covered: bool = True
    declared: int = 0


def one_search(rates: list[float], kind: str, seed: int) -> Searched:
    """A whole search: the last candidate is the baseline, the first is the best, or equal to all."""
    rng = np.random.default_rng(seed)
    scores = answers(rates, rng)
    if kind == "graded":
        scores = (scores + rng.random(scores.shape)) / 2
    held = rng.random(ROWS) < SHARE_HELD_OUT
    clusters = None
    if kind == "clusters":  # one row five times over is what clusters are at their worst
        scores = np.repeat(scores[: ROWS // 5], 5, axis=0)
        clusters = np.arange(ROWS) // 5
        held = (rng.random(ROWS // 5) < SHARE_HELD_OUT)[clusters]
    search = scores[~held] if clusters is None else scores[~held][::5]  # a cluster is one unit
    raced, base = race(search), len(rates) - 1
    result = raced.result()
    fates = len(result.left) < len(rates), "0" not in result.left
    if result.best is None or int(result.best) == base:
        return Searched(*fates)
    chosen = int(result.best)
    n = next(each.rows for each in result.candidates if each.name == result.best)
    # The baseline's own rows in the race may be fewer: the two are compared as a naive reader would.
    met = min(n, next(each.rows for each in result.candidates if each.name == str(base)))
    apparent = float((search[:n, chosen]).mean() - search[:met, base].mean())
    a, b = scores[held, base], scores[held, chosen]
    told = decided_difference(a, b, None if clusters is None else clusters[held])
    assert told.difference is not None and told.ci_low is not None and told.ci_high is not None
    truth = rates[chosen] - rates[base]
    declared = 0 if told.p is None or told.p > 0.05 else 1 if told.difference > 0 else -1
    covered = told.ci_low - 1e-12 <= truth <= told.ci_high + 1e-12
    return Searched(*fates, apparent, told.difference, truth, covered, declared)


def share(hits: int, of: int) -> str:
    """A share with its interval (Wilson)."""
    found = wilson(hits, of)
    assert found.low is not None and found.high is not None
    return f"{hits / of:.1%} ({found.low:.1%} to {found.high:.1%})"


COLUMNS = (
    "candidates",
    "a best one is dropped",
    "any of the 16 is dropped",
    "declared better",
    "declared worse",
    "too high on the rows that chose",
    "too high on the rows held out",
    "interval holds the truth",
)


def nulls(searches: int, workers: int) -> None:
    """Print how often chance alone drops or declares, and whether what is reported is right on average."""
    print(f"{searches:,} searches each, {ROWS:,} rows, {SHARE_HELD_OUT:.0%} of them held out\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name, (rates, kind) in NULLS.items():
        work = partial(one_search, rates, kind)
        with multiprocessing.Pool(workers) as pool:
            every = pool.map(work, range(searches), chunksize=20)
        told = [each for each in every if each.difference is not None]
        errors = np.array([(each.difference or 0.0) - each.truth for each in told])
        seen = np.array([each.apparent - each.truth for each in told])
        cells = [
            share(sum(each.best_dropped for each in every), searches),
            share(sum(each.any_dropped for each in every), searches),
            share(sum(each.declared > 0 for each in told), len(every)),
            share(sum(each.declared < 0 for each in told), len(every)),
            *(f"{of.mean():+.4f} ± {1.96 * of.std() / math.sqrt(len(of)):.4f}" for of in (seen, errors)),
            share(sum(each.covered for each in told), len(told)),
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


NIGHTS, NIGHTLY_ROWS = 365, 400


def false_alarms(years: int) -> None:
    """Print in how many years a gate on an unchanged model fails on some night, against one baseline."""
    gate = parse_gate("exact_match no worse than baseline by 0.02")
    assert isinstance(gate, Gate)
    measure = Measure("exact_match", "fraction", "higher", lambda run: np.empty(0))
    budget = {"suite": {"resolved": {"nightly": {"false_alarms_a_year": 0.05, "nights": NIGHTS}}}}
    ways: dict[str, dict[str, object]] = {
        "each night at 99 %": {},
        "with `nightly: {false_alarms_a_year: 0.05}`": budget,
    }
    known: dict[tuple[float, int, int], bool] = {}

    def fails(alpha: float, lost: int, won: int) -> bool:
        if (alpha, lost, won) not in known:
            a, b = np.zeros(NIGHTLY_ROWS), np.zeros(NIGHTLY_ROWS)
            a[:lost], b[lost : lost + won] = 1.0, 1.0
            at_5 = paired_difference(a, b, margin=gate.bound)
            strict = paired_difference(a, b, alpha=alpha)
            verdict = judge(gate, "run", measure, at_5, strict, ()).verdict
            known[alpha, lost, won] = verdict is Verdict.FAIL
        return known[alpha, lost, won]

    print(f"{years:,} years of {NIGHTS} nights, {NIGHTLY_ROWS} rows a night, nothing changes, one baseline\n")
    print("| gates a night | checked | nights that fail | years with a false alarm |\n|---|---|---|---|")
    for checks in (1, 4):
        for way, manifest in ways.items():
            alpha, nights, bad = fail_alpha(manifest, checks), 0, 0
            for year in range(years):
                rng = np.random.default_rng(year)
                failed = np.zeros(NIGHTS, bool)
                for _ in range(checks):
                    # Each row is answered rightly at a rate of its own; the baseline's answers are like any.
                    rates = rng.beta(1.4, 0.6, NIGHTLY_ROWS)
                    before = rng.random(NIGHTLY_ROWS) < rates
                    now = rng.random((NIGHTS, NIGHTLY_ROWS), dtype=np.float32) < rates
                    lost, won = (before & ~now).sum(axis=1), (~before & now).sum(axis=1)
                    failed |= [fails(alpha, int(c), int(b)) for c, b in zip(lost, won, strict=True)]
                nights += int(failed.sum())
                bad += bool(failed.any())
            print(f"| {checks} | {way} | {nights / (years * NIGHTS):.3%} | {share(bad, years)} |", flush=True)


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
    parser.add_argument("--null", type=int, default=0)
    parser.add_argument("--years", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    races = given.races
    if given.null or given.years:
        nulls(given.null, given.workers) if given.null else None
        false_alarms(given.years) if given.years else None
        return
    if given.server:
        own_cost()
        return
    print(
        "| candidates | calls, of the whole grid | best dropped | the chosen is the best |\n|---|---|---|---|"
    )
    for name, rates in CASES.items():
        results = [race(answers(rates, np.random.default_rng(seed))).result() for seed in range(races)]
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
