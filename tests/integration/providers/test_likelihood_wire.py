"""Likelihoods over the wire: what is sent, what servers of other abilities are asked, what comes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from tests.completions import CompletionsServer, likelihood

from evalrun.errors import Problem
from evalrun.providers.base import ProviderContext, create, likelihood_problem
from evalrun.suite.components import ModelSpec
from evalrun.types import Ask, ErrorKind, Message, ProviderError, Request

PROMPT = "Question: is it so?\nAnswer:"
CHOICE = Ask("choose", options=("yes indeed", "no", "perhaps, who knows"), separator=" ")


@pytest.fixture
def server() -> Iterator[CompletionsServer]:
    running = CompletionsServer()
    with running:
        yield running


def asked(ask: Ask, prompt: str | None = PROMPT, **params: Any) -> Request:
    return Request("s", 0, (), prompt, params, {}, ask=ask)


def computed(prompt: str, ask: Ask) -> list[tuple[float, int]]:
    return [likelihood(prompt + each, len(prompt)) for each in ask.continuations]


async def test_options_go_in_one_request_and_come_back_in_order(
    server: CompletionsServer, provider_for: Any
) -> None:
    provider = provider_for(server.base_url, api="completions", extra_body={"top_k": 3})
    answer = await provider.generate(asked(CHOICE, truncate_prompt_tokens=9))
    (body,) = server.bodies
    assert body == {
        "model": "m",
        "truncate_prompt_tokens": 9,
        "top_k": 3,
        "echo": True,
        "logprobs": 1,
        "max_tokens": 0,
        "stream": False,
        "prompt": [PROMPT + each for each in CHOICE.continuations],
    }
    found = [(each["logprob"], each["tokens"]) for each in answer.likelihood["options"]]
    assert found == [pytest.approx(each) for each in computed(PROMPT, CHOICE)]
    assert answer.prompt_tokens is not None and answer.timing is not None
    assert answer.timing.sent_ns < answer.timing.last_ns


async def test_a_begin_token_changes_nothing(server: CompletionsServer, provider_for: Any) -> None:
    server.prefix = "<|begin_of_text|>"
    answer = await provider_for(server.base_url, api="completions").generate(asked(CHOICE))
    found = [each["logprob"] for each in answer.likelihood["options"]]
    assert found == pytest.approx([value for value, _ in computed(PROMPT, CHOICE)])


@pytest.mark.parametrize(("lists", "least"), [(False, 0), (True, 1), (False, 1)])
async def test_servers_that_take_less_are_asked_otherwise(
    server: CompletionsServer, provider_for: Any, lists: bool, least: int
) -> None:
    server.lists, server.least_tokens = lists, least
    provider = provider_for(server.base_url, api="completions")
    answer = await provider.generate(asked(CHOICE))
    assert [each["logprob"] for each in answer.likelihood["options"]] == pytest.approx(
        [value for value, _ in computed(PROMPT, CHOICE)]
    )
    sent = len(server.bodies)
    again = await provider.generate(asked(CHOICE))
    assert len(server.bodies) - sent == (1 if lists else 3)  # what it takes is known now
    assert again.likelihood == answer.likelihood
    assert again.prompt_tokens == answer.prompt_tokens  # those of all requests


async def test_what_is_refused_for_another_reason_fails_with_that_reason(
    server: CompletionsServer, provider_for: Any
) -> None:
    provider = provider_for(server.base_url, api="completions")
    with pytest.raises(ProviderError, match="maximum context length") as caught:
        await provider.generate(asked(CHOICE, "word " * 2000))
    assert caught.value.kind is ErrorKind.BAD_REQUEST
    await provider.generate(asked(CHOICE))
    server.bodies.clear()
    with pytest.raises(ProviderError, match="maximum context length"):
        await provider.generate(asked(CHOICE, "word " * 2000))
    assert len(server.bodies) == 1


async def test_a_server_without_echo_is_named_as_the_cause(
    server: CompletionsServer, provider_for: Any
) -> None:
    server.echoes = False
    with pytest.raises(ProviderError, match="gives no log-probabilities of prompts") as caught:
        await provider_for(server.base_url, api="completions").generate(asked(CHOICE))
    assert caught.value.kind is ErrorKind.BAD_REQUEST  # asking again mends nothing


async def test_perplexity_counts_the_text_and_not_its_context(
    server: CompletionsServer, provider_for: Any
) -> None:
    provider = provider_for(server.base_url, api="completions")
    text = "Snow is white, snön är vit."
    alone = (await provider.generate(asked(Ask("perplexity"), text))).likelihood
    after = (await provider.generate(asked(Ask("perplexity", context="News:\n"), text))).likelihood
    assert (alone["logprob"], alone["tokens"]) == pytest.approx(likelihood(text, 0))
    assert (after["logprob"], after["tokens"]) == pytest.approx(likelihood("News:\n" + text, 6))
    assert (alone["unscored"], after["unscored"]) == (1, 0)
    assert after["bytes"] == len(text.encode()) and after["words"] == 6
    assert alone["bytes"] == len(text.encode()) - len("Snow") and alone["words"] == 5


async def test_the_first_token_of_a_completion(server: CompletionsServer, provider_for: Any) -> None:
    ask = Ask("choose", via="first_token", options=("Yes", "No"), top=7)
    answer = await provider_for(server.base_url, api="completions").generate(asked(ask, temperature=1))
    (body,) = server.bodies
    assert (body["max_tokens"], body["logprobs"], body["temperature"]) == (1, 7, 0)
    assert "echo" not in body and "stream" not in body
    values = [each["logprob"] for each in answer.likelihood["options"]]
    assert values == pytest.approx([math.log(0.6), math.log(0.3)])


async def test_the_first_token_of_a_chat(server: CompletionsServer, provider_for: Any) -> None:
    from aiohttp import web

    async def chat(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        top = [{"token": "No", "logprob": -0.2}, {"token": "Yes", "logprob": -1.8}]
        choice = {
            "message": {"content": "No"},
            "finish_reason": "length",
            "logprobs": {"content": [{**top[0], "top_logprobs": top}]},
        }
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 1}})

    server.behaviour = chat
    ask = Ask("choose", via="first_token", options=("Yes", "No"), top=5)
    request = Request("s", 0, (Message("user", "So?"),), None, {}, {}, ask=ask)
    answer = await provider_for(server.base_url).generate(request)
    (body,) = server.bodies
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"]) == (True, 5, 1)
    assert [each["logprob"] for each in answer.likelihood["options"]] == [-1.8, -0.2]
    assert (answer.output, answer.completion_tokens) == ("No", 1)


async def test_the_official_sdk_gives_first_tokens(
    server: CompletionsServer, context: ProviderContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    entry = {
        "id": "m", "provider": "openai", "model": "m", "base_url": server.base_url, "api": "completions"
    }  # fmt: skip
    provider = create(ModelSpec.model_validate(entry), context)
    await provider.start()
    answer = await provider.generate(asked(Ask("choose", via="first_token", options=("Yes", "No"), top=4)))
    with pytest.raises(ProviderError, match="first tokens"):
        await provider.generate(asked(CHOICE))
    await provider.close()
    assert server.bodies[-1]["logprobs"] == 4
    assert [each["logprob"] for each in answer.likelihood["options"]] == pytest.approx(
        [math.log(0.6), math.log(0.3)]
    )
    assert likelihood_problem(provider, "first_token") is None
    assert likelihood_problem(provider, "prompt_logprobs") is not None


async def test_options_of_a_chat_are_not_scored(server: CompletionsServer, provider_for: Any) -> None:
    request = Request("s", 0, (Message("user", "So?"),), None, {}, {}, ask=CHOICE)
    with pytest.raises(ProviderError, match="api: completions"):
        await provider_for(server.base_url).generate(request)


def problem_of(context: ProviderContext, via: Any, **entry: Any) -> Problem | None:
    return likelihood_problem(create(ModelSpec.model_validate({"id": "m", **entry}), context), via)


@pytest.mark.parametrize(
    ("entry", "prompts", "tokens"),
    [
        ({"provider": "openai_compatible", "base_url": "http://h/v1"}, "api: completions", None),
        ({"provider": "openai_compatible", "base_url": "http://h/v1", "api": "completions"}, None, None),
        ({"provider": "llamacpp", "model": "x"}, "api: completions", None),
        ({"provider": "llamacpp", "model": "x", "api": "completions"}, None, None),
        ({"provider": "vllm", "base_url": "http://h/v1"}, "api: completions", None),
        ({"provider": "vllm", "base_url": "http://h/v1", "api": "completions"}, None, None),
        ({"provider": "vllm", "model": "m", "mode": "offline", "api": "completions"}, None, None),
        ({"provider": "recorded", "column": "x"}, "of prompts", "of first tokens"),
        ({"provider": "python", "function": "math:sqrt"}, "does not say", "does not say"),
        ({"provider": "python", "function": "math:sqrt", "likelihood": True}, None, None),
    ],
)
def test_providers_say_what_they_cannot_give(
    context: ProviderContext, entry: dict[str, Any], prompts: str | None, tokens: str | None
) -> None:
    for via, expected in (("prompt_logprobs", prompts), ("first_token", tokens)):
        problem = problem_of(context, via, **entry)
        assert (problem is None) == (expected is None)
        assert expected is None or (expected in str(problem) and problem is not None and problem.remedy)
