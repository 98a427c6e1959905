"""Two people label all items while the server is killed, or its database is away: nothing is lost."""

from __future__ import annotations

import collections
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.program import evalrun
from tests.recorded import document_of, recorded_suite, yes_no
from tests.team import Client, Running

from evalrun.tracking.audit import verify
from evalrun.tracking.store import Store

ITEMS = 40


class Served:
    """`evalrun serve` in a process of its own, which may be killed and started again at its address."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "evalrun", "serve", "--store", str(self.root)]
        self.process = subprocess.Popen(
            [*command, "--bind", f"127.0.0.1:{self.port}"], stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        said = self.process.stderr.readline()
        port = re.search(r"127\.0\.0\.1:(\d+)", said)
        assert port, said + self.process.stderr.read()
        self.port = int(port[1])

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def sign_in(self, name: str) -> Client:
        link = evalrun("user", "link", name, "--role", "annotator", "--store", self.root).stdout.strip()
        address, _, secret = link.partition("/sign-in#")
        assert address == f"http://127.0.0.1:{self.port}"  # that of the running server, unasked
        own = {"Origin": address}
        cookie = Client(self.port, own).post("/sign-in", {"link": secret}).headers["Set-Cookie"]
        return Client(self.port, {**own, "Cookie": cookie.partition(";")[0]})


@pytest.fixture(scope="module")
def labelled_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled_store")
    suite = recorded_suite(folder, yes_no([at % 2 > 0 for at in range(ITEMS)]), ["m"], name="team")
    done = evalrun(suite, "--store", folder / "store", "--no-report", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "store"


def _make(root: Path) -> str:
    words = ("--title", "right?", "--kind", "pass_fail", "--n", str(ITEMS), "--overlap", "2", "--blind")
    made = document_of("queue", "create", "latest", *words, "--store", root)
    assert made["items"] == ITEMS
    return str(made["queue"])


def _until(client: Client, path: str, document: Any = None) -> Any:
    """Ask until it is answered, as a person does who presses again."""
    deadline = time.monotonic() + 60
    while True:
        try:
            answer = client.post(path, document)
            if answer.status in (200, 409):
                return answer
            assert answer.status == 503, answer.body
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _label(client: Client, queue: str, said: dict[str, str], value: str) -> None:
    while (item := _until(client, f"/api/v1/queues/{queue}/next").json["item"]) is not None:
        answer = _until(client, f"/api/v1/queues/{queue}/items/{item['id']}/answer", {"value": value})
        if answer.status == 200:
            said[item["id"]] = value


def _both(clients: list[Client], queue: str, meanwhile: Callable[[Callable[[int], None]], None]) -> Any:
    """Both label all items; `meanwhile` may wait for so many answers and do harm."""
    confirmed: list[dict[str, str]] = [{}, {}]
    threads = [
        threading.Thread(target=_label, args=(client, queue, said, value))
        for client, said, value in zip(clients, confirmed, ("pass", "fail"), strict=True)
    ]
    for thread in threads:
        thread.start()

    def wait(count: int) -> None:
        while sum(map(len, confirmed)) < count:
            assert any(thread.is_alive() for thread in threads)
            time.sleep(0.01)

    meanwhile(wait)
    for thread in threads:
        thread.join(120)
    assert [len(said) for said in confirmed] == [ITEMS, ITEMS]


def _nothing_lost(root: Path, queue: str) -> None:
    found = document_of("queue", "status", queue, "--store", root)
    assert found["done"] == ITEMS
    assert all(each["answers"] == {"ana": "pass", "ben": "fail"} for each in found["results"])
    store = Store(root)
    folder = store.folders()[0]
    lines = (folder.path / "labels" / f"queue-{queue.lower()}.jsonl").read_text().splitlines()
    last = {(line["item"], line["person"]): line["value"] for line in map(json.loads, lines)}
    assert collections.Counter(last.values()) == {"pass": ITEMS, "fail": ITEMS}
    actors = {event["actor"] for event in folder.events() if event["action"] == "answer"}
    assert actors == {"ana (link)", "ben (link)"}
    assert verify(store).broken == []


def test_a_server_that_is_killed_twice_loses_no_answer(labelled_store: Path, tmp_path: Path) -> None:
    import shutil

    root = Path(shutil.copytree(labelled_store, tmp_path / "store"))
    served, queue = Served(root), _make(root)
    clients = [served.sign_in("ana"), served.sign_in("ben")]

    def killed(wait: Callable[[int], None]) -> None:
        for count in (16, 48):
            wait(count)
            served.kill()
            served.start()

    try:
        _both(clients, queue, killed)
        _nothing_lost(root, queue)
    finally:
        served.process.terminate()
        served.process.communicate(timeout=30)
    out = tmp_path / "labels.jsonl"
    assert evalrun("queue", "export", "right?", "--out", out, "--store", root).returncode == 0
    assert len(out.read_text().splitlines()) == ITEMS
    assert document_of("queue", "close", queue[:20], "--store", root)["gold"] == 0  # they never agreed


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("psycopg", reason="needs the extra: pip install -e '.[postgres]'")
    from tests.postgres import PostgresServer, binaries

    programs = binaries()
    if programs is None:
        pytest.skip("there is no PostgreSQL on this machine")
    with PostgresServer(programs) as server:
        monkeypatch.setenv("EVALRUN_CATALOG", server.url())
        yield server


def test_a_database_that_goes_away_is_waited_for(
    labelled_store: Path, tmp_path: Path, postgres: Any, start: Callable[..., Running]
) -> None:
    import shutil

    root = Path(shutil.copytree(labelled_store, tmp_path / "there"))
    team = start(root=root)
    queue = _make(root)
    clients = [team.person(name, {"team": "annotator"}) for name in ("ana", "ben")]
    told: list[int] = []

    def away(wait: Callable[[int], None]) -> None:
        wait(24)
        postgres.stop()
        told.append(team.nobody().get("/healthz").status)
        told.append(clients[0].get("/queues").status)
        told.append(clients[0].get("/api/v1/runs?q=samples%20%3E%200").status)
        postgres.start()

    _both(clients, queue, away)
    assert told == [503, 503, 503]
    assert team.nobody().get("/healthz").status == 200
    _nothing_lost(root, queue)
    team.stop()
    team.server.database.close()
