"""Anthropic's Messages API: what is sent, and what is read of answers, streams and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.messages_server import MODEL, MessagesServer, error, events, message
from tests.program import evalrun

from evalrun.errors import UserError
from evalrun.providers.anthropic import Anthropic
from evalrun.providers.base import ProviderContext, create
from evalrun.suite.components import ModelSpec
from evalrun.types import ErrorKind, Message, ProviderError, Request, Response

CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"town": "Bonn", "days": 2}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MessagesServer]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key-of-test")
    with MessagesServer() as made:
        yield made


async def asked(server: MessagesServer, request: Request, **keys: Any) -> Response:
    """What the provider makes of a request."""
    entry = {"id": "c", "provider": "anthropic", "model": MODEL, "base_url": server.base_url, **keys}
    provider = create(ModelSpec.model_validate(entry), ProviderContext(Path(), Path()))
    try:
        await provider.start()
        return await provider.generate(request)
    finally:
        await provider.close()


def question(*turns: tuple[str, Any], stream: bool = False, **params: Any) -> Request:
    messages = tuple(Message(role, content) for role, content in turns or (("user", "hello"),))
    return Request("s1", 0, messages, None, params, {}, stream)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_text_with_its_tokens_and_its_reason(server: MessagesServer, stream: bool) -> None:
    server.usage = {"cache_read_input_tokens": 100, "cache_creation_input_tokens": 20}
    response = await asked(server, question(("system", "Be brief."), ("user", "hello"), stream=stream))
    assert (response.output, response.finish_reason, response.model) == ("42", "stop", MODEL)
    # The API counts apart what came from the cache and what went into it: 7 + 100 + 20.
    assert (response.prompt_tokens, response.cached_prompt_tokens, response.completion_tokens) == (
        127,
        100,
        3,
    )
    assert response.timing is not None
    assert response.timing.chunks == (2 if stream else 0)
    sent, headers = server.bodies[-1], server.headers[-1]
    assert sent["system"] == "Be brief."
    assert sent["messages"] == [{"role": "user", "content": "hello"}]
    assert (sent["max_tokens"], sent.get("stream", False)) == (4096, stream)
    assert (headers["x-api-key"], headers["anthropic-version"]) == ("key-of-test", "2023-06-01")
    assert "Authorization" not in headers


@pytest.mark.parametrize("stream", [False, True])
async def test_thinking_and_tools_stand_beside_the_text(server: MessagesServer, stream: bool) -> None:
    thinking = {"type": "thinking", "thinking": "a town in Germany", "signature": "c2ln"}
    server.answer = lambda body: [thinking, {"type": "text", "text": "I look."}, CALL]  # type: ignore[assignment,return-value]
    server.stop_reason = "tool_use"
    response = await asked(server, question(stream=stream))
    assert (response.output, response.reasoning) == ("I look.", "a town in Germany")
    assert response.finish_reason == "tool_calls"
    (call,) = response.tool_calls
    assert (call["id"], call["function"]["name"]) == ("toolu_1", "look")
    assert json.loads(call["function"]["arguments"]) == {"town": "Bonn", "days": 2}


async def test_parameters_in_the_words_of_others_become_the_apis(server: MessagesServer) -> None:
    schema = {"type": "object", "properties": {"grade": {"type": "integer"}}}
    function = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}
    await asked(
        server,
        question(
            temperature=0.5,
            seed=7,  # of the sample: the API takes none
            stop="###",
            max_completion_tokens=50,
            tools=[{"type": "function", "function": function}],
            tool_choice="required",
            response_format={"type": "json_schema", "json_schema": {"name": "g", "schema": schema}},
        ),
    )
    sent = server.bodies[-1]
    assert sent == {
        "model": MODEL,
        "max_tokens": 50,
        "temperature": 0.5,
        "stop_sequences": ["###"],
        "tools": [{"name": "look", "description": "Looks.", "input_schema": function["parameters"]}],
        "tool_choice": {"type": "any"},
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
        "messages": [{"role": "user", "content": "hello"}],
    }


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("data:image/png;base64,iVBO", {"type": "base64", "media_type": "image/png", "data": "iVBO"}),
        ("https://example.org/a.png", {"type": "url", "url": "https://example.org/a.png"}),
    ],
)
async def test_images_have_the_form_of_the_api(server: MessagesServer, url: str, source: Any) -> None:
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    await asked(server, question(("user", parts)))
    assert server.bodies[-1]["messages"][0]["content"] == [{"type": "image", "source": source}, parts[1]]


@pytest.mark.parametrize(("reason", "word"), [("max_tokens", "length"), ("refusal", "refusal")])
async def test_reasons_to_stop(server: MessagesServer, reason: str, word: str) -> None:
    server.stop_reason = reason
    assert (await asked(server, question(stream=True))).finish_reason == word


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "wait"),
    [
        (429, error("rate_limit_error", "slow down"), {"Retry-After": "3"}, ErrorKind.RATE_LIMIT, 3.0),
        (529, error("overloaded_error", "Overloaded"), {}, ErrorKind.SERVER, None),
        (500, error("api_error", "Internal server error"), {}, ErrorKind.SERVER, None),
        (401, error("authentication_error", "invalid x-api-key key-of-test"), {}, ErrorKind.AUTH, None),
        (413, error("request_too_large", "too large"), {}, ErrorKind.BAD_REQUEST, None),
        (404, error("not_found_error", "model: claude-x"), {}, ErrorKind.NOT_FOUND, None),
        (
            400,
            error("invalid_request_error", "Your credit balance is too low to access the API"),
            {},
            ErrorKind.BILLING,
            None,
        ),
        (
            429,
            error("rate_limit_error", "slow down"),
            {
                "Date": "Mon, 30 Nov 2026 08:00:00 GMT",
                "anthropic-ratelimit-requests-remaining": "9",
                "anthropic-ratelimit-requests-reset": "2026-11-30T09:00:00Z",
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2026-11-30T08:00:12Z",
            },
            ErrorKind.RATE_LIMIT,
            12.0,
        ),
    ],
)
async def test_errors(
    server: MessagesServer,
    status: int,
    body: Any,
    headers: dict[str, str],
    kind: ErrorKind,
    wait: float | None,
) -> None:
    async def refuse(_: Any, request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    server.behaviour = refuse
    with pytest.raises(ProviderError) as raised:
        await asked(server, question())
    assert (raised.value.kind, raised.value.retry_after_s) == (kind, wait)
    assert "key-of-test" not in raised.value.message


@pytest.mark.parametrize(("cut", "kind"), [(True, ErrorKind.TRUNCATED), (False, ErrorKind.SERVER)])
async def test_a_stream_that_breaks_off(server: MessagesServer, cut: bool, kind: ErrorKind) -> None:
    """Cut without a word, or ended by an error event in the middle."""

    async def half(_: Any, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in list(events(message([{"type": "text", "text": "a long answer"}])))[:4]:
            await response.write(event)
        if not cut:
            data = json.dumps(error("overloaded_error", "Overloaded")).encode()
            await response.write(b"event: error\ndata: %b\n\n" % data)
        return response

    server.behaviour = half
    with pytest.raises(ProviderError) as raised:
        await asked(server, question(stream=True))
    assert raised.value.kind is kind


def test_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"id": "c", "provider": "anthropic", "model": MODEL}
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(UserError, match="ANTHROPIC_API_KEY is not set"):
        create(ModelSpec.model_validate(entry), ProviderContext(Path(), Path()))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    made = create(ModelSpec.model_validate(entry), ProviderContext(Path(), Path()))
    assert made.endpoint == "https://api.anthropic.com:443"
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")  # as the SDK has it: without the version
    made = create(ModelSpec.model_validate({**entry, "beta": ["a", "b"]}), ProviderContext(Path(), Path()))
    assert isinstance(made, Anthropic)
    assert made.options.base_url == "http://127.0.0.1:9/v1"
    assert made.identity()["beta"] == ["a", "b"]
    assert made.headers["anthropic-beta"] == "a,b"
    assert "k" not in made.identity().values()


def test_a_suite_asks_it_and_tries_again_when_it_is_overloaded(
    server: MessagesServer, tmp_path: Path
) -> None:
    ordinary, refused = server.behaviour, []

    async def sometimes(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        if len(refused) < 3:
            refused.append(body)
            return web.json_response(error("overloaded_error", "Overloaded"), status=529)
        return await ordinary(body, request)

    server.behaviour, server.usage = sometimes, {"cache_read_input_tokens": 93}
    suite = {
        "name": "claude",
        "models": [
            {
                "id": "c",
                "provider": "anthropic",
                "model": MODEL,
                "base_url": server.base_url,
                "params": {"temperature": 0.3, "stop": ["\n"]},
                "price": {
                    "input_per_million_usd": 1000,
                    "output_per_million_usd": 2000,
                    "cached_input_per_million_usd": 100,
                },
            }
        ],
        "prompts": [{"id": "p", "messages": [{"role": "user", "content": "{{ q }}"}]}],
        "datasets": [
            {"id": "d", "rows": [{"q": f"number {n}", "a": "42"} for n in range(40)], "target": "{{ a }}"}
        ],
        "scorers": ["exact_match"],
        "performance": {"stream": True, "warmup": 0},
    }
    path = tmp_path / "claude.yaml"
    path.write_text(json.dumps(suite))
    done = evalrun("run", path, "--json", "--no-report", "--store", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    (ended,) = json.loads(done.stdout)["runs"]
    assert (ended["counts"]["scored"], ended["counts"]["retried"]) == (40, 3)
    metrics = {metric["name"]: metric["value"] for metric in ended["metrics"] if not metric["slice"]}
    assert metrics["exact_match"] == 1.0
    # 7 at 1000, 93 at 100 and 3 at 2000 dollars a million, forty times.
    assert metrics["cost.usd"] == pytest.approx(40 * (7 * 1000 + 93 * 100 + 3 * 2000) / 1e6)
    assert metrics["performance.ttft_s.p50"] > 0
