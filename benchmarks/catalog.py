"""How long finding takes: runs in the catalog, samples in Parquet, a paired bootstrap (DESIGN part 6).

    python benchmarks/catalog.py [--runs 10000] [--samples 1000000] [--out FILE.json]

A store of many runs is made by writing folders, and indexed by `evalrun reindex`; then each question is put
by the program itself, as a user puts it, in a process of its own. `process_s` is that whole process, with the
interpreter's start and all imports; `search_s` the same search in a process that has imported everything,
from opening the catalog to the last row. PostgreSQL is measured where it is installed. Figures are medians;
`load_average` is that of the machine at the start, since others' work makes all of them longer.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

RUNS_PER_SWEEP, METRICS = 4, 24
QUERIES = {
    "all, newest first": [],
    "metric, model and tag": ['metric.exact_match > 0.8 and ("llama" in model or tag.team == "nlp")'],
    "metric, sorted by cost": ["metric.exact_match > 0.5", "--sort", "-cost"],
    "parameter, sorted by a metric": ["param.temperature < 0.5", "--sort", "-metric.quality_3"],
    "nothing fits": ["metric.exact_match > 2"],
}
SAMPLE_QUERIES = {
    "score and tokens": "score.exact_match == 0 and completion_tokens > 200",
    "a column of the data": 'vars.channel == "mail" and status == "unparsed"',
    "text in the output": '"seven" in output and e2e_s > 1.5',
}


def write_store(root: Path, runs: int) -> None:
    """Sweep folders as the runner leaves them, without its care for the disk."""
    from evalrun.tracking.events import FIRST_HASH, event_hash
    from evalrun.tracking.folder import new_ulid

    rng = random.Random(1)
    (root / "sweeps").mkdir(parents=True)
    for number in range(runs // RUNS_PER_SWEEP):
        ulid = new_ulid()
        folder = root / "sweeps" / f"{ulid}-bench"
        cells = [_cell(number, at, rng) for at in range(RUNS_PER_SWEEP)]
        for cell in cells:
            (folder / "runs" / cell["run"]).mkdir(parents=True)
            (folder / "runs" / cell["run"] / "run.json").write_text(json.dumps(cell))
        manifest = {
            "sweep": ulid,
            "name": f"bench-{number % 50}",
            "project": f"project-{number % 20}",
            "status": "complete",
            "started_at": f"2026-{1 + number % 12:02}-{1 + number % 28:02}T07:00:00+00:00",
            "spec_digest": f"{number:064}",
            "plan": [{key: cell[key] for key in ("run", "model", "prompt", "dataset")} for cell in cells],
            "datasets": {"d": {"digest": f"{number % 30:064}", "n": 500, "source": {}}},
            "tags": {"team": rng.choice(["nlp", "vision", "search"])},
        }
        (folder / "sweep.json").write_text(json.dumps(manifest))
        event: dict[str, Any] = {
            "seq": 1, "ts": manifest["started_at"], "actor": "bench", "action": "start", "target": "",
            "detail": {}, "prev_hash": FIRST_HASH,
        }  # fmt: skip
        event["hash"] = event_hash(event)
        (folder / "events.jsonl").write_text(json.dumps(event) + "\n")


def _cell(number: int, at: int, rng: random.Random) -> dict[str, Any]:
    names = ["exact_match", "cost.usd", *(f"quality_{i}" for i in range(METRICS - 2))]
    model = ("llama-3-8b", "qwen-3", "smollm2", "gpt-mini")[at]
    return {
        "run": f"{model}-p-d",
        "model": model,
        "prompt": "p",
        "dataset": "d",
        "params": {"temperature": rng.choice([0, 0.2, 0.7, 1.0]), "max_tokens": 64},
        "counts": {"samples": 500, "scored": 500},
        "metrics": [
            {
                "name": name,
                "value": rng.random(),
                "n": 500,
                "se": 0.02,
                "unit": "fraction",
                "direction": "higher",
            }
            for name in names
        ],
        "timings": {"started_at": "2026-01-01T07:00:00+00:00", "wall_s": rng.random() * 100},
    }


def write_samples(root: Path, samples: int) -> str:
    """A sweep of one run with so many samples; its id."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from evalrun.tracking.store import Store

    folder = Store(root).create_sweep("samples")
    rng = np.random.default_rng(1)
    text = "one two three four five six seven eight nine ten and then some more words follow"
    words = np.array(text.split())
    texts = np.array([" ".join(rng.choice(words, 30)) for _ in range(5000)])
    table = pa.table(
        {
            "sample_id": [f"s{i:07}" for i in range(samples)],
            "status": rng.choice(np.array(["scored", "unparsed"]), samples, p=[0.97, 0.03]),
            "output": texts[rng.integers(0, 5000, samples)],
            "answer": rng.choice(words, samples),
            "target": rng.choice(words, samples),
            "completion_tokens": rng.integers(1, 256, samples),
            "e2e_s": rng.random(samples) * 2,
            "score.exact_match": rng.integers(0, 2, samples).astype("float64"),
            "vars.channel": rng.choice(np.array(["mail", "chat", "phone"]), samples),
        }
    )
    run = folder.run_dir("big")
    pq.write_table(table, run / "samples.parquet", compression="zstd", row_group_size=65536)
    manifest = {"sweep": folder.ulid, "name": "samples", "project": "samples", "status": "complete"}
    (folder.path / "sweep.json").write_text(json.dumps(manifest))
    (run / "run.json").write_text(json.dumps({"run": "big", "model": "m", "prompt": "p", "dataset": "d"}))
    return folder.ulid


