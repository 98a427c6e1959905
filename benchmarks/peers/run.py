"""evalrun beside other harnesses: the same samples, the same server that costs nothing, the whole process.

    benchmarks/peers/setup_inspect_ai.sh DIR    (and setup_lm_eval.sh, setup_promptfoo.sh: those you want)
    python benchmarks/peers/run.py DIR [--samples 2000] [--turns 3] [--out FILE.json]

Each harness asks one question a sample with 64 requests in flight, compares the answer with a target, and
writes what it writes by itself (evalrun: store and HTML report). Caches are off, telemetry and update checks
too. They run in turns; the figures are medians of the wall time of the process and of its peak RSS.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import overhead

IN_FLIGHT = overhead.IN_FLIGHT

INSPECT_TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import json_dataset
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, system_message

@task
def peers():
    solver = [system_message({system!r}), generate()]
    return Task(dataset=json_dataset({data!r}), solver=solver, scorer=includes())
"""
LM_EVAL_TASK = """
task: peers
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{input}}}}"
doc_to_target: "{{{{target}}}}"
generation_kwargs: {{until: [], max_gen_toks: 16, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


@dataclass(frozen=True)
class Job:
    """What every harness is given."""

    installed: Path
    folder: Path
    address: str
    samples: int


def inspect_ai(job: Job) -> tuple[list[str], dict[str, str]]:
    task = job.folder / "peers_task.py"
    task.write_text(INSPECT_TASK.format(data=str(rows(job)), system=overhead.SYSTEM))
    command = [
        str(job.installed / "inspect_ai/bin/inspect"), "eval", task.name, "--model", "openai-api/null/null",
        "--max-connections", str(IN_FLIGHT), "--max-samples", str(IN_FLIGHT), "--display", "none",
        "--max-tokens", "16", "--temperature", "0", "--log-dir", str(job.folder / "logs"),
    ]  # fmt: skip
    return command, {"NULL_BASE_URL": job.address, "NULL_API_KEY": "none"}


def lm_eval(job: Job) -> tuple[list[str], dict[str, str]]:
    tasks = job.folder / "lm_eval_tasks"
    tasks.mkdir(exist_ok=True)
    (tasks / "peers.yaml").write_text(LM_EVAL_TASK.format(data=rows(job)))
    model = f"model=null,base_url={job.address}/chat/completions,num_concurrent={IN_FLIGHT},max_retries=1"
    command = [
        str(job.installed / "lm_eval/bin/lm_eval"), "run", "--model", "local-chat-completions",
        "--model_args", model + ",tokenizer_backend=None", "--tasks", "peers", "--include_path", str(tasks),
        "--apply_chat_template", "--system_instruction", overhead.SYSTEM, "--batch_size", "1",
        "--output_path", str(job.folder / "lm_eval_out"), "--log_samples",
    ]  # fmt: skip
    home = {"HF_HOME": str(job.folder / "hf"), "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "none"}
    return command, {**home, "HF_DATASETS_OFFLINE": "1"}


def promptfoo(job: Job) -> tuple[list[str], dict[str, str]]:
    config = {
        "prompts": [json.dumps([{"role": "system", "content": overhead.SYSTEM},
                                {"role": "user", "content": "{{question}}"}])],
        "providers": [{"id": "openai:chat:null", "config": {
            "apiBaseUrl": job.address, "apiKey": "none", "temperature": 0, "max_tokens": 16}}],
        "defaultTest": {"assert": [{"type": "contains", "value": "42"}]},
        "tests": [{"vars": {"question": overhead.question(i)}} for i in range(job.samples)],
    }  # fmt: skip
    path = job.folder / "promptfoo.json"
    path.write_text(json.dumps(config))
    command = [
        str(job.installed / "promptfoo/node_modules/.bin/promptfoo"), "eval", "-c", str(path),
        "-j", str(IN_FLIGHT), "--no-cache", "--no-progress-bar", "--no-table",
        "-o", str(job.folder / "promptfoo_out.json"),
    ]  # fmt: skip
    quiet = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1", "CI": "1"}
    quiet |= {"PROMPTFOO_DISABLE_DEBUG_LOG": "1", "PROMPTFOO_DISABLE_ERROR_LOG": "1"}  # its logger crashes
    return command, {**quiet, "PROMPTFOO_CONFIG_DIR": str(job.folder / "promptfoo_home")}


PEERS: dict[str, Callable[[Job], tuple[list[str], dict[str, str]]]] = {
    "inspect_ai": inspect_ai,
    "lm_eval": lm_eval,
    "promptfoo": promptfoo,
}


def rows(job: Job) -> Path:
    """The samples as JSON lines with `input` and `target`."""
    path = job.folder / "peers.jsonl"
    if not path.exists():
        lines = ({"id": f"q{i}", "input": overhead.question(i), "target": "42"} for i in range(job.samples))
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def timed(command: list[str], environment: dict[str, str], folder: Path, name: str) -> dict[str, float]:
    """Wall seconds and peak RSS of one process that must end well (promptfoo says 100 for failed tests)."""
    with (folder / f"{name}.log").open("w") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=os.environ | environment,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = (folder / f"{name}.log").read_text()[-2000:]
        raise SystemExit(f"{name} ended with exit code {process.returncode}:\n{tail}")
    return {"wall_s": wall_s, "peak_rss_mb": rss_mb(usage)}


def rss_mb(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss * 1024 / 1e6


def requests_of(address: str) -> int:
    import urllib.request

    with urllib.request.urlopen(address.removesuffix("/v1") + "/count", timeout=5) as answer:
        return int(answer.read())


def turn(job: Job, names: list[str]) -> dict[str, dict[str, float]]:
    """One run of each. The server's count proves that each asked every question."""
    found = {}
    for name in ("evalrun", *names):
        before = requests_of(job.address)
        if name == "evalrun":
            run = overhead.evalrun(job.folder, job.address, job.samples, report=True)
            found[name] = {"wall_s": run["wall_s"], "peak_rss_mb": run["peak_rss_bytes"] / 1e6}
        else:
            command, environment = PEERS[name](job)
            found[name] = timed(command, environment, job.folder, name)
        asked = requests_of(job.address) - before
        if asked < job.samples:
            log = (job.folder / f"{name}.log").read_text()[-2000:] if name != "evalrun" else ""
            raise SystemExit(f"{name} asked {asked} of {job.samples} questions\n{log}")
        print(f"  {name:12s} {found[name]['wall_s']:7.2f} s", file=sys.stderr, flush=True)
    return found


def summary(turns: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    medians: dict[str, Any] = {}
    for name in turns[0]:
        medians[name] = {
            key: round(statistics.median(each[name][key] for each in turns), 2) for key in turns[0][name]
        }
        ratio = statistics.median(each[name]["wall_s"] / each["evalrun"]["wall_s"] for each in turns)
        medians[name]["times_evalrun"] = round(ratio, 1)
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("installed", type=Path, help="the folder that the set-up scripts were given")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(PEERS))
    parser.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    options = parser.parse_args()
    names = [name for name in options.only or PEERS if (options.installed / name).is_dir()]
    if not names:
        parser.error(f"no peer is installed in {options.installed}")
    with tempfile.TemporaryDirectory(prefix="evalrun-peers-") as name, overhead.server(None) as address:
        job = Job(options.installed.resolve(), Path(name), address, options.samples)
        overhead.evalrun(job.folder, address, 10, report=True)  # makes the charts' bundle, once
        turns = [turn(job, names) for _ in range(options.turns)]
    figures = {"samples": options.samples, "turns": options.turns, "cpus": os.cpu_count()}
    text = json.dumps({**figures, "harnesses": summary(turns)}, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
