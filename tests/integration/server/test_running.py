"""A sweep that runs is followed live; the process ends at once with streams open, and outlives `kill -9`."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.team import Running

from evalrun.lines import with_checksum
from evalrun.server.client import Remote, push, tell
from evalrun.tracking.folder import SweepFolder, new_ulid
from evalrun.tracking.store import Store


def _goes_on(sweep: SweepFolder) -> Path:
    """As if the second run were being done: it has a journal and no results yet."""
    run = sweep.path / "runs" / "other-p-d"
    (run / "run.json").unlink()
    (run / "samples.parquet").unlink()
    return run / "journal.jsonl"


def _line(at: int, value: float) -> bytes:
    record: dict[str, Any] = {"sample_id": f"s{at:04d}", "repeat": 0, "status": "scored"}
    return with_checksum(orjson.dumps({**record, "scores": {"exact_match": value}}))


def _events(answer: http.client.HTTPResponse, wanted: str) -> dict[str, Any]:
    """The next event of that name."""
    name = b""
    while line := answer.fp.readline():
        if line.startswith(b"event: "):
            name = line[7:].strip()
        elif line.startswith(b"data: ") and name == wanted.encode():
            found: dict[str, Any] = orjson.loads(line[6:])
            return found
    raise AssertionError(f"no event {wanted}")


def test_the_stream_tells_what_the_journal_holds(team: Running, sweep: SweepFolder) -> None:
    journal = _goes_on(sweep)
    journal.write_bytes(b"".join(_line(at, at % 2) for at in range(6)) + b'{"torn')
    viewer = team.machine("viewer")
    with sweep.lock():
        connection = http.client.HTTPConnection("127.0.0.1", team.port, timeout=30)
        connection.request("GET", f"/api/v1/sweeps/{sweep.ulid}/live", headers=viewer.headers)
        answer = connection.getresponse()
        state = _events(answer, "state")
        run = next(each for each in state["runs"] if each["run"] == "other-p-d")
        assert (run["done"], run["of"], run["scored"], run["score"]["value"]) == (6, 12, 6, 0.5)
        assert run["score"]["ci_low"] < 0.5 < run["score"]["ci_high"]
        journal.write_bytes(b"".join(_line(at, at % 2) for at in range(8)))
        while run["done"] < 8:
            state = _events(answer, "state")
            run = next(each for each in state["runs"] if each["run"] == "other-p-d")
    assert _events(answer, "end")["done"] == 20
    connection.close()


def _start(root: Path) -> tuple[subprocess.Popen[str], int, str]:
    command = [sys.executable, "-m", "evalrun", "serve", "--store", str(root), "--bind", "127.0.0.1:0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = ""
    assert process.stderr is not None
    while "sign-in#" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    port = re.search(r"127\.0\.0\.1:(\d+)", said)
    link = re.search(r"sign-in#(\S+)", said)
    assert port and link
    return process, int(port[1]), link[1]


def test_a_sweep_that_runs_elsewhere_is_followed_and_then_arrives(
    team: Running, start: Callable[..., Running], sweep: SweepFolder, tmp_path: Path
) -> None:
    run = sweep.path / "runs" / "other-p-d"
    whole = shutil.copytree(run, tmp_path / "whole")
    journal = _goes_on(sweep)
    journal.write_bytes(b"".join(_line(at, at % 2) for at in range(6)))
    there = start(root=tmp_path / "there")
    ci = there.machine("editor", "team")
    remote = Remote(there.origin, ci.headers["Authorization"].partition(" ")[2])
    path = f"/api/v1/sweeps/{sweep.ulid}"
    with sweep.lock():
        telling = threading.Thread(target=tell, args=(sweep, remote))
        telling.start()
        while there.machine("viewer").get(f"/s/{sweep.ulid}").status == 404:
            assert telling.is_alive()
        vic = there.person("vic", {"team": "viewer"})
        assert f"/s/{sweep.ulid}".encode() in vic.get("/").body
        assert b"runs elsewhere" in vic.get(f"/s/{sweep.ulid}").body
        assert there.person("eve", {"other": "admin"}).get(f"/s/{sweep.ulid}").status == 404
        connection = http.client.HTTPConnection("127.0.0.1", there.port, timeout=30)
        connection.request("GET", f"{path}/live", headers=vic.headers)
        answer = connection.getresponse()
        assert _events(answer, "state")["done"] == 18
        journal.write_bytes(b"".join(_line(at, 1) for at in range(12)))
        while _events(answer, "state")["done"] < 24:
            pass
    telling.join(30)
    shutil.rmtree(run)
    shutil.copytree(whole, run)
    assert push(sweep, remote) == "new"
    assert _events(answer, "end")["status"] == "here"
    connection.close()
    assert b"runs elsewhere" not in vic.get(f"/s/{sweep.ulid}").body
    late = ci.post(
        f"{path}/live", {"project": "team", "name": "x", "state": vic.get(f"{path}/progress").json}
    )
    assert late.json == {"state": "present"}


@pytest.mark.parametrize("state", [None, {}, {"sweep": "x", "runs": "many"}])
def test_news_that_are_none_are_refused(state: object, team: Running) -> None:
    path = f"/api/v1/sweeps/{new_ulid()}/live"
    told = team.machine("editor").post(path, {"project": "team", "name": "x", "state": state})
    assert told.status == 400


def test_it_ends_cleanly_with_streams_open(root: Path, sweep: SweepFolder) -> None:
    _goes_on(sweep).write_bytes(_line(0, 1))
    process, port, link = _start(root)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    own = {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
    connection.request("POST", "/sign-in", orjson.dumps({"link": link}), own)
    cookie = str(connection.getresponse().headers["Set-Cookie"]).partition(";")[0]
    connection.close()
    with sweep.lock():
        streams = []
        for _ in range(5):
            stream = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            stream.request("GET", f"/api/v1/sweeps/{sweep.ulid}/live", headers={"Cookie": cookie})
            streams.append((stream, stream.getresponse()))
        for _, answer in streams:
            _events(answer, "state")
        process.send_signal(signal.SIGTERM)
        for stream, answer in streams:
            _events(answer, "bye")
            stream.close()
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in rest


def test_it_may_be_killed(root: Path) -> None:
    process, _, _ = _start(root)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again, _, _ = _start(root)
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=60)
    assert again.returncode == 0
    assert len(Store(root).list()) == 1
