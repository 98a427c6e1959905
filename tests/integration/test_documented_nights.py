"""Nights of the jobs that the docs give, under the rules of their runners: the first, an outage, a changed
model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.ci_runner import Night, Runner, documented
from tests.program import evalrun
from tests.servers import ChatServer, completion

ROWS = 120
SUITE = {
    "name": "nightly",
    "prompts": [{"id": "p", "text": "{{ q }}"}],
    "datasets": [{"id": "d", "path": "rows.jsonl", "key": "id", "target": "t"}],
    "scorers": ["exact_match"],
    "performance": {"stream": False, "retries": 0, "concurrency": 1},
    "gates": ["exact_match no worse than baseline by 0.02", "exact_match >= 0.5"],
}


class Served:
    """A model behind an endpoint: right `right` times of ten, down after `left` answers."""

    def __init__(self, server: ChatServer) -> None:
        self.right, self.left = 9, 10**9
        self.keys: set[str] = set()
        server.behaviour = self.answer

    async def answer(self, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        self.keys.add(request.headers.get("Authorization", ""))
        if self.left <= 0:
            return web.json_response({"error": {"message": "down for the night"}}, status=503)
        self.left -= 1
        at = int(body["messages"][-1]["content"].removeprefix("q"))
        return web.json_response(completion("yes" if at % 10 < self.right else "no"))


@pytest.fixture
def served(chat_server: ChatServer) -> Served:
    return Served(chat_server)


@pytest.fixture(params=["github", "gitlab"])
def job(
    request: pytest.FixtureRequest,
    project: Path,
    chat_server: ChatServer,
    served: Served,
    charts_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Runner, Callable[[], Night]]:
    """A runner, and what runs one night of the documented job on it."""
    monkeypatch.setenv("EVALRUN_CACHE", str(charts_cache))
    suites = project / "repository" / "suites"
    suites.mkdir(parents=True)
    rows = [{"id": f"r{at}", "q": f"q{at}", "t": "yes"} for at in range(ROWS)]
    (suites / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = {"id": "m", "provider": "openai_compatible", "base_url": chat_server.base_url, "model": "m"}
    suite = {**SUITE, "models": [{**model, "api_key_env": "MY_KEY"}]}
    (suites / "nightly.yaml").write_text(json.dumps(suite))
    runner = Runner(project / "runner", project / "repository", {"MY_KEY": "k-of-the-project"})
    if request.param == "github":
        document = documented("GitHub Actions")
        return runner, lambda: runner.github(document)
    document = documented("GitLab CI")
    return runner, lambda: runner.gitlab(document)


def history(runner: Runner) -> list[tuple[str, int]]:
    """Status and exit code of the sweeps that were kept, the first first."""
    listed = json.loads(evalrun("list", "--json", "--store", runner.store()).stdout)
    return [(row["status"], row["exit_code"]) for row in reversed(listed)]


def test_a_good_night_an_outage_and_a_changed_model(
    job: tuple[Runner, Callable[[], Night]], served: Served
) -> None:
    runner, run = job
    first = run()
    assert not first.failed, first.output
    assert "it is this sweep from now on" in first.output
    assert runner.installed == ["install evalrun-llm"]
    assert served.keys == {"Bearer k-of-the-project"}

    served.left = 48
    outage = run()
    assert outage.failed and "down for the night" in outage.output

    served.left, served.right = 10**9, 4
    changed = run()
    assert changed.failed
    assert "failures" in changed.artifacts["gates.xml"] and "report.html" in changed.artifacts
    assert history(runner) == [("complete", 0), ("incomplete", 3), ("complete", 1)]
    shown = json.loads(evalrun("show", "latest", "--json", "--store", runner.store()).stdout)
    (value,) = [metric["value"] for metric in shown["runs"][0]["metrics"] if metric["name"] == "exact_match"]
    assert value == 0.4, "nothing of the night before is in it"

    served.right = 9
    assert not run().failed, "and the baseline is still that of the first night"


@pytest.mark.parametrize("job", ["github"], indirect=True)
def test_a_first_night_that_fails_does_not_become_the_baseline(
    job: tuple[Runner, Callable[[], Night]], served: Served
) -> None:
    runner, run = job
    served.left = 0
    assert run().failed
    served.left, served.right = 10**9, 3
    assert run().failed, "exact_match >= 0.5 does not hold: this is no baseline"
    served.right = 9
    assert not run().failed
    assert [code for _, code in history(runner)] == [3, 1, 0]
    baselines = json.loads(evalrun("baseline", "list", "--json", "--store", runner.store()).stdout)
    assert [each["name"] for each in baselines] == ["main"]
