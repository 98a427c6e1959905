"""`evalrun probe` against a real server: turns, outages, one message an episode, kills."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.program import evalrun
from tests.servers import ChatServer

import evalrun as package

SUITE = """
name: triage
models: [{id: live, provider: openai_compatible, base_url: "%s", model: m}]
prompts: [{id: p, messages: [{role: user, content: "{{ q }}"}]}]
datasets: [{id: d, rows: [{q: a, a: "42"}, {q: b, a: "42"}, {q: c, a: "43"}], target: "{{ a }}"}]
scorers: [exact_match]
performance: {timeout_s: 20}
probe: {every: 5m, %s}
"""


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


@pytest.fixture
def suite(server: ChatServer, tmp_path: Path) -> Path:
    path = tmp_path / "probe.yaml"
    path.write_text(SUITE % (server.base_url, "env: prod"))
    return path


def program(suite: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """`evalrun probe SUITE WORDS` with a store of its own."""
    return evalrun("probe", suite, *words, cwd=suite.parent)


def turn(suite: Path, slot: float, *more: str) -> tuple[int, dict[str, Any]]:
    """One turn in a slot; exit code and document."""
    done = program(suite, "--once", "--slot", str(slot), "--json", "--since", "9999d", *more)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def bad(server: ChatServer) -> None:
    """The server answers 500 from now on."""

    async def fail(_: Any, __: Any) -> web.StreamResponse:
        return web.Response(status=500)

    server.behaviour = fail


DAY = 1_790_000_000 // 86400 * 86400.0


def test_turns_of_a_day_are_one_sweep_that_outages_do_not_end(server: ChatServer, suite: Path) -> None:
    plain = server.behaviour
    code, first = turn(suite, DAY)
    assert (code, first["status"], first["ok"], first["availability"]) == (0, "up", True, 1.0)
    assert first["score"] == pytest.approx(2 / 3)
    assert first["e2e_s"] > 0
    bad(server)
    code, second = turn(suite, DAY + 300)
    assert (code, second["status"], second["availability"]) == (1, "down", 0.5)
    assert second["turns"][0]["errors"] == {"server": 3}
    server.behaviour = plain
    asked = len(server.bodies)
    code, third = turn(suite, DAY + 1200)
    assert len(server.bodies) == asked + 3
    assert (code, third["sweep"], third["turn"]) == (0, first["sweep"], 3)
    assert [(gap["slots"], gap["why"]) for gap in third["missed"]] == [(2, "nobody probed")]
    assert [outage["over"] for outage in third["outages"]] == [True]
    assert third["outages"][0]["turns"] == 1
    _, fourth = turn(suite, DAY + 86400)
    assert fourth["sweep"] != first["sweep"]
    shown = json.loads(evalrun("show", first["sweep"], "--json", cwd=suite.parent).stdout)
    counts = shown["runs"][0]["counts"]
    assert (counts["samples"], counts["failed"]) == (9, 3)
    assert shown["status"] == "complete"
    assert evalrun("audit", "verify", cwd=suite.parent).returncode == 0
    assert evalrun("list", "--json", cwd=suite.parent).returncode == 0


def test_a_server_that_is_gone_is_down_and_its_requests_are_failed_samples(
    server: ChatServer, suite: Path
) -> None:
    port = server.port
    _, first = turn(suite, DAY)
    server.stop()
    code, second = turn(suite, DAY + 300)
    assert (code, second["status"]) == (1, "down")
    assert second["turns"][0]["errors"] == {"connection": 3}
    again = ChatServer()
    again.port = port
    with again:
        code, third = turn(suite, DAY + 600)
    assert (code, third["sweep"]) == (0, first["sweep"])
    counts = json.loads(evalrun("show", "latest", "--json", cwd=suite.parent).stdout)["runs"][0]["counts"]
    assert (counts["samples"], counts["failed"]) == (9, 3)


def test_an_unreachable_control_makes_a_failed_turn_unknown(server: ChatServer, suite: Path) -> None:
    control = f"control: 'http://127.0.0.1:{server.port}/'"
    suite.write_text(SUITE % (server.base_url, control))
    bad(server)
    assert turn(suite, DAY)[1]["status"] == "down"
    suite.write_text(SUITE % (server.base_url, "control: 'http://127.0.0.1:9/'"))
    code, document = turn(suite, DAY + 300)
    assert (code, document["status"]) == (3, "unknown")
    assert [outage["turns"] for outage in document["outages"]] == [1]


def test_an_episode_is_posted_once_and_acknowledged(server: ChatServer, suite: Path, tmp_path: Path) -> None:
    posted: list[Any] = []

    async def hook(request: web.Request) -> web.Response:
        posted.append(await request.json())
        return web.Response()

    async def start() -> tuple[web.AppRunner, int]:
        app = web.Application()
        app.router.add_post("/hook", hook)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    runner, port = asyncio.run_coroutine_threadsafe(start(), server._loop).result(10)
    alerts = f'alerts: {{when: ["exact_match < 0.5"], webhook: "http://127.0.0.1:{port}/hook"}}\n'
    suite.write_text(SUITE % (server.base_url, "slo: {objective: 0.99}") + alerts)
    bad(server)
    for at in range(7):
        code, document = turn(suite, DAY + 300 * at)
    assert code == 1
    names = [alert["name"] for alert in document["alerts"] if alert["run"] == "live-p-d"]
    assert "SLO fast burn" in names
    assert len(posted) == len(document["alerts"])
    assert sum("fast burn" in each["text"] for each in posted) == 1
    done = program(suite, "--acknowledge", "SLO fast burn")
    assert "acknowledged: SLO fast burn" in done.stdout
    _, document = turn(suite, DAY + 2100)
    states = {alert["name"]: alert["state"] for alert in document["alerts"]}
    assert states["SLO fast burn"] == "acknowledged"
    assert program(suite, "--acknowledge", "nothing").returncode == 2
    asyncio.run_coroutine_threadsafe(runner.cleanup(), server._loop).result(10)


def test_status_is_a_dead_man_s_switch_and_draws_the_page(suite: Path, tmp_path: Path) -> None:
    done = program(suite, "--status")
    assert (done.returncode, "no turn was ever taken" in done.stdout) == (1, True)
    now = time.time() // 300 * 300
    turn(suite, now)
    page = tmp_path / "probe.html"
    done = program(suite, "--status", "--report", page)
    assert done.returncode == 0, done.stdout
    text = page.read_text()
    assert "live-p-d is up" in text
    assert '"uptime"' in text
    assert program(suite, "--status", "--json").stdout.startswith("{")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("probe: {every: 5x}", "5x"),
        ("probe: {slo: {objective: 1}}", "less than 1"),
        ("probe: {slo: {objective: 0.9, good: 'os.system(1)'}}", "os.system"),
        ("probe: {control: here}", "http"),
        ("load: {concurrency: [1]}", "a probe has no load"),
    ],
)
def test_what_cannot_be_probed_is_one_message(suite: Path, change: str, said: str) -> None:
    suite.write_text(suite.read_text().replace("probe: {every: 5m, env: prod}", change))
    done = program(suite, "--once")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_suite_that_is_wrong_ends_the_prober(suite: Path) -> None:
    suite.write_text("name: broken")
    source = str(Path(package.__file__).parents[1])
    command = [sys.executable, "-m", "evalrun", "probe", str(suite), "--every", "1h"]
    done = subprocess.run(
        command, cwd=suite.parent, env={**os.environ, "PYTHONPATH": source}, capture_output=True, check=False
    )
    assert done.returncode == 2


def test_wrong_options_are_usage_errors(suite: Path) -> None:
    assert program(suite, "--once", "--status").returncode == 2
    assert program(suite, "--every", "soon").returncode == 2
    assert program(suite, "--status", "--since", "ever").returncode == 2


def _wait(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_killed_prober_goes_on_with_the_day_s_sweep_and_stays_small(
    server: ChatServer, suite: Path, tmp_path: Path
) -> None:
    source = str(Path(package.__file__).parents[1])
    server.delay_s = 30.0
    environment = {**os.environ, "PYTHONPATH": source}
    command = [sys.executable, "-m", "evalrun", "probe", str(suite), "--every", "1h"]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, start_new_session=True)
    _wait(lambda: server.bodies)
    status = Path(f"/proc/{process.pid}/status").read_text()
    resident_kb = int(status.split("VmRSS:")[1].split()[0])
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert resident_kb < 50_000
    server.delay_s = 0.0
    slot = time.time() // 3600 * 3600
    code, document = turn(suite, slot + 3600, "--every", "1h")
    assert (code, document["turn"], document["ended"]) == (0, 2, 1)
    assert len(list((tmp_path / ".evalrun" / "sweeps").iterdir())) == 1 or slot % 86400 == 82800
    assert document["runs"][0]["availability"]["n"] == 3
