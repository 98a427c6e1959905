"""evalrun beside vLLM's own tools on the same engine: its share of the tokens/s, and the same latencies.

    python benchmarks/vllm_compare.py --python VENV/bin/python --model FOLDER [--turns 3] [--out FILE.json]

`server`: one vLLM server; `vllm bench serve` and evalrun ask it the same prompts with the same number in
flight and the same output length, in turns. `offline`: batches of the same prompts to `vllm.LLM.chat`
directly and through evalrun's `mode: offline`, each in a process of its own, twice, the second time the
other way round; the first batch of each process warms it up. Shares are evalrun's tokens/s over the
other's. `paced`: in place of vLLM a server that sends a chunk every 10 ms, so that what both say of the same
stream is compared without the engine's own ups and downs. `vllm bench serve` needs pandas beside vLLM.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from overhead import server as null_server

ENGINE_ARGS = {
    "dtype": "float32", "max_model_len": 1024, "enforce_eager": True, "enable_prefix_caching": False,
}  # fmt: skip
ENGINE_FLAGS = ["--dtype", "float32", "--max-model-len", "1024", "--enforce-eager"]
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
BENCH = """
import sys
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.benchmarks.serve import add_cli_args, main
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args(sys.argv[1:]))
"""
DIRECT = """
import json, sys, time
from vllm import LLM, SamplingParams
config = json.loads(sys.argv[1])
llm = LLM(config["model"], **config["engine_args"])
params = SamplingParams(temperature=0, max_tokens=config["tokens"], ignore_eos=True)
times = []
for batch in config["batches"]:
    chats = [[{"role": "user", "content": text}] for text in batch]
    began = time.perf_counter()
    outputs = llm.chat(chats, params, use_tqdm=False)
    times.append(sum(len(o.outputs[0].token_ids) for o in outputs) / (time.perf_counter() - began))
print("RESULT " + json.dumps(times))
"""
SUITE = """\
name: vllm-compare
models: [{model}]
prompts: {prompts}
datasets: [{{id: rows, path: rows.jsonl, target: "{{{{ prompt }}}}"}}]
scorers: [exact_match]
performance: {performance}
"""


OFFLINE_ROUNDS = 2


def prompts(n: int) -> list[str]:
    return [f"Question {i}: tell me a story of {i} foxes, {i % 7} owls and one old bridge." for i in range(n)]


def evalrun(
    folder: Path, model: dict[str, Any], performance: dict[str, Any], prefixes: Sequence[str] = ("",)
) -> list[dict[str, float]]:
    """The metrics of the runs of one sweep without its cache, by name: a run for each beginning of the
    prompts, in the order in which they ran, which the sweep draws."""
    suite = SUITE.format(
        model=json.dumps(model),
        performance=json.dumps(performance),
        prompts=json.dumps(
            [
                {"id": f"ask{at}", "messages": [{"role": "user", "content": prefix + "{{ prompt }}"}]}
                for at, prefix in enumerate(prefixes)
            ]
        ),
    )
    (folder / "suite.yaml").write_text(suite)
    store = tempfile.mkdtemp(dir=folder)
    command = [sys.executable, "-m", "evalrun", "suite.yaml", "--store", store, "--no-report", "--no-cache"]
    done = subprocess.run([*command, "--quiet", "--json"], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    runs: list[tuple[str, dict[str, float]]] = []
    for run in json.loads(done.stdout)["runs"]:
        assert run["counts"]["failed"] == 0, run["counts"]
        found: dict[str, float] = {metric["name"]: metric["value"] for metric in run["metrics"]}
        (record,) = Path(store).glob(f"sweeps/*/runs/{run['run']}/run.json")
        timings = json.loads(record.read_text())["timings"]
        tokens = run["counts"]["samples"] * found["performance.completion_tokens.mean"]
        runs.append((timings["started_at"], found | {"run_tokens_per_s": tokens / timings["wall_s"]}))
    assert len(runs) == len(prefixes)
    return [found for _, found in sorted(runs, key=lambda each: each[0])]


def bench(options: argparse.Namespace, folder: Path, address: str) -> dict[str, float]:
    """One `vllm bench serve` on the same prompts."""
    result = folder / "bench.json"
    command = [
        options.python, "-c", BENCH, "--backend", "openai-chat", "--base-url", address,
        "--endpoint", "/v1/chat/completions", "--model", options.model, "--served-model-name", "m",
        "--dataset-name", "custom", "--dataset-path", str(folder / "rows.jsonl"), "--skip-chat-template",
        "--custom-output-len", str(options.tokens), "--num-prompts", str(options.prompts), "--ignore-eos",
        "--max-concurrency", str(options.concurrency), "--temperature", "0", "--disable-tqdm",
        "--save-result", "--result-dir", str(folder), "--result-filename", result.name,
        "--percentile-metrics", "ttft,tpot,e2el", "--disable-shuffle", "--num-warmups", "0",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ENVIRONMENT)
    if done.returncode != 0:
        raise SystemExit(done.stderr[-3000:])
    return dict(json.loads(result.read_text()))


def server_turns(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [options.python, "-m", "vllm.entrypoints.openai.api_server", "--model", options.model]
    command += ["--served-model-name", "m", "--host", "127.0.0.1", "--port", str(port), *ENGINE_FLAGS]
    command += ["--no-enable-prefix-caching"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | ENVIRONMENT, start_new_session=True
        )
        try:
            wait_for(server, port, folder / "server.log")
            entry = {
                "id": "m", "provider": "vllm", "base_url": f"http://127.0.0.1:{port}/v1", "model": "m",
                "params": {"temperature": 0, "max_tokens": options.tokens, "ignore_eos": True},
            }  # fmt: skip
            performance = {"stream": True, "concurrency": options.concurrency, "timeout_s": 600}
            bench(options, folder, f"http://127.0.0.1:{port}")  # the first answers compile and allocate
            return in_turns(options, folder, f"http://127.0.0.1:{port}", entry, performance)
        finally:
            stop(server)


def stop(server: subprocess.Popen[bytes]) -> None:
    """End vLLM's server and the processes that it started, which share its session."""
    server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait(5)


