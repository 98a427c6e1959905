"""Kills the program at random moments, lets it go on, and compares with a run that nothing disturbed.

    python -m tests.integration.crashes --kills 50 [--samples 400] [--seed 0] [--workers 2]

The server on loopback counts the requests by their content. A request whose answer reached the journal may
never be sent again; one that was in flight when the process was killed must be.
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
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from tests.servers import ChatServer, completion

IN_FLIGHT = 8


@dataclass(frozen=True)
class Outcome:
    """What came of a series of kills."""

    kills: int
    requests: int
    sent_again: int
    metrics: dict[str, Any]
    undisturbed: dict[str, Any]


def _suite(folder: Path, server: ChatServer, samples: int, workers: int) -> Path:
    rows = [{"id": f"q{i}", "a": i, "b": i % 7, "sum": i + i % 7} for i in range(samples)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = {
        "name": "crashes",
        "models": [
            {
                "id": "served",
                "provider": "openai_compatible",
                "base_url": server.base_url,
                "model": "scripted",
                "params": {"temperature": 0},
            }
        ],
        "prompts": [
            {"id": "one", "text": "{{ a }} + {{ b }}"},
            {"id": "two", "text": "sum: {{ a }} + {{ b }}"},
        ],
        "datasets": [{"id": "sums", "path": "rows.jsonl", "key": "id", "target": "sum"}],
        "parse": ["last_number"],
        "scorers": ["numeric"],
        "performance": {"concurrency": IN_FLIGHT, "workers": workers},
    }
    path = folder / "suite.yaml"
    path.write_text(json.dumps(suite))
    return path


async def _behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
    """The sum, off by one for every tenth question, so that a metric that is off shows it."""
    await asyncio.sleep(0.004)
    a, b = (int(word) for word in body["messages"][-1]["content"].removeprefix("sum: ").split(" + "))
    return web.json_response(completion(str(a + b + (a % 10 == 0))))


def _command(suite: Path, store: Path) -> list[str]:
    command = [sys.executable, "-m", "evalrun", str(suite), "--store", str(store), "--no-report", "--json"]
    return [*command, "--no-cache", "--quiet"]


def _figures(output: str) -> dict[str, Any]:
    """Everything of a result that does not depend on how long anything took."""
    return {
        run["run"]: {
            "counts": run["counts"],
            **{
                metric["name"]: (metric["value"], metric["n"], metric["ci_low"], metric["ci_high"])
                for metric in run["metrics"]
                if not metric["name"].startswith(
                    ("performance.", "memory.", "cpu.", "disk.", "energy.", "gpu.")
                )
            },
        }
        for run in json.loads(output)["runs"]
    }


def _done(store: Path) -> set[tuple[str, str]]:
    """(run, sample) of what is on disk: whole lines of journals, rows of finished runs."""
    import pyarrow.parquet as pq

    found = set()
    for path in store.glob("sweeps/*/runs/*/journal.jsonl"):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                found.add((path.parent.name, json.loads(line)["sample_id"]))
    for path in store.glob("sweeps/*/runs/*/samples.parquet"):
        names = pq.read_table(path, columns=["sample_id"])["sample_id"].to_pylist()
        found |= {(path.parent.name, name) for name in names}
    return found


def _asked(question: str) -> tuple[str, str]:
    prompt = "two" if question.startswith("sum") else "one"
    number = question.removeprefix("sum: ").split(" ")[0]
    return f"served-{prompt}-sums", f"q{number}"


def crash(kills: int, samples: int, seed: int, workers: int = 0) -> Outcome:
    """Kill the program `kills` times, at moments drawn by the seed. Raises AssertionError if it shows."""
    rng = random.Random(seed)
    root = os.environ.get("PYTEST_DEBUG_TEMPROOT")
    with ChatServer() as server, tempfile.TemporaryDirectory(prefix="evalrun-crash-", dir=root) as name:
        server.behaviour = _behaviour
        folder = Path(name)
        suite = _suite(folder, server, samples, workers)
        plain = subprocess.run(_command(suite, folder / "plain"), capture_output=True, text=True, check=False)
        assert plain.returncode == 0, plain.stderr
        server.bodies.clear()
        store = folder / "store"
        lost = made = 0
        sent_again: Counter[tuple[str, str]] = Counter()
        while made < kills:
            before, known = len(server.bodies), _done(store)
            process = subprocess.Popen(
                _command(suite, store), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            # A moment of the start, or one while answers come in, or (late) of the end.
            target = before + rng.randint(1, max(2, 4 * samples // max(1, kills)))
            _wait_for(process, server, target, rng.uniform(0.0, 1.5) if rng.random() < 0.3 else None)
            if process.poll() is not None:
                break
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            made += 1
            sent = [_asked(question) for question in server.questions[before:]]
            again = [each for each in sent if each in known]
            assert not again, f"sent although answered: {again[:5]}"
            assert max(Counter(sent).values(), default=1) == 1, "sent twice within one part"
            sent_again.update(sent)
            missing = known - _done(store)
            lost += len(missing)
            assert not missing, f"lost: {sorted(missing)[:5]}"
        final = subprocess.run(_command(suite, store), capture_output=True, text=True, check=False)
        assert final.returncode == 0, final.stderr
        assert json.loads(final.stdout)["status"] == "complete"
        repeated = len(server.bodies) - 2 * samples
        assert 0 <= repeated <= IN_FLIGHT * made, "only what was in flight at a kill is sent again"
        assert len({*server.questions}) == 2 * samples
        figures, undisturbed = _figures(final.stdout), _figures(plain.stdout)
        assert figures == undisturbed, (figures, undisturbed)
        return Outcome(made, len(server.bodies), repeated, figures, undisturbed)


def _wait_for(
    process: subprocess.Popen[str], server: ChatServer, requests: int, seconds: float | None
) -> None:
    """Until so many requests came, or so many seconds passed, or the process ended."""
    end = time.monotonic() + (60 if seconds is None else seconds)
    while process.poll() is None and time.monotonic() < end:
        if seconds is None and len(server.bodies) >= requests:
            return
        time.sleep(0.001)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--samples", type=int, default=400, help="samples of each of the two runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes that send the requests")
    options = parser.parse_args()
    outcome = crash(options.kills, options.samples, options.seed, options.workers)
    print(
        f"{outcome.kills} kills; {outcome.requests} requests for {2 * options.samples} samples, "
        f"{outcome.sent_again} of them sent again because they were in flight; metrics equal."
    )


if __name__ == "__main__":
    main()
