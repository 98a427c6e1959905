"""evalrun beside a bare loop on the embedded engine: its share of the engine's own tokens/s.

    python benchmarks/engine.py [--model smollm2-135m-instruct] [--turns 10] [--out FILE.json]

Each turn starts the engine twice with the same settings: once asked by a loop that does nothing but post and
read streams, once by evalrun (`provider: llamacpp`, streamed, scored, journalled). Same requests, same number
of streams, every answer of the same length (`ignore_eos`). Tokens/s are over the time from the first request
to the last answer; the share is taken within a turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evalrun.providers.catalogue import ensure
from evalrun.providers.llamacpp import available_cores, patient_threads
from evalrun.providers.llamacpp_server import KEY_VARIABLE, ServerConfig

SLOTS, CTX = 4, 512
SUITE = """\
name: engine
models:
  - {{id: m, provider: llamacpp, model: {model}, slots: {slots}, ctx: {ctx},
      params: {{temperature: 0, max_tokens: {tokens}, ignore_eos: true}}}}
prompts: [{{id: ask, messages: [{{role: user, content: "{{{{ question }}}}"}}]}}]
datasets: [{{id: rows, path: rows.jsonl, target: "{{{{ question }}}}"}}]
scorers: [exact_match, token_f1]
performance: {{stream: true}}
"""


def questions(n: int) -> list[str]:
    return [f"Question {i}: tell me a story of {i} foxes, {i % 7} owls and one old bridge." for i in range(n)]


async def _ask_all(url: str, key: str, asked: list[str], tokens: int) -> float:
    """Tokens a second with `SLOTS` streams in flight, read to their ends."""
    import aiohttp

    waiting = iter(asked)
    counted = 0

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal counted
        for text in waiting:
            body = {
                "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": tokens,
                "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
            }  # fmt: skip
            async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                lines = [line async for line in answer.content if line.startswith(b"data: {")]
            counted += json.loads(lines[-1][6:])["usage"]["completion_tokens"]

    headers = {"Authorization": f"Bearer {key}", "Connection": "close"}
    async with aiohttp.ClientSession(headers=headers) as session:
        began = time.perf_counter()
        await asyncio.gather(*(worker(session) for _ in range(SLOTS)))
        return counted / (time.perf_counter() - began)


def bare(model: str, asked: list[str], tokens: int) -> float:
    """The loop on an engine of its own."""
    key = secrets.token_urlsafe(24)
    config = ServerConfig(
        os.getpid(), str(ensure(model, Path.cwd(), None)), model, SLOTS, CTX, available_cores(), True
    )
    engine = subprocess.Popen(
        [sys.executable, "-m", "evalrun.providers.llamacpp_server", "--config", json.dumps(asdict(config))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=os.environ | {KEY_VARIABLE: key, **patient_threads(os.environ)},
    )  # fmt: skip
    try:
        assert engine.stdout is not None
        line = next(line for line in engine.stdout if line.startswith(b"{"))
        return asyncio.run(_ask_all(f"http://127.0.0.1:{json.loads(line)['port']}", key, asked, tokens))
    finally:
        engine.terminate()
        engine.wait(30)


def evalrun(folder: Path, model: str, asked: list[str], tokens: int) -> float:
    """evalrun on an engine of its own, without its cache."""
    rows = "".join(json.dumps({"question": text}) + "\n" for text in asked)
    (folder / "rows.jsonl").write_text(rows)
    (folder / "suite.yaml").write_text(SUITE.format(model=model, slots=SLOTS, ctx=CTX, tokens=tokens))
    store = tempfile.mkdtemp(dir=folder)
    command = [sys.executable, "-m", "evalrun", "suite.yaml", "--store", store]
    command += ["--no-report", "--no-cache", "--quiet"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    import pandas

    (samples,) = Path(store).glob("sweeps/*/runs/*/samples.parquet")
    frame = pandas.read_parquet(samples)
    ends = frame["sent_s"] + frame["e2e_s"]
    assert len(frame) == len(asked), "every sample was answered"
    return float(frame["completion_tokens"].sum() / (ends.max() - frame["sent_s"].min()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="smollm2-135m-instruct", help="a name of the catalogue, or a GGUF file"
    )
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    options = parser.parse_args()
    asked = questions(options.prompts)
    turns: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="evalrun-engine-") as folder:
        for turn in range(options.turns):
            pair: dict[str, Any] = {}
            # The one that comes second in one turn comes first in the next: machines drift.
            for name in ("bare", "evalrun") if turn % 2 == 0 else ("evalrun", "bare"):
                if name == "bare":
                    pair[name] = bare(options.model, asked, options.tokens)
                else:
                    pair[name] = evalrun(Path(folder), options.model, asked, options.tokens)
            turns.append((pair["bare"], pair["evalrun"]))
    figures = {
        "streams": SLOTS,
        "prompts": options.prompts,
        "tokens_each": options.tokens,
        "bare_tokens_per_s": statistics.median(each[0] for each in turns),
        "evalrun_tokens_per_s": statistics.median(each[1] for each in turns),
        "share": statistics.median(each[1] / each[0] for each in turns),
        "shares": [each[1] / each[0] for each in turns],
    }
    text = json.dumps(figures, indent=2)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
