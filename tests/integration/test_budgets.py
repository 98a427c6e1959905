"""Limits by the minute and budgets, as the program keeps them."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.integration.test_sweep import N, correct, metric, write_suite
from tests.program import evalrun
from tests.servers import ChatServer, completion


def _model(server: ChatServer, **changes: Any) -> list[dict[str, Any]]:
    plain = {
        "id": "served",
        "provider": "openai_compatible",
        "base_url": server.base_url,
        "model": "scripted",
        "params": {"temperature": 0, "max_tokens": 8},
    }
    return [{**plain, **changes}]


def test_limits_hold_a_run_back_and_its_latencies_do_not_show_it(
    project: Path, chat_server: ChatServer
) -> None:
    times: list[float] = []

    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        times.append(time.monotonic())
        return web.json_response(completion(correct(body)))

    chat_server.behaviour = behaviour
    suite = write_suite(
        project,
        chat_server,
        models=_model(chat_server, limits={"requests_per_minute": 600}, timeout_s=1),
    )
    done = evalrun(suite, "--prompts", "plain", "--no-report", "--json")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)["runs"][0]
    assert times[-1] - times[0] > (N - 12) / 10 - 0.2, "ten a second, after a second's worth at once"
    queue = metric(run, "performance.client_queue_s.p50")["value"]
    assert queue > 0.25, "four at a time, ten a second"
    assert metric(run, "performance.e2e_s.p50")["value"] < queue / 2
    assert "limits of 600 requests a minute" in metric(run, "performance.requests_per_s")["note"]
    assert run["counts"]["failed"] == 0, "a second of timeout_s is not used up by waiting for the limit"
    (document,) = (project / ".evalrun").glob("sweeps/*/runs/*/run.json")
    limits = json.loads(document.read_text())["timings"]["limits"]
    assert limits["requests_per_minute"] == 600 and limits["held_back"] > 10 and limits["waited_s"] > 1


def test_raising_the_limits_goes_on_with_the_same_sweep(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = correct
    models = _model(chat_server, limits={"tokens_per_minute": 100_000})
    suite = write_suite(project, chat_server, models=models, budget={"tokens": 100})
    stopped = json.loads(evalrun(suite, "--no-report", "--json").stdout)
    models = _model(chat_server)
    suite = write_suite(project, chat_server, models=models)
    done = json.loads(evalrun(suite, "--no-report", "--json", "--no-cache").stdout)
    assert done["sweep"] == stopped["sweep"] and done["status"] == "complete"
    assert len(chat_server.bodies) == 2 * N, "and nothing was asked twice"


@pytest.mark.parametrize("unit", ["tokens", "usd"])
def test_a_spent_budget_stops_and_the_same_command_goes_on(
    project: Path, chat_server: ChatServer, unit: str
) -> None:
    """Every answer takes 10 tokens: 7 at a dollar a million, 3 at two."""
    chat_server.answer = correct
    price = {"input_per_million_usd": 10_000, "output_per_million_usd": 20_000}
    budget = {"tokens": 200} if unit == "tokens" else {"usd": 20 * 0.13}
    suite = write_suite(project, chat_server, models=_model(chat_server, price=price), budget=budget)
    first = evalrun(suite, "--no-report", "--json", "--no-cache")
    assert first.returncode == 3, first.stderr
    sent = len(chat_server.bodies)
    assert 20 <= sent <= 24, "those in flight are answered: they are paid for"
    result = json.loads(first.stdout)
    assert result["status"] == "incomplete"
    (message,) = result["errors"]
    assert "budget is spent" in message and f"--set budget.{unit}=" in message
    assert ("of 200 tokens" in message) if unit == "tokens" else ("of 2.6 US dollars" in message)

    again = evalrun(suite, "--no-report", "--json", "--no-cache")
    assert again.returncode == 3 and len(chat_server.bodies) == sent, "what earlier parts spent counts"
    more = 600 if unit == "tokens" else 60 * 0.13
    third = evalrun(suite, "--no-report", "--json", "--no-cache", "--set", f"budget.{unit}={more}")
    assert third.returncode == 3
    assert 60 <= len(chat_server.bodies) <= 64, "a finished run counts, and what is unfinished"
    last = evalrun(suite, "--no-report", "--json", "--no-cache", "--set", f"budget.{unit}={2 * more}")
    assert last.returncode == 0, last.stderr
    done = json.loads(last.stdout)
    assert done["sweep"] == result["sweep"] and len(chat_server.bodies) == 2 * N
    assert all(metric(run, "numeric")["value"] == 1.0 for run in done["runs"])


def test_a_budget_that_is_spent_by_the_last_answer_stops_nothing(
    project: Path, chat_server: ChatServer
) -> None:
    chat_server.answer = correct
    suite = write_suite(project, chat_server, budget={"tokens": 2 * N * 10})
    done = evalrun(suite, "--no-report", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 2
    again = evalrun(suite, "--no-report", "--json", "--set", "budget.tokens=1")
    assert again.returncode == 0, "cached answers cost nothing"


def test_minutes_are_a_budget_too(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = correct
    chat_server.delay_s = 0.2
    suite = write_suite(project, chat_server, budget={"minutes": 0.02})
    done = evalrun(suite, "--no-report", "--json")
    assert done.returncode == 3, done.stderr
    assert "of 0.02 minutes" in json.loads(done.stdout)["errors"][0]
    assert 4 <= len(chat_server.bodies) < 2 * N
    sent = len(chat_server.bodies)
    assert evalrun(suite, "--no-report", "--json").returncode == 3
    assert len(chat_server.bodies) == sent, "the first part used them up"


def test_dollars_without_prices_and_limits_without_requests_are_refused(
    project: Path, chat_server: ChatServer
) -> None:
    recorded = {"id": "old", "provider": "recorded", "column": "sum", "limits": {"requests_per_minute": 3}}
    suite = write_suite(
        project, chat_server, models=[*_model(chat_server), recorded], budget={"usd": 1, "minutes": 3}
    )
    done = evalrun("validate", suite)
    assert done.returncode == 2
    assert "budget.usd needs the price of model 'served'" in done.stderr
    assert "model 'old' has limits" in done.stderr
    assert "'old', which" not in done.stderr, "recorded answers cost nothing"
    wrong: dict[str, Any]
    for wrong in ({"budget": {}}, {"budget": {"usd": 0}}, {"models": _model(chat_server, limits={})}):
        assert evalrun("validate", write_suite(project, chat_server, **wrong)).returncode == 2
    assert chat_server.bodies == []


@pytest.mark.parametrize("unit", ["tokens", "usd"])
def test_no_more_is_in_flight_than_the_budget_bears(
    project: Path, chat_server: ChatServer, unit: str
) -> None:
    """Forty could be asked at once; what the first of them may cost is put by before the next is sent."""
    asking = most = 0

    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        nonlocal asking, most
        asking += 1
        most = max(most, asking)
        await asyncio.sleep(0.1)
        asking -= 1
        usage = {"prompt_tokens": 5, "completion_tokens": 95, "total_tokens": 100}
        return web.json_response({**completion(correct(body)), "usage": usage})

    chat_server.behaviour = behaviour
    price = {"input_per_million_usd": 10_000, "output_per_million_usd": 10_000}
    params = {"temperature": 0, "max_tokens": 95}
    limit = 1000 if unit == "tokens" else 10
    models = _model(chat_server, params=params, price=price)
    suite = write_suite(
        project, chat_server, models=models, budget={unit: limit}, performance={"concurrency": 40}
    )
    done = evalrun(suite, "--no-report", "--json", "--no-cache", "--prompts", "plain")
    assert done.returncode == 3, done.stderr
    assert 2 <= most <= 10 and len(chat_server.bodies) == 10, "ten answers are the budget, and not one more"


def test_a_request_that_may_cost_more_than_the_budget_is_sent_alone(
    project: Path, chat_server: ChatServer
) -> None:
    chat_server.answer = correct
    params = {"temperature": 0, "max_tokens": 100_000}
    models = _model(chat_server, params=params)
    suite = write_suite(project, chat_server, models=models, budget={"tokens": 35})
    done = evalrun(suite, "--no-report", "--json", "--no-cache", "--prompts", "plain")
    assert done.returncode == 3, done.stderr
    assert len(chat_server.bodies) == 4, "ten tokens each: the fourth spends the budget"
