"""What the provider `transformers` costs beside `model.generate`, and `evalrun watch` while it waits.

    python benchmarks/checkpoints.py [--model FOLDER] [--rounds 5]

Needs the extra `transformers`. Without --model a Llama of 20 million parameters with random weights is made:
what is measured is what stands around the model. Both get the same prompts in one batch of the same padding,
in turns, on one thread. Bars: 0.95 of the tokens a second of `model.generate`; 1 % of a core for waiting.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
PROMPTS, TOKENS = 16, 64


def made_model(folder: Path) -> Path:
    """A Llama with random weights and a tokenizer of one token a word."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {word: at for at, word in enumerate(["<pad>", "</s>", *(f"w{n}" for n in range(8190))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="w0"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192, hidden_size=384, intermediate_size=1024, num_hidden_layers=8,
        num_attention_heads=6, num_key_value_heads=6, max_position_embeddings=512,
        pad_token_id=0, eos_token_id=None, bos_token_id=None, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


async def beside_generate(model: Path, rounds: int) -> dict[str, Any]:
    """Tokens a second of the provider and of `model.generate`, in turns."""
    import psutil
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from evalrun.providers.base import BatchProvider, ProviderContext, create
    from evalrun.suite.components import ModelSpec
    from evalrun.types import Request, Response

    torch.set_num_threads(1)
    entry = {
        "id": "m", "provider": "transformers", "model": str(model), "api": "completions", "batch": PROMPTS,
        "threads": 1,
    }  # fmt: skip
    provider = create(ModelSpec.model_validate(entry), ProviderContext(model, model / "logs"))
    assert isinstance(provider, BatchProvider)
    texts = [" ".join(f"w{(at * 37 + n) % 8000}" for n in range(20 + at)) for at in range(PROMPTS)]
    params = {"temperature": 0, "max_tokens": TOKENS}
    requests = [Request(str(at), 0, (), text, params, {}) for at, text in enumerate(texts)]
    itself, tokenizer = (
        AutoModelForCausalLM.from_pretrained(model).eval(),
        AutoTokenizer.from_pretrained(model),
    )
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    await provider.start()
    ours, theirs, cpu = [], [], []
    same = True
    child = psutil.Process(provider.engine_pid)
    try:
        for turn in range(rounds + 1):
            begun, used = time.perf_counter(), _cpu_s(child) + time.process_time()
            answers = await provider.generate_batch(requests)
            tokens = sum(a.completion_tokens or 0 for a in answers if isinstance(a, Response))
            rate = tokens / (time.perf_counter() - begun)
            used = _cpu_s(child) + time.process_time() - used
            begun, before = time.perf_counter(), time.process_time()
            batch = tokenizer(texts, return_tensors="pt", padding=True)
            with torch.inference_mode():
                made = itself.generate(**batch, max_new_tokens=TOKENS, do_sample=False)
            outputs = tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            rate_itself = tokens / (time.perf_counter() - begun)
            if turn:  # the first warms up
                ours.append(rate)
                theirs.append(rate_itself)
                cpu.append((time.process_time() - before) / used)
                same &= outputs == [a.output for a in answers if isinstance(a, Response)]
    finally:
        await provider.close()
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return {
        "provider_tokens_per_s": statistics.median(ours),
        "generate_tokens_per_s": statistics.median(theirs),
        "ratio": ratio,
        "ratio_by_cpu_time": statistics.median(cpu),
        "bar": 0.95,
        "same_texts": same,
    }


def _cpu_s(process: Any) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def idle_watch(folder: Path, checkpoints: int, every_s: float, seconds: float) -> dict[str, Any]:
    """The share of a core that `evalrun watch` takes while checkpoints that are not whole lie there."""
    import psutil

    out = folder / "out"
    for step in range(checkpoints):
        path = out / f"checkpoint-{step}"
        path.mkdir(parents=True)
        (path / "config.json").write_text("{}")
        history = [{"step": at, "loss": 1.0} for at in range(1000)]
        (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": history}))
    suite = (
        "name: idle\n"
        "models: [{id: m, provider: transformers, checkpoints: {path: out}}]\n"
        "prompts: [{id: p, text: '{{ q }}'}]\n"
        "datasets: [{id: d, rows: [{q: a, target: b}]}]\n"
        "scorers: [exact_match]\n"
    )
    (folder / "idle.yaml").write_text(suite)
    words = ["watch", "idle.yaml", "--store", "store", "--every", str(every_s), "-q"]
    process = subprocess.Popen([sys.executable, "-m", "evalrun", *words], cwd=folder)
    try:
        time.sleep(10)  # it begins
        known = psutil.Process(process.pid)
        before, begun = known.cpu_times(), time.perf_counter()
        time.sleep(seconds)
        after, took = known.cpu_times(), time.perf_counter() - begun
    finally:
        process.kill()
        process.wait()
    used = after.user + after.system - before.user - before.system
    return {"checkpoints": checkpoints, "every_s": every_s, "share_of_a_core": used / took, "bar": 0.01}


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle-seconds", type=float, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = options.model or made_model(folder / "model")
        found = {
            "beside_generate": asyncio.run(beside_generate(model, options.rounds)),
            "idle_watch": [
                idle_watch(folder / f"w{every}", 50, every, options.idle_seconds) for every in (5, 60)
            ],
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