def seconds(command: list[str], env: dict[str, str] | None = None, turns: int = 5) -> float:
    """The median wall time of a command; the first, which warms the disk's cache, does not count."""
    taken = []
    for _ in range(turns + 1):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        taken.append(time.perf_counter() - start)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
    return round(statistics.median(taken[1:]), 3)


def find_times(root: Path, env: dict[str, str], turns: int) -> dict[str, Any]:
    """Whole processes of `evalrun find`, and the same searches inside a process that has all imported."""
    program = [sys.executable, "-m", "evalrun", "find", "--store", str(root), "--json", "--limit", "50"]
    start = time.perf_counter()
    reindex = [sys.executable, "-m", "evalrun", "reindex", "--store", str(root)]
    subprocess.run(reindex, env=env, check=True, stdout=subprocess.DEVNULL)
    return {
        "reindex_s": round(time.perf_counter() - start, 1),
        "process_s": {name: seconds([*program, *query], env, turns) for name, query in QUERIES.items()},
        "search_s": _inside(root, env, turns),
    }


def _inside(root: Path, env: dict[str, str], turns: int) -> dict[str, float]:
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import catalog; "
        "print(json.dumps(catalog.searches(sys.argv[2], int(sys.argv[3]))))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(root), str(turns)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def searches(root: str, turns: int) -> dict[str, float]:
    """Each search from opening the catalog to the last row, in this process."""
    from evalrun.tracking.finding import Search
    from evalrun.tracking.store import Store

    store = Store(Path(root))
    found = {}
    for name, query in QUERIES.items():
        text = query[0] if query else ""
        search = Search.of(text, sort=query[2:], limit=50)
        found[name] = median_of(partial(store.find, search), turns)
    return found


def median_of(action: Callable[[], object], turns: int) -> float:
    """The median time of an action in this process, its first time not counted."""
    taken = []
    for _ in range(turns + 1):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return round(statistics.median(taken[1:]), 4)


def bootstrap_s(turns: int) -> float:
    """10,000 resamples of 10,000 pairs."""
    import numpy as np

    from evalrun.analysis.bootstrap import draw_paired

    rng = np.random.default_rng(1)
    a, b = rng.random(10_000), rng.random(10_000)
    ones = np.ones(10_000)
    one, other = np.stack([a, ones], axis=1), np.stack([b, ones], axis=1)
    return median_of(
        lambda: draw_paired(one, other, lambda sums: sums[..., 0] / sums[..., 1]).interval(), turns
    )


def measure(runs: int, samples: int, turns: int) -> dict[str, Any]:
    """Everything; needs about 400 MB of disk in the temporary folder."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    plain = {key: value for key, value in os.environ.items() if key != "EVALRUN_CATALOG"}
    folder = Path(tempfile.mkdtemp(prefix="evalrun-bench-"))
    try:
        write_store(folder / "store", runs)
        big = folder / "big"
        ulid = write_samples(big, samples)
        ask = [sys.executable, "-m", "evalrun", "samples", f"{ulid}/big", "--store", str(big), "--json"]
        return {
            "runs": runs,
            "samples": samples,
            "cores": os.cpu_count(),
            "load_average": round(os.getloadavg()[0], 1),
            "python": sys.version.split()[0],
            "interpreter_s": seconds([sys.executable, "-c", "pass"], plain, turns),
            "help_s": seconds([sys.executable, "-m", "evalrun", "--help"], plain, turns),
            "find": {"sqlite": find_times(folder / "store", plain, turns), **_postgres(folder, plain, turns)},
            "samples_s": {
                name: seconds([*ask, query], plain, turns) for name, query in SAMPLE_QUERIES.items()
            },
            "paired_bootstrap_10k_x_10k_s": bootstrap_s(turns),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _postgres(folder: Path, plain: dict[str, str], turns: int) -> dict[str, Any]:
    from tests.postgres import PostgresServer, binaries

    programs = binaries()
    if programs is None:
        return {}
    with PostgresServer(programs) as server:
        return {"postgresql": find_times(folder / "store", {**plain, "EVALRUN_CATALOG": server.url()}, turns)}


def main() -> None:
    """Measure, print, and write the figures if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = json.dumps(measure(options.runs, options.samples, options.turns), indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
