"""Requests sent by worker processes: real processes, real servers on loopback."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web
from tests.servers import ChatServer, completion

from evalrun.errors import UserError
from evalrun.providers.base import (
    Embeds,
    HasWorkers,
    Priced,
    ProviderContext,
    capability,
    create,
    likelihood_problem,
)
from evalrun.runner.spread import Spread, spread
from evalrun.runner.spread_wire import request_of, request_parts, response_of, response_parts
from evalrun.suite.components import ModelSpec
from evalrun.types import Ask, ErrorKind, Message, ProviderError, Request, Response, Timing

Make = Callable[..., Awaitable[Spread]]


def ask(text: str = "hello", *, stream: bool = False, **params: Any) -> Request:
    return Request("s", 0, (Message("user", text),), None, params, {"row": 1}, stream)


async def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  (it happens in another process)
            await asyncio.sleep(0.01)


def processes() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "spread_worker" in " ".join(each.cmdline())]


@pytest.fixture
def no_process_is_left() -> Iterator[None]:
    yield
    assert processes() == []


@pytest.fixture
async def make(tmp_path: Path, no_process_is_left: None) -> AsyncIterator[Make]:
    """make(base_url, workers=2, **keys): a started provider of that model entry, closed at the end."""
    made: list[Spread] = []

    async def start(base_url: str, workers: int = 2, **keys: Any) -> Spread:
        entry = {"id": "served", "provider": "openai_compatible", "model": "m", "base_url": base_url, **keys}
        context = ProviderContext(base_dir=tmp_path, work_dir=tmp_path / "work")
        provider = spread(create(ModelSpec.model_validate(entry), context), workers, "suite.yaml:1")
        assert isinstance(provider, Spread)
        made.append(provider)
        await provider.start()
        return provider

    yield start
    for provider in made:
        await provider.close()


async def test_answers_are_those_of_the_provider_and_times_those_of_this_machine(
    make: Make, chat_server: ChatServer
) -> None:
    chat_server.answer = lambda body: f"to {body['messages'][0]['content']} at {body.get('seed')}"
    provider = await make(chat_server.base_url)
    before = time.perf_counter_ns()
    texts = [f"{n} ☃ \ud800".encode("utf-8", "replace").decode() for n in range(40)]
    asked = [provider.generate(ask(text, stream=n % 2 == 1, seed=n)) for n, text in enumerate(texts)]
    answers = await asyncio.gather(*asked)
    after = time.perf_counter_ns()
    assert [each.output for each in answers] == [f"to {text} at {n}" for n, text in enumerate(texts)]
    for n, each in enumerate(answers):
        assert each.completion_tokens == 3 and each.finish_reason == "stop" and each.model == "scripted"
        assert each.timing is not None and before < each.timing.sent_ns < each.timing.last_ns < after
        assert (each.timing.first_ns is not None) is (n % 2 == 1)


async def test_both_workers_are_given_work(make: Make, chat_server: ChatServer) -> None:
    ports: set[int] = set()

    async def behaviour(body: Any, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        port = request.transport.get_extra_info("peername")[1]
        ports.update(each.pid for each in processes() for c in each.net_connections() if c.laddr.port == port)
        await asyncio.sleep(0.05)
        return web.json_response(completion("42"))

    provider = await make(chat_server.base_url)
    chat_server.behaviour = behaviour
    await asyncio.gather(*(provider.generate(ask()) for _ in range(4)))
    assert ports == {each.pid for each in processes()} and len(ports) == 2


async def test_parameters_of_each_request_are_its_own(make: Make, chat_server: ChatServer) -> None:
    provider = await make(chat_server.base_url, workers=1)
    hot, cold = {"temperature": 1}, {"temperature": 0}
    for params in (hot, hot, cold, hot, {}):
        await provider.generate(Request("s", 0, (Message("user", "?"),), None, params, {}))
    assert [body.get("temperature") for body in chat_server.bodies] == [1, 1, 0, 1, None]


@pytest.mark.parametrize(
    ("status", "kind", "wait"),
    [(429, ErrorKind.RATE_LIMIT, 7.0), (500, ErrorKind.SERVER, None), (401, ErrorKind.AUTH, None)],
)
async def test_errors_come_back_whole(
    make: Make, chat_server: ChatServer, status: int, kind: ErrorKind, wait: float | None
) -> None:
    async def behaviour(body: Any, request: web.Request) -> web.StreamResponse:
        headers = {"Retry-After": "7"} if status == 429 else {}
        return web.json_response({"error": {"message": "no ☃"}}, status=status, headers=headers)

    chat_server.behaviour = behaviour
    provider = await make(chat_server.base_url)
    with pytest.raises(ProviderError) as caught:
        await provider.generate(ask())
    error = caught.value
    assert (error.kind, error.http_status, error.retry_after_s) == (kind, status, wait)
    assert error.message == f"HTTP {status}: no ☃"


async def test_cancelling_hangs_up_on_the_server(make: Make, chat_server: ChatServer) -> None:
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def behaviour(body: Any, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        await until(request.transport.is_closing)
        loop.call_soon_threadsafe(gone.set)
        return web.Response()

    provider = await make(chat_server.base_url)
    chat_server.behaviour = behaviour
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await provider.generate(ask())
    await asyncio.wait_for(gone.wait(), 10)


async def test_what_a_killed_worker_was_asked_may_be_asked_of_another(
    make: Make, chat_server: ChatServer
) -> None:
    provider = await make(chat_server.base_url)
    chat_server.delay_s = 0.5
    asked = [asyncio.create_task(provider.generate(ask())) for _ in range(4)]
    await until(lambda: len(chat_server.bodies) == 4)
    first, second = processes()
    first.send_signal(signal.SIGKILL)
    ended = await asyncio.gather(*asked, return_exceptions=True)
    errors = [each for each in ended if isinstance(each, ProviderError)]
    assert len(errors) == 2 and all(each.kind is ErrorKind.CONNECTION for each in errors)
    assert "a worker process of evalrun ended (SIGKILL)" in errors[0].message
    assert (await provider.generate(ask())).output == "42"
    second.send_signal(signal.SIGKILL)
    with pytest.raises(ProviderError):
        await provider.generate(ask())
    with pytest.raises(ProviderError, match="have all ended") as caught:
        await provider.generate(ask())
    assert caught.value.kind is ErrorKind.ENGINE


async def test_a_worker_that_cannot_start_is_reported(
    tmp_path: Path, chat_server: ChatServer, no_process_is_left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"id": "served", "provider": "openai_compatible", "model": "m", "base_url": chat_server.base_url}
    context = ProviderContext(base_dir=tmp_path, work_dir=tmp_path)
    provider = spread(create(ModelSpec.model_validate(entry), context), 2, "here")
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(UserError, match=r"a worker process of evalrun ended \(exit code 1\)") as caught:
        await provider.start()
    assert caught.value.exit_code == 3
    await provider.close()


async def test_what_a_worker_finds_at_its_start_is_reported_as_it_is(
    make: Make, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is there for us, and not for those that we start."""
    monkeypatch.setenv("SPREAD_KEY", "k" * 20)
    started = Spread.start

    async def start(self: Spread) -> None:
        monkeypatch.delenv("SPREAD_KEY")
        await started(self)

    monkeypatch.setattr(Spread, "start", start)
    with pytest.raises(UserError, match="the environment variable SPREAD_KEY is not set"):
        await make(chat_server.base_url, api_key_env="SPREAD_KEY")


