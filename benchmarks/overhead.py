"""What evalrun itself costs: DESIGN part 6, first rows, beside a bare aiohttp loop on the same server.

    python benchmarks/overhead.py [--base-url http://127.0.0.1:8900/v1] [--out FILE.json]

The server must answer chat completions at once (a null server), so that what is measured is the client;
without --base-url the one that evalrun has is started. Bare loop and evalrun run in turns, each in a process
of its own, with the same bodies and the same number of requests in flight. evalrun runs on uvloop, so the
bare loop is measured on uvloop and on asyncio's own loop. The figures are medians over the turns; the ratios
are those of each turn. `cpu_us` are microseconds of CPU for a sample while the run runs, of all threads:
where other programs want the cores too, they say more than the rates do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

IN_FLIGHT = 64
SYSTEM = "You are a careful assistant. Answer with one number."

SUITE = """\
name: overhead
models:
  - id: "null"
    provider: openai_compatible
    base_url: "{base_url}"
    model: "null"
    params: {{temperature: 0, max_tokens: 16}}
prompts:
  - id: ask
    messages:
      - {{role: system, content: "{system}"}}
      - {{role: user, content: "{{{{ question }}}}"}}
datasets:
  - {{id: rows, path: {data}, key: id, target: answer}}
parse: [last_number]
scorers: [numeric]
performance: {{stream: {stream}, concurrency: {in_flight}}}
"""


def question(index: int) -> str:
    return f"Question {index}: what is six times seven, plus zero? Think of {index % 97} apples on a table."


@contextlib.contextmanager
def server(base_url: str | None) -> Iterator[str]:
    """The base URL of the server to ask: the one given, or that of a null server of our own."""
    if base_url is not None:
        yield base_url
        return
    command = [sys.executable, "-P", "-m", "evalrun.runner.null_server"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.stdin.close()
        process.wait(10)


async def _bare(base_url: str, n: int, stream: bool) -> tuple[float, float]:
    """The least a client can do with aiohttp: post, read the body to its end. Requests a second, and
    microseconds of CPU for each."""
    import aiohttp
    import orjson

    numbers = iter(range(n))
    url = f"{base_url}/chat/completions"
    extra = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}

    async def worker(session: aiohttp.ClientSession) -> None:
        for index in numbers:
            body = orjson.dumps(
                {
                    "model": "null",
                    "messages": [
                        {"role": "system", "content": SYSTEM},
                        {"role": "user", "content": question(index)},
                    ],
                    "temperature": 0,
                    "max_tokens": 16,
                    **extra,
                }
            )
            async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
                if stream:
                    async for _ in response.content.iter_any():
                        pass
                else:
                    orjson.loads(await response.read())

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        start, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(worker(session) for _ in range(IN_FLIGHT)))
        return n / (time.perf_counter() - start), (time.process_time() - cpu) / n * 1e6


def bare(base_url: str, n: int, stream: bool, loop: str = "uvloop") -> tuple[float, float]:
    """Requests a second of the bare loop and CPU for each, in a process of its own. `loop` is "uvloop" or
    "asyncio"."""
    code = (
        f"import sys, {loop}; sys.path.insert(0, sys.argv[1]); import overhead; "
        f"print(*{loop}.run(overhead._bare(sys.argv[2], int(sys.argv[3]), sys.argv[4] == 'True')))"
    )
    here = str(Path(__file__).parent)
    output = subprocess.run(
        [sys.executable, "-c", code, here, base_url, str(n), str(stream)],
        check=True,
        capture_output=True,
        text=True,
    )
    rate, cpu_us = output.stdout.split()
    return float(rate), float(cpu_us)


def write_data(folder: Path, n: int) -> Path:
    path = folder / f"rows-{n}.jsonl"
    if not path.exists():
        with path.open("w") as file:
            for index in range(n):
                row = {"id": f"q{index}", "question": question(index), "answer": 42 if index % 2 else 41}
                file.write(json.dumps(row) + "\n")
    return path


def evalrun(
    folder: Path, base_url: str, n: int, *, stream: bool = False, report: bool = False
) -> dict[str, Any]:
    """One run of the program in a fresh store: wall seconds, peak RSS and the run's own rate."""
    suite = folder / f"suite-{n}-{stream}.yaml"
    suite.write_text(
        SUITE.format(
            base_url=base_url,
            data=write_data(folder, n),
            stream=str(stream).lower(),
            in_flight=IN_FLIGHT,
            system=SYSTEM,
        )
    )
    store = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, "-m", "evalrun", "run", str(suite), "--store", str(store), "--quiet"]
    command += ["--report", str(store / "report.html")] if report else ["--no-report"]
    with (store / "out.txt").open("w") as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=out)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit((store / "out.txt").read_text())
    (run_file,) = store.glob("sweeps/*/runs/*/run.json")
    run = json.loads(run_file.read_text())
    assert run["counts"]["scored"] == n, run["counts"]
    metrics = {each["name"]: each["value"] for each in run["metrics"]}
    return {
        "wall_s": wall_s,
        "peak_rss_bytes": usage.ru_maxrss * 1024,
        "samples_per_s": n / run["timings"]["wall_s"],
        "cpu_us": metrics["cpu.client_s"] / n * 1e6,
    }


