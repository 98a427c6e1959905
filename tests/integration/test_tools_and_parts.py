"""What passes through unchanged, and what comes back beside text: tools and their calls, images, formats of
answers; by each provider that asks a server, whole and streamed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.program import evalrun
from tests.servers import ChatServer, completion

from evalrun.tracking.parquet import iter_samples

CALLS = [
    {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    },
    {"id": "call_2", "type": "function", "function": {"name": "get_time", "arguments": '{"zone": "CET"}'}},
]
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("get_weather", "get_time")
]
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "a", "schema": {"type": "object", "properties": {"n": {"type": "integer"}}}},
}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
PARTS = [{"type": "text", "text": "{{ q }}"}, {"type": "image_url", "image_url": {"url": "{{ image }}"}}]


def models_at(server: ChatServer, params: dict[str, Any]) -> list[dict[str, Any]]:
    common = {"params": {"temperature": 0, **params}, "api_key_env": "TEST_KEY"}
    found = [
        {"id": "thin", "provider": "openai_compatible", "base_url": server.base_url, "model": "scripted"},
        {"id": "sdk", "provider": "openai", "base_url": server.base_url, "model": "scripted"},
    ]
    if importlib.util.find_spec("litellm"):
        found.append(
            {"id": "lite", "provider": "litellm", "api_base": server.base_url, "model": "openai/scripted"}
        )
    return [{**model, **common} for model in found]


def calling(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Both calls, in pieces as servers stream them: the name first, then the arguments in two parts."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
    for index, call in enumerate(CALLS):
        function: Any = call["function"]
        named = {**call, "index": index, "function": {"name": function["name"], "arguments": ""}}
        deltas.append({"tool_calls": [named]})
        parts = function["arguments"][:5], function["arguments"][5:]
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": part}}]} for part in parts]
    return deltas


async def call_tools(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
    if not body.get("stream"):
        answer = completion("", finish_reason="tool_calls")
        answer["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": CALLS}
        return web.json_response(answer)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}
    for delta in calling(body):
        choices = [{"index": 0, "delta": delta, "finish_reason": None}]
        await response.write(b"data: " + json.dumps({**head, "choices": choices}).encode() + b"\n\n")
    choices = [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]
    await response.write(
        b"data: " + json.dumps({**head, "choices": choices}).encode() + b"\n\ndata: [DONE]\n\n"
    )
    return response


def sweep(folder: Path, suite: dict[str, Any], *arguments: str) -> dict[str, Any]:
    (folder / "suite.yaml").write_text(json.dumps({"name": "through", **suite}))
    done = evalrun("suite.yaml", "--json", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def samples_of(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {
        run["model"]: list(
            iter_samples(Path(result["folder"], "runs", run["run"], "samples.parquet"), decode=True)
        )
        for run in result["runs"]
    }


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "k" * 20)


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_are_recorded_scored_and_shown(
    project: Path, chat_server: ChatServer, stream: bool
) -> None:
    chat_server.behaviour = call_tools
    both = [
        {"name": "get_weather", "arguments": {"city": "Paris"}},
        {"name": "get_time", "arguments": {"zone": "CET"}},
    ]
    rows = [{"q": "both", "t": both}, {"q": "one", "t": both[:1]}]
    result = sweep(
        project,
        {
            "models": models_at(chat_server, {"tools": TOOLS, "tool_choice": "auto"}),
            "prompts": [{"id": "p", "text": "{{ q }}"}],
            "datasets": [{"id": "d", "rows": rows, "target": "t"}],
            "scorers": ["tool_calls"],
            "performance": {"stream": stream},
        },
    )
    for model, samples in samples_of(result).items():
        for sample in sorted(samples, key=lambda each: each["position"]):
            assert (sample["status"], sample["error"], sample["output"]) == ("scored", None, ""), model
            assert sample["tool_calls"] == CALLS and sample["finish_reason"] == "tool_calls"
            assert sample["score.tool_calls"] == (1.0 if sample["vars.q"] == "both" else 0.0)
            assert (sample["ttft_s"] is not None) is stream
    for run in result["runs"]:
        values = {each["name"]: each["value"] for each in run["metrics"]}
        assert (values["tool_calls.match"], values["tool_calls.f1"]) == (0.5, pytest.approx(5 / 6))
    assert all(body["tools"] == TOOLS and body["tool_choice"] == "auto" for body in chat_server.bodies)
    shown = evalrun("samples", result["runs"][0]["run"], "score.tool_calls == 1", "--json")
    assert shown.returncode == 0 and "get_weather" in shown.stdout
    assert "get_weather" in Path(result["report"]).read_text()


def test_images_and_formats_pass_through(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = lambda body: '{"n": 42}'
    result = sweep(
        project,
        {
            "models": models_at(chat_server, {"response_format": FORMAT}),
            "prompts": [{"id": "p", "messages": [{"role": "user", "content": PARTS}]}],
            "datasets": [
                {"id": "d", "rows": [{"q": "What is it?", "image": PIXEL, "t": {"n": 42}}], "target": "t"}
            ],
            "parse": ["json"],
            "scorers": [{"json_schema": {"schema": FORMAT["json_schema"]["schema"]}}],  # type: ignore[index]
        },
        "--no-report",
    )
    wanted = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    assert len(chat_server.bodies) == len(result["runs"])
    for body in chat_server.bodies:
        assert body["messages"] == [{"role": "user", "content": wanted}]
        assert body["response_format"] == FORMAT
    for samples in samples_of(result).values():
        assert [json.loads(sample["answer"]) for sample in samples] == [{"n": 42}]
        assert samples[0]["messages"] == [{"role": "user", "content": wanted}]
