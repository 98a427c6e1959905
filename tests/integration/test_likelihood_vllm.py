"""Likelihoods from a real vLLM, server and offline, against those that transformers computes itself.

It runs where EVALRUN_VLLM_PYTHON names an interpreter with vLLM (see test_vllm.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalrun.providers.base import BatchProvider, Provider, ProviderContext, create
from evalrun.suite.components import ModelSpec
from evalrun.types import Ask, Message, Request, Response

PYTHON = os.environ.get("EVALRUN_VLLM_PYTHON", "")
MODEL = os.environ.get("EVALRUN_VLLM_MODEL") or str(
    Path(PYTHON).parents[2] / "smollm2-135m-hf" if PYTHON else ""
)

pytestmark = [
    pytest.mark.skipif(
        not PYTHON, reason="EVALRUN_VLLM_PYTHON is not set: no interpreter with vLLM is named"
    ),
    pytest.mark.skipif(bool(PYTHON) and not Path(MODEL).is_dir(), reason=f"there is no model folder {MODEL}"),
    pytest.mark.asyncio(loop_scope="module"),
]

# In float32 both compute the same to a few millionths: what is left cannot hide a wrong token.
ENGINE: dict[str, Any] = {
    "engine_args": {"dtype": "float32", "max_model_len": 256, "enforce_eager": True},
    "env": {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"},
}
CLOSE = 2e-3

TEXTS: list[tuple[str, int]] = [
    ("Question: What is the capital of France?\nAnswer: Paris", 48),
    ("Question: What is the capital of France?\nAnswer: the 🙂 city of Łódź", 48),
    ("the international law", 3),  # " international" reaches over the end of "the inter"
    ("the interest rate", 3),
    ("\nThe poor are really ignorant about how to handle money.", 1),
    ("An der schönen blauen Donau", 0),
]
"""Whole texts, and from which character on they are scored."""

_REFERENCE = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
found = []
for text, start in texts:
    coded = tokenizer(text, return_offsets_mapping=True)
    ids = torch.tensor([coded["input_ids"]])
    with torch.no_grad():
        logprobs = torch.log_softmax(model(ids).logits[0].double(), -1)
    own = [(at, logprobs[at - 1, ids[0, at]].item()) for at in range(1, ids.shape[1])]
    kept = [value for at, value in own if coded["offset_mapping"][at][0] >= start]
    found.append([sum(kept), len(kept)])
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def reference() -> list[tuple[float, int]]:
    """(log-likelihood, tokens) of each text, by transformers and torch alone."""
    out = subprocess.run(
        [PYTHON, "-c", _REFERENCE, MODEL, json.dumps(TEXTS)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert "FOUND" in out.stdout, out.stderr[-2000:]
    return [tuple(each) for each in json.loads(out.stdout.rpartition("FOUND")[2])]


def asked(prompt: str, ask: Ask) -> Request:
    return Request("s", 0, (), prompt, {}, {}, ask=ask)


REQUESTS = [
    asked(TEXTS[0][0][:48], Ask("choose", options=("Paris", "the 🙂 city of Łódź"), separator=" ")),
    asked("the inter", Ask("choose", options=("national law", "est rate"))),
    asked(TEXTS[4][0][1:], Ask("perplexity", context="\n")),
    asked(TEXTS[5][0], Ask("perplexity")),
]


def check(answers: list[Response], reference: list[tuple[float, int]]) -> None:
    choice, over, conditioned, bare = (each.likelihood for each in answers)
    found = [*choice["options"], *over["options"], conditioned, bare]
    for mine, (logprob, tokens) in zip(found, reference, strict=True):
        assert mine["tokens"] == tokens
        assert mine["logprob"] == pytest.approx(logprob, abs=CLOSE)
    assert over["moved"] == 6 and "moved" not in choice
    assert bare["unscored"] == 1 and conditioned["unscored"] == 0
    assert conditioned["bytes"] == len(TEXTS[4][0]) - 1
    differences = [abs(mine["logprob"] - theirs[0]) for mine, theirs in zip(found, reference, strict=True)]
    sys.stdout.write(f"\n[likelihood] largest difference from transformers: {max(differences):.2e}\n")


def made(folder: Path, **keys: Any) -> Provider:
    entry = {"id": "smol", "provider": "vllm", "model": MODEL, "api": "completions", **ENGINE, **keys}
    return create(ModelSpec.model_validate(entry), ProviderContext(folder, folder))


async def test_a_server_gives_what_transformers_computes(
    tmp_path: Path, reference: list[tuple[float, int]]
) -> None:
    provider = made(tmp_path)
    try:
        await provider.start()
        answers = await asyncio.gather(*[provider.generate(each) for each in REQUESTS])
        again = await provider.generate(REQUESTS[0])  # now its prefixes are cached
        first = await provider.generate(
            asked("Q: Is snow white?\nA:", Ask("choose", via="first_token", options=("Yes", "No")))
        )
    finally:
        await provider.close()
    check(list(answers), reference)
    assert again.likelihood["options"][0]["logprob"] == pytest.approx(reference[0][0], abs=CLOSE)
    assert answers[0].prompt_tokens and answers[0].prompt_tokens > reference[0][1] + reference[1][1]
    assert all(each["logprob"] < 0 for each in first.likelihood["options"])


async def test_offline_gives_the_same(tmp_path: Path, reference: list[tuple[float, int]]) -> None:
    provider = made(tmp_path, mode="offline")
    assert isinstance(provider, BatchProvider)
    try:
        await provider.start()
        words = Request("w", 0, (), "Snow is", {"temperature": 0, "max_tokens": 3}, {})
        too_long = asked("word " * 300, Ask("perplexity"))
        first = asked("Q: Is snow white?\nA:", Ask("choose", via="first_token", options=("Yes", "No")))
        answers = await provider.generate_batch([words, *REQUESTS, too_long, first])
    finally:
        await provider.close()
    assert isinstance(answers[0], Response) and answers[0].output and answers[0].likelihood is None
    check([each for each in answers[1:5] if isinstance(each, Response)], reference)
    assert "maximum" in str(answers[5])
    assert isinstance(answers[6], Response) and len(answers[6].likelihood["options"]) == 2


async def test_a_chat_model_is_asked_for_its_first_token(tmp_path: Path) -> None:
    provider = made(tmp_path, api="chat", mode="offline")
    message = (Message("user", "Is snow white? Answer Yes or No."),)
    ask = Ask("choose", via="first_token", options=("Yes", "No"), top=5)
    try:
        await provider.start()
        answer = await provider.generate(Request("s", 0, message, None, {}, {}, ask=ask))
    finally:
        await provider.close()
    assert any(each["logprob"] is not None for each in answer.likelihood["options"])
