"""Running again on save, and looking on while another process runs."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from rich.console import Console
from tests.program import evalrun
from tests.recorded import document_of, output_of
from tests.servers import ChatServer

from evalrun.reports.progress import LineProgress
from evalrun.sweep.follow import follow
from evalrun.sweep.watch import files_of, state
from evalrun.tracking.store import Store

PATIENCE_S = 120


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)


def served(folder: Path, server: ChatServer, n: int = 6) -> Path:
    (folder / "prompts").mkdir()
    (folder / "prompts" / "ask.j2").write_text("Ask: {% include 'part.j2' %}\n")
    (folder / "prompts" / "part.j2").write_text("{{ text }}\n")
    rows = [{"text": f"question {at}", "y": "42"} for at in range(n)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = {
        "name": "served",
        "models": [{"id": "m", "provider": "openai_compatible", "base_url": server.base_url, "model": "x"}],
        "prompts": [{"id": "kept", "text": "{{ text }}"}, {"id": "edited", "file": "prompts/ask.j2"}],
        "datasets": [{"id": "d", "path": "rows.jsonl", "target": "y"}],
        "scorers": ["exact_match"],
        "performance": {"retries": 0, "concurrency": 1},
    }
    path = folder / "suite.yaml"
    path.write_text(json.dumps(suite))
    return path


def test_a_suite_runs_again_when_a_part_of_it_is_saved(project: Path, chat_server: ChatServer) -> None:
    suite = served(project, chat_server)
    with (project / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "evalrun", suite, "--watch", "--no-report", "--quiet"],
            stdout=subprocess.DEVNULL, stderr=said, env={**os.environ}, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(lambda: b"Ctrl-C ends" in (project / "said").read_bytes())
        assert len(chat_server.bodies) == 12
        (project / "prompts" / "part.j2").write_text("Please: {{ text }}\n")
        wait_for(lambda: (project / "said").read_bytes().count(b"Ctrl-C ends") == 2)
        assert b"changed: prompts/part.j2" in (project / "said").read_bytes()
        assert len(chat_server.bodies) == 18, "only what changed is asked again"
        suite.write_text("name: [broken")
        wait_for(lambda: (project / "said").read_bytes().count(b"Ctrl-C ends") == 3)
        assert len(chat_server.bodies) == 18
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
    assert len(document_of("list")) == 2


def test_what_a_suite_is_made_of(project: Path, chat_server: ChatServer) -> None:
    suite = served(project, chat_server)
    (project / "own").mkdir()
    (project / "own" / "code.py").write_text("")
    (project / ".venv").mkdir()
    (project / ".venv" / "no.py").write_text("")
    names = {path.relative_to(project.resolve()).as_posix() for path in files_of(suite) or ()}
    before = state(suite, {})
    suite.write_text("name: [broken")
    assert {path for path, seen in state(suite, before).items() if before[path] != seen} == {suite.resolve()}
    assert names == {"rows.jsonl", "prompts/ask.j2", "prompts/part.j2", "own/code.py"}


def test_a_running_sweep_is_followed(project: Path, chat_server: ChatServer) -> None:
    suite = served(project, chat_server, n=20)
    chat_server.delay_s = 0.1
    process = subprocess.Popen(
        [sys.executable, "-m", "evalrun", "run", suite, "--no-report", "-q"], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        store = Store(project / ".evalrun")
        wait_for(lambda: bool(store.folders()) and store.folders()[0].is_locked())
        wait_for(lambda: (store.folders()[0].path / "sweep.json").exists())
        out = io.StringIO()
        follow(store.folders()[0], LineProgress(Console(file=out, width=200)), pause_s=0.05)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
    text = out.getvalue()
    assert "2 runs, 40 samples" in text
    assert "done: m-kept-d, 20 samples, score 1.00" in text
    assert "done: m-edited-d" in text and "stopped" not in text
    assert "exact_match" in output_of("show", "latest", "--live")


def test_errors_show_their_cause_while_it_runs(project: Path, chat_server: ChatServer) -> None:
    suite = served(project, chat_server)
    plain = chat_server.behaviour

    async def sometimes(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        if body["messages"][-1]["content"].startswith("question 3"):
            return web.json_response({"error": {"message": "the context is too long"}}, status=400)
        return await plain(body, request)

    chat_server.behaviour = sometimes
    said = evalrun("run", suite, "--no-report").stderr
    [line] = [line for line in said.splitlines() if line.startswith("errors: m-kept-d:")]
    assert "the context is too long" in line
    assert said.index(line) < said.index("done: m-kept-d")
