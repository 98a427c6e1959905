"""The official SDK against real servers on loopback: what it sends, what comes back, what goes wrong."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.servers import ChatServer, completion

from evalrun.errors import ExitCode, UserError
from evalrun.providers.base import ProviderContext
from evalrun.providers.openai_sdk import OpenAI, OpenAIOptions
from evalrun.suite.components import ModelSpec
from evalrun.types import ErrorKind, Message, ProviderError, Request, Response

Serve = Callable[..., Awaitable[str]]

VARIABLES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_VERSION", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
AZURE = (
    "AZURE_OPENAI_ENDPOINT",
    "AZURE_OPENAI_API_KEY",
    "AZURE_OPENAI_AD_TOKEN",
    "AZURE_OPENAI_API_VERSION",
)


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *AZURE):
        monkeypatch.delenv(name, raising=False)


def provider(tmp_path: Path, model: str | None = "gpt-x", **options: Any) -> OpenAI:
    spec = ModelSpec(id="m", provider="openai", model=model, options=OpenAIOptions(**options))
    return OpenAI(spec, ProviderContext(tmp_path, tmp_path))


def request(stream: bool = False, prompt: str | None = None, **params: Any) -> Request:
    messages = () if prompt is not None else (Message("user", "hello"),)
    return Request("s1", 0, messages, prompt, params, {}, stream)


async def ask(made: OpenAI, what: Request) -> Response:
    await made.start()
    try:
        return await made.generate(what)
    finally:
        await made.close()


async def fault(made: OpenAI, what: Request) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await ask(made, what)
    return caught.value


async def test_sends_parameters_as_they_are_and_reads_the_answer(
    tmp_path: Path, chat_server: ChatServer
) -> None:
    made = provider(tmp_path, base_url=chat_server.base_url, extra_body={"top_k": 5})
    schema = {"type": "json_object"}
    answer = await ask(made, request(temperature=0, min_p=0.1, response_format=schema))
    assert chat_server.bodies == [
        {
            "model": "gpt-x",
            "messages": [{"role": "user", "content": "hello"}],
            "temperature": 0,
            "min_p": 0.1,
            "response_format": schema,
            "top_k": 5,
        }
    ]
    assert (answer.output, answer.finish_reason) == ("42", "stop")
    assert (answer.prompt_tokens, answer.completion_tokens, answer.model) == (7, 3, "scripted")
    assert answer.timing is not None and answer.timing.last_ns > answer.timing.sent_ns


async def test_streams_with_usage(tmp_path: Path, chat_server: ChatServer) -> None:
    answer = await ask(provider(tmp_path, base_url=chat_server.base_url), request(stream=True))
    (body,) = chat_server.bodies
    assert body["stream"] is True and body["stream_options"] == {"include_usage": True}
    assert (answer.output, answer.finish_reason, answer.completion_tokens) == ("42", "stop", 3)
    timing = answer.timing
    assert timing is not None and timing.chunks == 1
    assert timing.first_ns is not None and timing.sent_ns < timing.first_ns <= timing.last_ns


async def test_a_streamed_answer_leaves_its_connection_for_the_next(tmp_path: Path, serve: Serve) -> None:
    connections: set[Any] = set()

    async def handler(request: web.Request) -> web.StreamResponse:
        connections.add(request.transport)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n')
        await response.write(
            b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
        )
        return response

    made = provider(tmp_path, base_url=await serve(handler))
    await made.start()
    for _ in range(3):
        await made.generate(request(stream=True))
    await made.close()
    assert len(connections) == 1


async def test_reasoning_tool_calls_and_null_content(tmp_path: Path, chat_server: ChatServer) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": 1}'}}

    async def behave(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        value = completion("", "tool_calls")
        message = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]}
        value["choices"][0]["message"] = message
        return web.json_response(value)

    chat_server.behaviour = behave
    answer = await ask(
        provider(tmp_path, base_url=chat_server.base_url), request(tools=[{"type": "function"}])
    )
    assert (answer.output, answer.reasoning, answer.tool_calls) == ("", "hm", [call])
    assert chat_server.bodies[0]["tools"] == [{"type": "function"}]


async def test_completions_send_raw_text(tmp_path: Path, serve: Serve) -> None:
    bodies: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        return web.json_response({"choices": [{"text": " world", "index": 0, "finish_reason": "length"}]})

    base_url = await serve(handler, "/v1/completions")
    made = provider(tmp_path, base_url=base_url, api="completions")
    answer = await ask(made, request(prompt="hello", max_tokens=1))
    assert answer.output == " world"
    assert bodies == [{"model": "gpt-x", "prompt": "hello", "max_tokens": 1}]
    assert (await fault(made, request())).kind is ErrorKind.BAD_REQUEST


async def test_key_and_address_come_from_the_environment(
    tmp_path: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    async def behave(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return web.json_response(completion("ok"))

    chat_server.behaviour = behave
    monkeypatch.setenv("OPENAI_API_KEY", "the-key-of-the-test")
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.base_url)
    made = provider(tmp_path)
    await ask(made, request())
    assert seen == ["Bearer the-key-of-the-test"]
    assert made.endpoint == chat_server.base_url.removesuffix("/v1")
    assert made.identity()["base_url"] == chat_server.base_url
    assert "the-key-of-the-test" not in json.dumps(made.identity())


async def test_azure_asks_the_deployment(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, str | None]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append((request.path, request.query_string, request.headers.get("api-key")))
        return web.json_response(completion("azure"))

    base_url = await serve(handler, "/openai/deployments/my-gpt/chat/completions")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", base_url.removesuffix("/v1"))
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-of-the-test")
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    made = provider(tmp_path, "my-gpt", azure=True)
    assert (await ask(made, request())).output == "azure"
    path = "/openai/deployments/my-gpt/chat/completions"
    assert seen == [(path, "api-version=2024-10-21", "azure-key-of-the-test")]
    assert made.identity()["api_version"] == "2024-10-21"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ErrorKind.BAD_REQUEST),
        (401, ErrorKind.AUTH),
        (403, ErrorKind.AUTH),
        (404, ErrorKind.NOT_FOUND),
        (408, ErrorKind.TIMEOUT),
        (409, ErrorKind.BAD_REQUEST),
        (422, ErrorKind.BAD_REQUEST),
        (429, ErrorKind.RATE_LIMIT),
        (500, ErrorKind.SERVER),
        (503, ErrorKind.SERVER),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failed_status_is_asked_once_and_named(
    tmp_path: Path, chat_server: ChatServer, status: int, kind: ErrorKind, stream: bool
) -> None:
    async def behave(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        error = {"error": {"message": "no: sk-abcdefghijklmnopqrstuvwx"}}
        return web.json_response(error, status=status, headers={"Retry-After": "7"})

    chat_server.behaviour = behave
    error = await fault(provider(tmp_path, base_url=chat_server.base_url), request(stream))
    assert (error.kind, error.http_status, error.retry_after_s) == (kind, status, 7.0)
    assert error.message == f"HTTP {status}: no: [redacted]"
    assert len(chat_server.bodies) == 1


async def test_a_key_that_the_server_repeats_is_not_kept(
    tmp_path: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def behave(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        said = f"wrong: {request.headers['Authorization'].removeprefix('Bearer ')}"
        return web.json_response({"error": {"message": said}}, status=401)

    chat_server.behaviour = behave
    monkeypatch.setenv("PLAIN_NAME", "hush-hush")  # neither this name nor this value looks secret
    made = provider(tmp_path, base_url=chat_server.base_url, api_key_env="PLAIN_NAME")
    assert (await fault(made, request())).message == "HTTP 401: wrong: ***"


async def test_one_request_a_connection_for_llama_cpp(tmp_path: Path, serve: Serve) -> None:
    """It hangs up after each stream without saying so: the next request on the connection would fail."""
    asked: list[str | None] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers.get("Connection"))
        return web.json_response(completion("x"))

    async def as_llama_cpp(request: web.Request, answer: web.StreamResponse) -> None:
        answer.headers["Server"] = "llama.cpp"

    for_others = provider(tmp_path, base_url=await serve(handler))
    await ask(for_others, request())
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    app.on_response_prepare.append(as_llama_cpp)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    await ask(provider(tmp_path, base_url=base_url), request())
    await runner.cleanup()
    assert asked[0] in (None, "keep-alive") and asked[1] == "close"


async def test_dropped_connections_are_no_timeouts(tmp_path: Path, chat_server: ChatServer) -> None:
    async def drop(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    chat_server.behaviour = drop
    made = provider(tmp_path, base_url=chat_server.base_url)
    assert (await fault(made, request())).kind is ErrorKind.CONNECTION
    assert len(chat_server.bodies) == 1


@pytest.mark.parametrize("polite", [True, False])
async def test_streams_that_end_early_are_truncated(
    tmp_path: Path, chat_server: ChatServer, polite: bool
) -> None:
    async def cut(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices":[{"index":0,"delta":{"content":"par"}}]}\n\n')
        if not polite:
            assert request.transport is not None
            request.transport.close()
        return response

    chat_server.behaviour = cut
    error = await fault(provider(tmp_path, base_url=chat_server.base_url), request(stream=True))
    assert error.kind is ErrorKind.TRUNCATED


async def test_a_body_that_is_cut_is_truncated(tmp_path: Path, serve_bytes: Serve) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    base_url = await serve_bytes(head + b'{"choices": [')
    error = await fault(provider(tmp_path, base_url=base_url), request())
    assert error.kind is ErrorKind.TRUNCATED


@pytest.mark.parametrize("text", ["hello", "{}", '{"choices": []}'])
async def test_what_is_no_completion_is_a_protocol_error(
    tmp_path: Path, chat_server: ChatServer, text: str
) -> None:
    async def behave(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, content_type="application/json")

    chat_server.behaviour = behave
    error = await fault(provider(tmp_path, base_url=chat_server.base_url), request())
    assert error.kind is ErrorKind.PROTOCOL


async def test_an_absent_server_is_found_at_the_start(tmp_path: Path) -> None:
    made = provider(tmp_path, base_url="http://127.0.0.1:9/v1")
    with pytest.raises(UserError) as caught:
        await made.start()
    assert caught.value.exit_code is ExitCode.INCOMPLETE
    assert "http://127.0.0.1:9/v1 is not there" in str(caught.value)


def test_missing_accounts_are_named_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        provider(tmp_path)
    with pytest.raises(UserError, match="MY_KEY is not set"):
        provider(tmp_path, api_key_env="MY_KEY", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(UserError) as caught:
        provider(tmp_path, None, azure=True)
    assert [problem.what for problem in caught.value.problems] == [
        "'model' is missing",
        "the address of the Azure resource is missing",
        "the version of Azure's API is missing",
        "no key for Azure OpenAI is set",
    ]


def test_making_one_does_not_import_the_sdk(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from evalrun.suite.schema import ModelSpec\n"
        "from evalrun.providers.openai_sdk import OpenAI\n"
        "from evalrun.providers.base import ProviderContext\n"
        "from pathlib import Path\n"
        "spec = ModelSpec(id='m', provider='openai', model='x', base_url='http://127.0.0.1:9/v1')\n"
        "OpenAI(spec, ProviderContext(Path(), Path()))\n"
        "sys.exit('openai' in sys.modules or 'aiohttp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_a_query_in_the_address_is_kept(tmp_path: Path, serve: Serve) -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.path_qs)
        return web.json_response(completion("x"))

    base_url = await serve(handler) + "?api-version=7&tag=a&tag=b"
    for stream in (False, True):
        await ask(provider(tmp_path, base_url=base_url), request(stream))
    assert asked == ["/v1/chat/completions?api-version=7&tag=a&tag=b"] * 2


@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_that_cannot_be_unpacked_is_no_answer(
    tmp_path: Path, serve: Serve, stream: bool
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        return web.Response(body=b"this is no gzip at all", headers=headers)

    error = await fault(provider(tmp_path, base_url=await serve(handler)), request(stream))
    assert error.kind in (ErrorKind.PROTOCOL, ErrorKind.TRUNCATED), error
    assert "event loop" not in error.message


async def test_a_body_that_is_packed_all_the_same_is_read(tmp_path: Path, serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        packed = gzip.compress(json.dumps(completion("42")).encode())
        return web.Response(
            body=packed, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"}
        )

    for stream in (False, True):
        answer = await ask(provider(tmp_path, base_url=await serve(handler)), request(stream))
        assert answer.output == "42"