async def test_keys_stand_in_no_argument(
    make: Make, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    async def behaviour(body: Any, request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return web.json_response(completion("42"))

    monkeypatch.setenv("SPREAD_KEY", "very-secret-indeed")
    chat_server.behaviour = behaviour
    provider = await make(chat_server.base_url, api_key_env="SPREAD_KEY")
    await provider.generate(ask())
    assert seen == ["Bearer very-secret-indeed"]
    assert not any("secret" in argument for each in processes() for argument in each.cmdline())


async def test_the_model_that_was_found_out_is_asked(make: Make, chat_server: ChatServer) -> None:
    provider = await make(chat_server.base_url, model=None)
    await provider.generate(ask())
    assert chat_server.bodies[0]["model"] == "scripted"


async def test_how_late_the_workers_were_is_told_once(make: Make, chat_server: ChatServer) -> None:
    provider = await make(chat_server.base_url)
    await asyncio.sleep(0.1)
    seen = [0, 0]

    def both() -> bool:
        for at, lag in enumerate(provider.take_lags()):
            seen[at] += sum(lag.values())
        return min(seen) >= 5

    await until(both)
    assert sum(sum(each.values()) for each in provider.take_lags()) <= 2


async def test_workers_count_as_evalrun_and_not_as_an_engine(make: Make, chat_server: ChatServer) -> None:
    from evalrun.runner.processes import own_tree
    from evalrun.runner.watch import engine_pid

    provider = await make(chat_server.base_url)
    assert {each.pid for each in processes()} <= set(own_tree())
    assert engine_pid(provider) is None
    assert all(os.getpgid(each.pid) == each.pid for each in processes()), "Ctrl-C must not reach them"


@pytest.mark.parametrize("name", ["openai", "litellm"])
async def test_other_libraries_are_spread_as_well(
    make: Make, chat_server: ChatServer, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPREAD_KEY", "k" * 20)
    pytest.importorskip(name)
    model = "openai/m" if name == "litellm" else "m"
    base = "api_base" if name == "litellm" else "base_url"
    entry = {"id": "x", "provider": name, "model": model, base: chat_server.base_url}
    spec = ModelSpec.model_validate({**entry, "api_key_env": "SPREAD_KEY"})
    provider = spread(create(spec, ProviderContext(tmp_path, tmp_path)), 2, "here")
    await provider.start()
    try:
        answers = await asyncio.gather(*(provider.generate(ask(stream=n > 1)) for n in range(4)))
        assert [each.output for each in answers] == ["42"] * 4
    finally:
        await provider.close()


async def test_a_vllm_server_that_runs_is_asked_with_its_key(
    make: Make, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    async def behaviour(body: Any, request: web.Request) -> web.StreamResponse:
        seen.append((request.headers.get("Authorization"), body["model"], body["top_k"]))
        return web.json_response(completion("42"))

    monkeypatch.setenv("SPREAD_KEY", "very-secret-indeed")
    chat_server.behaviour = behaviour
    keys = {"provider": "vllm", "model": None, "api_key_env": "SPREAD_KEY", "extra_body": {"top_k": 3}}
    provider = await make(chat_server.base_url, **keys)
    assert (await provider.generate(ask())).output == "42"
    assert seen == [("Bearer very-secret-indeed", "scripted", 3)]
    assert provider.identity()["provider"] == "vllm"


def test_what_does_not_ask_over_a_network_is_refused_by_name(tmp_path: Path) -> None:
    spec = ModelSpec.model_validate({"id": "mine", "provider": "recorded", "column": "output"})
    with pytest.raises(UserError) as caught:
        spread(create(spec, ProviderContext(tmp_path, tmp_path)), 2, "suite.yaml:9")
    text = str(caught.value)
    assert "provider 'recorded' of model 'mine'" in text and text.startswith("suite.yaml:9")


async def test_what_the_provider_can_do_besides_is_still_found(make: Make, chat_server: ChatServer) -> None:
    provider = await make(chat_server.base_url)
    assert capability(provider, HasWorkers) is provider
    embeds = capability(provider, Embeds)
    assert embeds is not None and embeds is not provider
    assert capability(provider, Priced) is None
    assert likelihood_problem(provider, "first_token") is None
    assert "api: completions" in str(likelihood_problem(provider, "prompt_logprobs"))


def test_none_is_the_provider_itself(tmp_path: Path) -> None:
    spec = ModelSpec.model_validate({"id": "mine", "provider": "recorded", "column": "output"})
    provider = create(spec, ProviderContext(tmp_path, tmp_path))
    assert spread(provider, 0, "") is provider


def test_requests_and_responses_survive_being_taken_apart() -> None:
    params = {"temperature": 0}
    chosen = Ask("choose", options=("a", "b"), answers=("A", "B"), separator=" ")
    request = Request(
        "", 0, (Message("user", [{"type": "text", "text": "x"}]),), "p", params, {}, True, chosen
    )
    assert request_of(request_parts(request), params) == request
    response = Response(
        "out", "stop", 1, 2, Timing(1, 2, 3, 4, 5), "no", "because", [{"id": "c"}], {"content": []}, "m", "f",
        0.5, {"options": []},
    )  # fmt: skip
    assert response_of(response_parts(response)) == response
    assert response_of(response_parts(Response("x"))) == Response("x")
