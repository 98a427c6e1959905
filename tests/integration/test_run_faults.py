"""What happens to a sweep when the disk is full or its user is in a hurry."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.integration.test_sweep import N, correct, metric, write_suite
from tests.program import evalrun
from tests.recorded import recorded_suite, yes_no
from tests.servers import ChatServer


def test_a_disk_that_fills_while_journalling_loses_nothing_that_was_written(
    project: Path, chat_server: ChatServer
) -> None:
    """A limit on the size of files does what a full disk does: the write fails in its middle."""
    chat_server.answer = lambda body: "so " * 10_000 + correct(body)
    suite = write_suite(project, chat_server)
    command = [sys.executable, "-m", "evalrun", str(suite), "--no-report", "--no-cache", "--prompts", "plain"]
    full = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000)),
    )
    assert full.returncode == 3, full.stderr
    assert "cannot write the journal" in full.stderr and "Traceback" not in full.stderr
    (journal,) = (project / ".evalrun").glob("sweeps/*/runs/*/journal.jsonl")
    written = {json.loads(line)["sample_id"] for line in journal.read_bytes().split(b"\n")[:-1]}
    assert 10 <= len(written) < N
    sent = len(chat_server.bodies)
    done = evalrun(suite, "--no-report", "--no-cache", "--prompts", "plain", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["resumed"] and metric(result["runs"][0], "numeric")["value"] == 1.0
    asked = {f"q{question.split(' ')[0]}" for question in chat_server.questions[sent:]}
    assert not asked & written and len(asked | written) == N


def test_a_second_ctrl_c_ends_at_once(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = correct
    suite = write_suite(project, chat_server)
    chat_server.delay_s = 60
    process = subprocess.Popen(
        [sys.executable, "-m", "evalrun", str(suite), "--no-report", "--no-cache"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 60
    while len(chat_server.bodies) < 4 and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None, "the first waits for what is in flight"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and "same command" in output + errors
    chat_server.delay_s = 0
    done = evalrun(suite, "--no-report", "--no-cache", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["resumed"]


def test_a_deadline_says_how_much_of_it_was_waiting(project: Path, chat_server: ChatServer) -> None:
    from aiohttp import web

    async def behaviour(body: object, request: object) -> web.StreamResponse:
        return web.json_response({"error": "busy"}, status=429, headers={"Retry-After": "100"})

    chat_server.behaviour = behaviour
    performance = {"concurrency": 4, "timeout_s": 5, "retries": 3}
    suite = write_suite(project, chat_server, performance=performance)
    assert evalrun(suite, "--no-report", "--limit", "2", "--prompts", "plain").returncode in (0, 3)
    (folder,) = (project / ".evalrun").glob("sweeps/*")
    rows = _rows(folder)
    assert len(rows) == 2
    assert all("would pass the 5 s of timeout_s" in row["error"] for row in rows)


def _rows(folder: Path) -> list[dict[str, str]]:
    import pyarrow.parquet as pq

    (path,) = folder.glob("runs/*/samples.parquet")
    rows: list[dict[str, str]] = pq.read_table(path, columns=["sample_id", "error"]).to_pylist()
    return rows


def test_the_last_line_counts_what_failed_to_the_end(project: Path, chat_server: ChatServer) -> None:
    async def refuse(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": "no"}, status=400)

    chat_server.behaviour = refuse
    suite = write_suite(project, chat_server)
    stopped = evalrun(suite, "--no-report", "--no-cache", "--prompts", "plain")
    assert stopped.returncode == 3 and "failures alike in a row" in stopped.stderr
    (journal,) = (project / ".evalrun").glob("sweeps/*/runs/*/journal.jsonl")
    failed = len(journal.read_bytes().splitlines())
    (line,) = [line for line in stopped.stderr.splitlines() if line.startswith("stopped: ")]
    assert f"stopped: {failed} of " in line and f"{failed} errors" in line


def test_a_template_that_leaves_the_sandbox_in_the_last_row_is_refused_before_anything_is_sent(
    project: Path, chat_server: ChatServer
) -> None:
    """By a name that only its rendering makes, so that reading the template does not show it."""
    suite = write_suite(project, chat_server)
    plain = "{{ a }} + {{ b }}"
    assert plain in suite.read_text()
    late = "{% if a == 11 %}{{ a|attr('__cla' ~ 'ss__') }}{% endif %}"
    suite.write_text(suite.read_text().replace(plain, late + plain))
    refused = evalrun(suite, "--no-report", "--no-cache")
    assert refused.returncode == 2 and chat_server.bodies == []
    assert "__class__" in refused.stderr and "Traceback" not in refused.stderr


def test_a_terminal_that_knows_only_ascii_ends_no_command(project: Path, chat_server: ChatServer) -> None:
    suite = write_suite(project, chat_server, description="Größer als ½")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    for command in (["plan", str(suite)], ["list"]):
        done = subprocess.run(
            [sys.executable, "-m", "evalrun", *command],
            capture_output=True,
            timeout=120,
            check=False,
            env=environment,
        )
        assert b"UnicodeEncodeError" not in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.parametrize("kilobytes", [150_000, 160_000, 170_000, 200_000, 400_000])
def test_too_little_memory_ends_in_one_message(tmp_path: Path, kilobytes: int) -> None:
    suite = recorded_suite(tmp_path, yes_no([True] * 4), ["m"])

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (kilobytes * 1024, kilobytes * 1024))

    done = subprocess.run(
        [sys.executable, "-m", "evalrun", str(suite), "-q", "--no-report", "--store", str(tmp_path / "s")],
        capture_output=True, text=True, check=False, preexec_fn=limited, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    # What native code ends by itself is out of our hands; what comes of Python is exit code 3 and a remedy.
    assert done.returncode in (0, 127, -6) or "OpenBLAS" in done.stderr or "too little memory" in done.stderr
