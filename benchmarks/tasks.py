"""Published tasks: how long prompts take to build, and what asking them costs beside an ordinary suite.

python benchmarks/tasks.py FOLDER      FOLDER holds GSM8K's test.jsonl and train.jsonl

The bars: 1,319 five-shot prompts in 10 s of CPU or less; asked at 0.9 or more of an ordinary suite's rate
with the same bodies; the index of names built once.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from evalrun.tasks.lmeval import LmEval, known_names
from overhead import server


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    files = {"test": str(folder / "test.jsonl")}
    train = next(folder.glob("train*.jsonl"), None)
    if train is not None:
        files["train"] = str(train)
    lm_eval = LmEval()
    started = time.perf_counter()
    names = known_names(lm_eval)
    first = time.perf_counter() - started
    started = time.perf_counter()
    known_names(lm_eval)
    again = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as out:
        job = {"key": "b", "name": "gsm8k", "specs": ["gsm8k"], "include": names.folders(["gsm8k"]),
               "options": {"num_fewshot": 5}, "out": out, "task_files": {"gsm8k": files}}  # fmt: skip
        lm_eval.ask("build", **{**job, "key": "warm", "options": {"num_fewshot": 5, "limit": 1}})
        before = time.perf_counter()
        built = lm_eval.ask("build", **job)
        build_s = time.perf_counter() - before
        rows = [json.loads(line) for line in Path(built["tasks"][0]["file"]).read_text().splitlines()]
    lm_eval.close()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as place:
        rates = _rates(Path(place), rows, files)
    print(json.dumps({
        "index_first_s": round(first, 2), "index_again_s": round(again, 3), "prompts": len(rows),
        "build_wall_s": round(build_s, 2), "children_cpu_s": round(children.ru_utime + children.ru_stime, 1),
        "ordinary_per_s": round(rates["ordinary"]), "tasks_per_s": round(rates["tasks"]),
        "share": round(rates["tasks"] / rates["ordinary"], 3),
    }, indent=2))  # fmt: skip


def _rates(place: Path, rows: list[dict], files: dict[str, str]) -> dict[str, float]:
    """Requests a second against a server that costs nothing, of the same bodies; the best of three."""
    params = {"max_tokens": 256, "temperature": 0.0, "stop": ["Question:", "</s>", "<|im_end|>"]}
    data = place / "rows.jsonl"
    data.write_text("".join(json.dumps({"p": row["requests"][0]["args"][0]}) + "\n" for row in rows))
    found = {"ordinary": 0.0, "tasks": 0.0}
    with server(None) as base_url:
        model = {"id": "m", "provider": "openai_compatible", "base_url": base_url, "model": "m"}
        model |= {"api": "completions"}
        suites = {
            "ordinary": {
                "models": [{**model, "params": {**params, "seed": 1234}}],
                "prompts": [{"id": "p", "text": "{{ p }}"}],
                "datasets": [{"id": "d", "path": str(data)}],
                "scorers": [{"length": {"min": 1}}],
            },
            "tasks": {"models": [model], "tasks": ["gsm8k"], "task_files": {"gsm8k": files}},
        }
        for turn in range(3):
            for name, suite in suites.items():
                path = place / f"{name}.yaml"
                path.write_text(yaml.safe_dump({"name": name, "performance": {"concurrency": 32}, **suite}))
                words = [
                    "--store",
                    str(place / f"{name}{turn}"),
                    "--no-cache",
                    "--no-report",
                    "--quiet",
                    "--json",
                ]
                done = subprocess.run(
                    [sys.executable, "-m", "evalrun", str(path), *words],
                    capture_output=True, text=True, check=True,
                )  # fmt: skip
                metrics = json.loads(done.stdout)["runs"][0]["metrics"]
                rate = next(m["value"] for m in metrics if m["name"] == "performance.requests_per_s")
                found[name] = max(found[name], rate or 0.0)
    return found


if __name__ == "__main__":
    main()
