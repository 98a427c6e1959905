"""The cache as its user meets it: what asks anew, what does not, what is never kept, and the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.integration.test_budgets import _model
from tests.integration.test_sweep import N, correct, write_suite
from tests.program import evalrun
from tests.servers import ChatServer, completion


def _asked(project: Path, server: ChatServer, **changes: Any) -> int:
    """How many requests the suite sends when run, in this process, with the cache as it is."""
    from evalrun.api import run
    from evalrun.suite.overrides import Overrides

    before = len(server.bodies)
    suite = write_suite(project, server, **changes)
    run(suite, overrides=Overrides(prompts=("plain",)), fresh=True, write_report=False)
    return len(server.bodies) - before


def test_what_shapes_an_answer_asks_anew_and_nothing_else_does(
    project: Path, chat_server: ChatServer
) -> None:
    assert _asked(project, chat_server) == N
    neutral: list[dict[str, Any]] = [
        {},
        {"performance": {"stream": True, "concurrency": 2, "retries": 3, "timeout_s": 9, "warmup": 3}},
        {
            "scorers": ["exact_match"],
            "parse": [],
            "name": "another",
            "tags": {"a": "b"},
        },
        {"models": _model(chat_server, id="renamed", limits={"requests_per_minute": 6000})},
        {"models": _model(chat_server, price={"input_per_million_usd": 1, "output_per_million_usd": 2})},
        {"seed": 12},
    ]
    for change in neutral:
        assert _asked(project, chat_server, **change) == 0, change
    shaping: list[tuple[dict[str, Any], int]] = [
        ({"models": _model(chat_server, params={"temperature": 0, "max_tokens": 9})}, N),
        ({"models": _model(chat_server, params={"max_tokens": 8, "temperature": 0, "stop": ["."]})}, N),
        ({"models": _model(chat_server, model="other")}, N),
        ({"prompts": [{"id": "plain", "text": "{{ a }} + {{ b }}  ="}]}, N),
        ({"prompts": [{"id": "plain", "text": "{{ a }} + {{ b }} =", "system": "Be short."}]}, N),
        ({"repeats": 2}, N),  # the first repeat is kept
        ({"models": _model(chat_server, params={"temperature": 1, "max_tokens": 8})}, N),
        ({"models": _model(chat_server, params={"temperature": 1, "max_tokens": 8}), "seed": 3}, N),
    ]
    for change, expected in shaping:
        assert _asked(project, chat_server, **change) == expected, change
        assert _asked(project, chat_server, **change) == 0, "and is then kept itself"


@pytest.mark.parametrize("kind", ["error", "filtered", "truncated", "null"])
def test_what_is_no_answer_is_never_kept(project: Path, chat_server: ChatServer, kind: str) -> None:
    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        if not body["messages"][-1]["content"].startswith("3 "):
            return web.json_response(completion(correct(body)))
        if kind == "error":
            return web.json_response({"error": {"message": "no"}}, status=400)
        if kind == "filtered":
            return web.json_response(completion("", "content_filter"))
        if kind == "null":
            return web.json_response({"choices": []})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        delta = {"choices": [{"index": 0, "delta": {"content": "7"}, "finish_reason": None}]}
        await response.write(b"data: " + json.dumps(delta).encode() + b"\n\n")
        return response

    chat_server.behaviour = behaviour
    performance = {"concurrency": 4, "retries": 0, "stream": kind == "truncated"}
    if kind == "truncated":
        chat_server.behaviour = lambda body, request: (
            behaviour(body, request)
            if body["messages"][-1]["content"].startswith("3 ")
            else chat_server._plain(body, request)
        )
    assert _asked(project, chat_server, performance=performance) == N
    assert _asked(project, chat_server, performance=performance) == 1


def test_stats_explain_and_clear(project: Path, chat_server: ChatServer) -> None:
    assert evalrun("cache", "stats").returncode == 2, "there is none yet"
    suite = write_suite(project, chat_server)
    assert evalrun(suite, "--no-report").returncode == 0
    stats = json.loads(evalrun("cache", "stats", "--json").stdout)
    assert stats["entries"] == 2 * N and stats["runs"][0]["model"] == "scripted"
    assert "80 answers" in evalrun("cache", "stats").stdout

    asked = len(chat_server.bodies)
    same = json.loads(evalrun("cache", "explain", suite, "q3", "--json").stdout)
    assert [each["cached"] for each in same] == [True, True]
    assert same[0]["nearest"]["differs"] == [
        {"part": "messages[0]", "here": "this text", "there": "another text"}
    ], "the other prompt's"
    change = "models.0.params.max_tokens=9"
    (other,) = json.loads(
        evalrun("cache", "explain", suite, "q3", "--run", "served-plain", "--set", change, "--json").stdout
    )
    assert not other["cached"]
    assert other["nearest"]["differs"] == [{"part": "params.max_tokens", "here": 9, "there": 8}]
    text = evalrun("cache", "explain", suite, "q3", "--set", change).stdout
    assert "not in the cache" in text and "params.max_tokens: 9 here, 8 there" in text
    assert len(chat_server.bodies) == asked

    assert evalrun(suite, "--no-report", "--set", change, "--prompts", "plain").returncode == 0
    (latest,) = json.loads(evalrun("cache", "explain", "latest", "q3", "--json").stdout)
    assert latest["cached"] and latest["nearest"]["differs"][0]["part"] == "params.max_tokens"
    unknown = evalrun("cache", "explain", "latest", "q99")
    assert unknown.returncode == 2 and "no sample 'q99'" in unknown.stderr

    assert (
        json.loads(evalrun("cache", "clear", "--model", "nobody", "--yes", "--json").stdout)["deleted"] == 0
    )
    assert evalrun("cache", "clear").returncode != 0, "it asks first"
    assert json.loads(evalrun("cache", "clear", "--yes", "--json").stdout)["deleted"] == 3 * N


def test_a_sweep_s_random_requests_are_explained_with_their_seeds(
    project: Path, chat_server: ChatServer
) -> None:
    models = _model(chat_server, params={"temperature": 1})
    suite = write_suite(project, chat_server, models=models, repeats=2)
    assert evalrun(suite, "--no-report", "--prompts", "plain").returncode == 0
    found = json.loads(evalrun("cache", "explain", "latest", "q5", "--json").stdout)
    assert [(each["repeat"], each["cached"]) for each in found] == [(0, True), (1, True)]
    assert [part["part"] for part in found[0]["nearest"]["differs"]] == ["repeat", "seed"]
