"""`evalrun.run` where an event loop runs already, as in a notebook."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers import ChatServer

import evalrun
from evalrun.errors import UserError

SUITE = """\
name: cell
models: [{{id: m, provider: openai_compatible, base_url: "{base_url}", model: x, concurrency: 2}}]
prompts: [{{id: p, text: "{{{{ q }}}}"}}]
datasets: [{{id: d, path: rows.jsonl, key: id, target: t}}]
scorers: [exact_match]
"""


@pytest.fixture
def ctrl_c_raises() -> Iterator[None]:
    """As in a notebook's kernel. Processes that a shell starts in the background ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def suite(project: Path, chat_server: ChatServer) -> Path:
    rows = ({"id": at, "q": f"q{at}", "t": "42"} for at in range(30))
    (project / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = project / "suite.yaml"
    path.write_text(SUITE.format(base_url=chat_server.base_url))
    return path


def _in_a_cell(suite: Path) -> evalrun.Sweep:
    async def cell() -> evalrun.Sweep:
        return evalrun.run(suite, write_report=False)

    return asyncio.run(cell())


def test_a_sweep_runs_beside_the_loop_that_is_there(suite: Path, chat_server: ChatServer) -> None:
    sweep = _in_a_cell(suite)
    assert sweep.status == "complete"
    assert sweep.runs[0].metric("exact_match")["value"] == 1
    assert len(chat_server.bodies) == 30


def test_an_invalid_suite_is_still_an_error_of_the_user(suite: Path) -> None:
    suite.write_text(suite.read_text().replace("scorers", "scorer"))
    with pytest.raises(UserError, match="Did you mean 'scorers'"):
        _in_a_cell(suite)


@pytest.mark.usefixtures("ctrl_c_raises")
def test_ctrl_c_keeps_what_is_done_and_the_next_run_goes_on(suite: Path, chat_server: ChatServer) -> None:
    pressed: list[int] = []

    def answer(body: object) -> str:
        if len(chat_server.bodies) >= 5 and not pressed:
            pressed.append(len(chat_server.bodies))
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return "42"

    chat_server.answer = answer
    chat_server.delay_s = 0.05
    sweep = _interrupted(suite)
    assert sweep.status == "interrupted"
    assert 5 <= len(chat_server.bodies) < 30
    chat_server.delay_s, chat_server.answer = 0.0, lambda body: "42"
    again = _in_a_cell(suite)
    assert (again.id, again.status, len(chat_server.bodies)) == (sweep.id, "complete", 30)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _interrupted(suite: Path) -> evalrun.Sweep:
    """As in a cell whose loop leaves Ctrl-C to Python: KeyboardInterrupt is raised where the cell waits."""

    async def cell() -> evalrun.Sweep:
        return evalrun.run(suite, write_report=False)

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(cell())
    finally:
        loop.close()
