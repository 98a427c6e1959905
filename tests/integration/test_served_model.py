"""A model that was replaced behind its endpoint: the suite is the same, and all says that it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.program import evalrun
from tests.servers import ChatServer, completion


@pytest.fixture
def suite(project: Path, chat_server: ChatServer) -> Path:
    async def answer(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        named = json.loads((project / "served.json").read_text())
        return web.json_response({**completion("yes"), **named})

    chat_server.behaviour = answer
    rows = [{"id": f"r{at}", "q": f"q{at}", "t": "yes"} for at in range(12)]
    (project / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = project / "suite.yaml"
    path.write_text(
        f"name: served\nmodels: [{{id: m, provider: openai_compatible, base_url: '{chat_server.base_url}',"
        " model: x}]\nprompts: [{id: p, text: '{{ q }}'}]\n"
        "datasets: [{id: d, path: rows.jsonl, key: id, target: t}]\nscorers: [exact_match]\n"
        "performance: {stream: false}\nbaseline: first\ngates:\n  - served_model: same\n"
    )
    return path


def night(suite: Path, **named: str) -> dict[str, Any]:
    (suite.parent / "served.json").write_text(json.dumps(named))
    done = evalrun(suite, "--no-report", "--quiet", "--no-cache", "--json")
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"model": "served-1"}, {"model": "served-2"}, "served model served-2, before served-1"),
        (
            {"model": "a", "system_fingerprint": "fp_1"},
            {"model": "a", "system_fingerprint": "fp_2"},
            "system_fingerprint fp_2, before fp_1",
        ),
    ],
)
def test_another_model_behind_the_endpoint(
    suite: Path, before: dict[str, str], after: dict[str, str], said: str
) -> None:
    first = night(suite, **before)
    assert first["exit_code"] == 0, "the first night has nothing to compare with"
    same = night(suite, **before)
    assert [gate["verdict"] for gate in same["gates"]] == ["pass"]
    changed = night(suite, **after)
    assert changed["exit_code"] == 1 and changed["gates"][0]["reason"] == said
    diff = evalrun("diff", same["sweep"], changed["sweep"])
    assert said.split(",")[0].split()[-1] in diff.stdout
    assert not json.loads(evalrun("diff", first["sweep"], same["sweep"], "--json").stdout)["models"]
    compared = json.loads(evalrun("compare", same["sweep"], changed["sweep"], "--json").stdout)
    assert said in json.dumps(compared)
    lead = " ".join(evalrun("compare", same["sweep"], changed["sweep"]).stdout.split())
    assert "has the same answers" in lead and "but what served it changed." in lead
    assert "what served it" not in evalrun("compare", first["sweep"], same["sweep"]).stdout
    trend = evalrun("trend", "served", "--metric", "exact_match")
    assert said in trend.stdout and trend.stdout.count("before") == 1
    page = suite.parent / "t.html"
    assert evalrun("trend", "served", "--metric", "exact_match", "--html", page).returncode == 0
    assert said in page.read_text()
    assert any(said in each for each in changed["previous"]["changed"])


def test_a_server_that_does_not_name_itself(suite: Path) -> None:
    night(suite, model="")
    assert [gate["verdict"] for gate in night(suite, model="")["gates"]] == ["inconclusive"]