def in_turns(
    options: argparse.Namespace,
    folder: Path,
    address: str,
    entry: dict[str, Any],
    performance: dict[str, Any],
) -> dict[str, Any]:
    turns = []
    for turn in range(options.turns):
        # The one that comes second in one turn comes first in the next: machines drift.
        if turn % 2 == 0:
            theirs = bench(options, folder, address)
        (ours,) = evalrun(folder, entry, performance)
        if turn % 2 == 1:
            theirs = bench(options, folder, address)
        turns.append((theirs, ours))
        print(compared(turns[-1:]), file=sys.stderr, flush=True)
    return compared(turns)


def paced_turns(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    with null_server(None) as base_url:
        address = base_url.removesuffix("/v1") + "/paced"
        entry = {
            "id": "m", "provider": "openai_compatible", "base_url": f"{address}/v1", "model": "m",
            "params": {"temperature": 0, "max_tokens": options.tokens},
        }  # fmt: skip
        performance = {"stream": True, "concurrency": options.concurrency}
        return in_turns(options, folder, address, entry, performance)


def compared(turns: list[tuple[dict[str, float], dict[str, float]]]) -> dict[str, Any]:
    """Medians over the turns, of both, and the ratio of each turn's."""
    rows = {}
    for name, theirs, ours, scale in (
        ("ttft_mean_ms", "mean_ttft_ms", "performance.ttft_s.mean", 1e3),
        ("tpot_mean_ms", "mean_tpot_ms", "performance.tpot_s.mean", 1e3),
        ("e2e_mean_ms", "mean_e2el_ms", "performance.e2e_s.mean", 1e3),
        ("output_tokens_per_s", "output_throughput", "run_tokens_per_s", 1.0),
    ):
        rows[name] = {
            "vllm_bench": round(statistics.median(turn[0][theirs] for turn in turns), 3),
            "evalrun": round(statistics.median(turn[1][ours] * scale for turn in turns), 3),
            "ratio": round(statistics.median(turn[1][ours] * scale / turn[0][theirs] for turn in turns), 4),
        }
    return rows


def offline_turns(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    prefixes = [f"Turn {at}. " for at in range(options.turns + 1)]
    direct: list[float] = []
    ours: list[float] = []
    for round_ in range(OFFLINE_ROUNDS):
        if round_ % 2 == 0:
            direct += offline_direct(options, prefixes)
        ours += offline_evalrun(options, folder, prefixes)
        if round_ % 2 == 1:
            direct += offline_direct(options, prefixes)
        print({"direct": direct, "evalrun": ours}, file=sys.stderr, flush=True)
    return {
        "direct_tokens_per_s": direct,
        "evalrun_tokens_per_s": ours,
        "share": statistics.median(ours) / statistics.median(direct),
    }


def offline_direct(options: argparse.Namespace, prefixes: Sequence[str]) -> list[float]:
    given = {
        "model": options.model, "engine_args": ENGINE_ARGS, "tokens": options.tokens,
        "batches": [[prefix + text for text in prompts(options.prompts)] for prefix in prefixes],
    }  # fmt: skip
    done = subprocess.run(
        [options.python, "-c", DIRECT, json.dumps(given)],
        capture_output=True, text=True, env=os.environ | ENVIRONMENT,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(done.stderr[-3000:])
    return list(json.loads(lines[0][7:]))[1:]


def offline_evalrun(options: argparse.Namespace, folder: Path, prefixes: Sequence[str]) -> list[float]:
    entry = {
        "id": "m", "provider": "vllm", "mode": "offline", "model": options.model, "env": ENVIRONMENT,
        "engine_args": ENGINE_ARGS, "python": options.python,
        "params": {"temperature": 0, "max_tokens": options.tokens, "ignore_eos": True},
    }  # fmt: skip
    runs = evalrun(folder, entry, {"timeout_s": 600}, prefixes)
    return [run["run_tokens_per_s"] for run in runs][1:]


def wait_for(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(log.read_text()[-3000:])
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except OSError:
            time.sleep(1)
    raise SystemExit("the server was not ready after 10 minutes")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default=os.environ.get("EVALRUN_VLLM_PYTHON"), help="has vLLM installed")
    parser.add_argument("--model", required=True, help="a folder with a small model")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", choices=["server", "offline", "paced"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped then, too
    with tempfile.TemporaryDirectory(prefix="evalrun-vllm-") as name:
        folder = Path(name)
        with (folder / "rows.jsonl").open("w") as file:
            for text in prompts(options.prompts):
                file.write(json.dumps({"prompt": text}) + "\n")
        figures: dict[str, Any] = {
            key: getattr(options, key) for key in ("prompts", "tokens", "concurrency", "turns")
        }
        figures["cpus"] = os.cpu_count()
        for name, turns in (("server", server_turns), ("offline", offline_turns), ("paced", paced_turns)):
            if options.only in (None, name):
                figures[name] = turns(options, folder)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
