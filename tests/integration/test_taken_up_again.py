"""An unfinished sweep is gone on with only while it is of one piece with what is asked now."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.program import evalrun
from tests.servers import ChatServer, completion

from evalrun.errors import UserError
from evalrun.sweep.resume import seconds_of
from evalrun.tracking.store import Store

ROWS = 40


class Server:
    """Answers as one model until it is out; then fails with 503."""

    def __init__(self, chat: ChatServer) -> None:
        self.chat, self.model, self.fingerprint, self.left = chat, "served-1", "fp_a", 10**9
        self.asked = 0
        chat.behaviour = self.answer

    async def answer(self, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.left <= 0:
            return web.json_response({"error": {"message": "down for the night"}}, status=503)
        self.left -= 1
        document = {**completion("yes"), "model": self.model, "system_fingerprint": self.fingerprint}
        return web.json_response(document)


@pytest.fixture
def server(chat_server: ChatServer) -> Server:
    return Server(chat_server)


@pytest.fixture
def suite(project: Path, server: Server) -> Path:
    rows = [{"id": f"r{at}", "q": f"q{at}", "t": "yes"} for at in range(ROWS)]
    (project / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    served = {"provider": "openai_compatible", "base_url": server.chat.base_url, "model": "m"}
    document = {
        "name": "nights",
        "models": [{"id": "m", **served}],
        "prompts": [{"id": "p", "text": "{{ q }}"}],
        "datasets": [{"id": "d", "path": "rows.jsonl", "key": "id", "target": "t"}],
        "scorers": ["exact_match"],
        "performance": {"stream": False, "retries": 0, "concurrency": 1},
    }
    path = project / "suite.yaml"
    path.write_text(json.dumps(document))
    return path


def night(suite: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    done = evalrun(suite, "--no-report", "--quiet", "--no-cache", "--json", *words)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def age(hours: float) -> None:
    """Let the newest sweep be that much older: its trail and its files."""
    folder = Store(Path(".evalrun")).folders()[0]
    then = time.time() - hours * 3600
    trail = folder.path / "events.jsonl"
    lines = trail.read_text().splitlines(keepends=True)
    now = json.loads(lines[-1])["ts"]
    earlier = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
    trail.write_text("".join([*lines[:-1], lines[-1].replace(now, earlier)]))
    for path in folder.path.glob("runs/*/*"):
        os.utime(path, (then, then))


def test_within_hours_it_goes_on_and_says_so(suite: Path, server: Server) -> None:
    server.left = 15
    code, first, _ = night(suite)
    assert code == 3 and first["status"] == "incomplete"
    server.left, server.asked = 10**9, 0
    age(3)
    code, second, stderr = night(suite)
    assert (code, second["sweep"], second["resumed"]) == (0, first["sweep"], True)
    assert server.asked == ROWS - 15
    assert "is taken up again: 15 of 40 samples are from then" in stderr


def test_last_nights_half_is_not_mixed_with_tonights(suite: Path, server: Server) -> None:
    server.left = 15
    first = night(suite)[1]
    server.left, server.asked = 10**9, 0
    age(23)
    code, second, stderr = night(suite)
    assert code == 0 and second["sweep"] != first["sweep"] and not second["resumed"]
    assert server.asked == ROWS and "of 23 h ago is not taken up again" in stderr
    assert evalrun("show", first["sweep"]).returncode == 0, "the night of the outage stays in the history"


def test_the_span_can_be_said(suite: Path, server: Server) -> None:
    server.left = 15
    first = night(suite)[1]
    server.left = 10**9
    age(23)
    assert night(suite, "--resume-within", "1d")[1]["sweep"] == first["sweep"]
    assert [seconds_of(span) for span in ("90m", "12h", "2d", "0", "1.5")] == [5400, 43200, 172800, 0, 5400]
    with pytest.raises(UserError, match="no span of time"):
        seconds_of("soon")


@pytest.mark.parametrize("changed", ["model", "fingerprint"])
def test_another_served_model_takes_nothing_over(suite: Path, server: Server, changed: str) -> None:
    server.left = 15
    first = night(suite)[1]
    server.left, server.asked = 10**9, 0
    setattr(server, changed, "another")
    code, second, stderr = night(suite)
    assert code == 0 and second["sweep"] == first["sweep"]
    assert server.asked == ROWS, "what the other had answered was asked again, and no more"
    assert "another" in stderr and "0 of 40 samples are from then" in stderr
    answered = Store(Path(".evalrun")).folders()[0].run("m-p-d").details.answered_by
    assert all(sum(counts.values()) == ROWS for counts in (answered.models, answered.fingerprints))
    assert answered.model_changes == answered.fingerprint_changes == 0


def test_a_total_outage_stays_and_the_next_night_begins_anew(suite: Path, server: Server) -> None:
    server.left = 0
    code, first, stderr = night(suite)
    assert code == 3 and "down for the night" in stderr
    server.left = 10**9
    code, second, _ = night(suite)
    assert code == 0 and second["sweep"] != first["sweep"]
    listed = json.loads(evalrun("list", "--json").stdout)
    assert [row["status"] for row in listed] == ["complete", "incomplete"]
