"""The embedded engine on its real model. The weights are fetched once (98 MB) into the user's cache."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from evalrun.errors import ExitCode, UserError
from evalrun.providers import catalogue
from evalrun.providers.base import Provider, ProviderContext, create
from evalrun.suite.components import ModelSpec
from evalrun.types import Ask, ErrorKind, Message, ProviderError, Request

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.engine

NAME = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def weights() -> Path:
    return catalogue.ensure(NAME)


@pytest.fixture
async def started(weights: Path, tmp_path: Path) -> AsyncIterator[Any]:
    made: list[Provider] = []

    async def start(deterministic: bool = False, **keys: Any) -> Provider:
        entry = {"id": "smol", "provider": "llamacpp", "model": NAME, "ctx": 512, **keys}
        context = ProviderContext(tmp_path, tmp_path / "work", deterministic=deterministic)
        provider = create(ModelSpec.model_validate(entry), context)
        made.append(provider)
        await provider.start()
        return provider

    yield start
    for provider in made:
        await provider.close()


def ask(text: str, stream: bool = False, raw: bool = False, max_tokens: int = 12) -> Request:
    messages = () if raw else (Message("user", text),)
    params = {"temperature": 0, "max_tokens": max_tokens}
    return Request("s", 0, messages, text if raw else None, params, {}, stream)


async def test_chat_stream_and_identity(started: Any) -> None:
    provider = await started()
    whole = await provider.generate(ask("What is the capital of France?"))
    assert whole.output.strip() and whole.completion_tokens and whole.prompt_tokens > 10
    assert whole.model == NAME and whole.timing.first_ns is None

    streamed = await provider.generate(ask("Name three colours.", stream=True))
    timing = streamed.timing
    assert streamed.finish_reason in ("length", "stop") and streamed.completion_tokens <= 12
    assert timing.sent_ns < timing.first_ns < timing.last_ns
    assert streamed.completion_tokens - 2 <= timing.chunks <= streamed.completion_tokens

    answers = await asyncio.gather(*(provider.generate(ask(f"Count to {n}.", True)) for n in range(8)))
    assert all(answer.completion_tokens for answer in answers)

    identity = provider.identity()
    assert identity["weights_sha256"] == catalogue.CATALOGUE[0].sha256
    assert (identity["slots"], identity["ctx"]) == (4, 512)
    assert len(str(identity["chat_template_sha256"])) == 64
    pid = provider.engine_pid
    assert pid is not None
    await provider.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_streams_one_after_the_other_never_meet_a_closed_connection(started: Any) -> None:
    """llama.cpp hangs up after a stream: whoever uses that connection again gets an error."""
    provider = await started(ctx=256)

    async def in_a_row() -> None:
        for _ in range(10):
            await provider.generate(ask("Hi", stream=True, max_tokens=1))

    await asyncio.gather(*(in_a_row() for _ in range(4)))


async def test_completions_and_a_prompt_that_is_too_long(started: Any) -> None:
    provider = await started(api="completions", slots=2)
    assert "Paris" in (await provider.generate(ask("The capital of France is", raw=True))).output
    with pytest.raises(ProviderError, match="context size") as caught:
        await provider.generate(ask("word " * 2000, raw=True))
    assert caught.value.kind is ErrorKind.BAD_REQUEST


async def test_deterministic_answers_do_not_depend_on_what_came_before(started: Any) -> None:
    provider = await started(deterministic=True)
    questions = [ask(f"Write one sentence about the number {n}.", max_tokens=10) for n in range(3)]
    one_by_one = [(await provider.generate(question)).output for question in questions]
    at_once = await asyncio.gather(*(provider.generate(question) for question in reversed(questions)))
    assert [answer.output for answer in reversed(at_once)] == one_by_one


async def test_a_crash_is_an_engine_error_with_its_cause(started: Any) -> None:
    provider = await started()
    running = asyncio.create_task(provider.generate(ask("Tell me a long story.", True, max_tokens=400)))
    await asyncio.sleep(0.5)
    os.kill(provider.engine_pid, signal.SIGKILL)
    for failing in (running, provider.generate(ask("hello"))):
        with pytest.raises(ProviderError, match="SIGKILL") as caught:
            await failing
        assert caught.value.kind is ErrorKind.ENGINE


async def test_cancelling_a_request_frees_its_slot(started: Any) -> None:
    provider = await started(slots=1, ctx=2048)
    params = {"temperature": 0, "max_tokens": 1500, "ignore_eos": True}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await provider.generate(replace(ask("Tell a story.", stream=True), params=params))

    for _ in range(1200):
        _, body, _ = await provider.client.get(provider.client.base_url.with_path("/slots"), 30)
        state = orjson.loads(body)[0]
        if not state["is_processing"]:
            break
        await asyncio.sleep(0.05)
    assert not state["is_processing"]
    assert state["next_token"][0]["n_decoded"] < 1500  # it was dropped and did not run to its end


async def test_torn_weights_of_ones_own(started: Any, weights: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.gguf"
    with weights.open("rb") as whole:
        torn.write_bytes(whole.read(10_000_000))
    with pytest.raises(UserError, match="failed to load model") as caught:
        await started(model="torn.gguf")
    assert caught.value.exit_code is ExitCode.INCOMPLETE and "GGUF" in caught.value.problems[0].remedy


TEXT = "The capital of France is Paris, naïve \U0001f40b."
"""With a character of several tokens."""


async def test_the_likelihood_of_a_text_is_that_of_the_whole_distribution_token_by_token(
    started: Any,
) -> None:
    """Against a softmax over all 49,152 tokens, asked for without forcing the token that is looked at."""
    provider = await started(api="completions", slots=1)
    request = Request("s", 0, (), TEXT, {}, {}, False, Ask("perplexity"))
    likelihood = (await provider.generate(request)).likelihood

    async def post(path: str, body: dict[str, Any]) -> Any:
        return await provider._post_to_root(path, body, lambda document, timing: document)

    cut = await post("/tokenize", {"content": TEXT, "add_special": True})
    ids, total = cut["tokens"], 0.0
    for at in range(1, len(ids)):
        body = {"prompt": ids[:at], "n_predict": 1, "n_probs": 100_000, "temperature": -1.0}
        document = await post("/completion", {**body, "logit_bias": [[ids[0], 1e4]]})
        entries = document["completion_probabilities"][0]["top_logprobs"]
        logprobs = {entry["id"]: entry["logprob"] for entry in entries}
        assert sum(map(math.exp, logprobs.values())) == pytest.approx(1.0, abs=2e-3)
        total += logprobs[ids[at]]
    assert likelihood["logprob"] == pytest.approx(total, abs=1e-2)
    assert (likelihood["tokens"], likelihood["unscored"]) == (len(ids) - 1, 1)


async def test_a_choice_by_likelihood(started: Any) -> None:
    provider = await started(api="completions")
    cities = ("Paris", "a banana", "London")
    asked = Ask("choose", options=cities, answers=cities, separator=" ")
    prompt = "Question: What is the capital of France?\nAnswer:"
    answer = await provider.generate(Request("s", 0, (), prompt, {}, {}, False, asked))
    logprobs = [option["logprob"] for option in answer.likelihood["options"]]
    assert logprobs[0] == max(logprobs) and logprobs[1] == min(logprobs)


async def test_through_chat_there_are_no_likelihoods_of_texts(started: Any) -> None:
    provider = await started()
    assert "prompt_logprobs" not in provider.supports