def compared(
    turns: list[tuple[tuple[float, float], dict[str, Any], tuple[float, float]]],
) -> dict[str, float]:
    """Medians over turns of (bare on uvloop, evalrun, bare on asyncio), and of the ratios within each."""
    median = statistics.median
    return {
        "bare_aiohttp_uvloop_per_s": median(turn[0][0] for turn in turns),
        "bare_aiohttp_asyncio_per_s": median(turn[2][0] for turn in turns),
        "evalrun_per_s": median(turn[1]["samples_per_s"] for turn in turns),
        "ratio_to_uvloop": median(turn[1]["samples_per_s"] / turn[0][0] for turn in turns),
        "ratio_to_asyncio": median(turn[1]["samples_per_s"] / turn[2][0] for turn in turns),
        "bare_aiohttp_uvloop_cpu_us": median(turn[0][1] for turn in turns),
        "evalrun_cpu_us": median(turn[1]["cpu_us"] for turn in turns),
        "cpu_ratio_to_uvloop": median(turn[0][1] / turn[1]["cpu_us"] for turn in turns),
    }


def help_s() -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([Path(sys.executable).with_name("evalrun"), "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(base_url: str, turns: int, samples: int, large: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="evalrun-bench-") as name:
        folder = Path(name)
        figures: dict[str, Any] = {
            "in_flight": IN_FLIGHT,
            "turns": turns,
            "samples": samples,
            "cpus": os.cpu_count(),
        }
        for stream, label, n in ((False, "plain", samples), (True, "streamed", samples // 4)):
            turns_made = [
                (
                    bare(base_url, n, stream),
                    evalrun(folder, base_url, n, stream=stream),
                    bare(base_url, n, stream, "asyncio"),
                )
                for _ in range(turns)
            ]
            figures[label] = compared(turns_made)
        evalrun(folder, base_url, 2000, report=True)  # makes the charts' bundle, once per installation
        whole = [evalrun(folder, base_url, 2000, report=True) for _ in range(turns)]
        figures["whole_process_2000_s"] = statistics.median(each["wall_s"] for each in whole)
        small_rss = evalrun(folder, base_url, large // 10)["peak_rss_bytes"]
        large_rss = evalrun(folder, base_url, large)["peak_rss_bytes"]
        figures["memory"] = {
            f"peak_rss_{large // 10}_mb": small_rss / 1e6,
            f"peak_rss_{large}_mb": large_rss / 1e6,
            "ratio": large_rss / small_rss,
        }
        figures["help_s"] = help_s()
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-url", help="a null server's base URL, on loopback; default: our own")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    options = parser.parse_args()
    with server(options.base_url) as base_url:
        figures = measure(base_url, options.turns, options.samples, options.large)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
