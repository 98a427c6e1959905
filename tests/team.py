"""A server on loopback, as `evalrun serve` starts it but for the signals, over a store with a sweep."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

pytest.importorskip("starlette", reason="needs the extra: pip install -e '.[serve]'")
pytest.importorskip("uvicorn", reason="needs the extra: pip install -e '.[serve]'")
pytest.importorskip("joserfc", reason="needs the extra: pip install -e '.[serve]'")

import uvicorn

from evalrun.server.answers import recover
from evalrun.server.app import Server, make_app
from evalrun.server.config import Config
from evalrun.server.database import Database
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store
from tests.program import evalrun
from tests.recorded import recorded_suite, yes_no

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """One who asks: by a cookie, a token, or nothing. Its own page's requests carry our origin."""

    port: int
    headers: dict[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, document: Any = None, *, data: bytes | None = None, **headers: str
    ) -> Answer:
        body = json.dumps(document).encode() if document is not None else data
        sent = {"Content-Type": "application/json", **self.headers}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {key: value for key, value in sent.items() if value})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, document: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, {} if document is None else document, **headers)


class Running:
    """A server in a thread of its own."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.store = Store(root)
        settings.setdefault("default_role", "none")
        uv = uvicorn.Config("", port=0, log_level="warning", access_log=False, proxy_headers=False,
                            timeout_graceful_shutdown=3)  # fmt: skip
        self._socket = uv.bind_socket()
        self.port = int(self._socket.getsockname()[1])
        self.config = Config.model_validate({**settings, "bind": f"127.0.0.1:{self.port}"})
        self.server = Server(self.store, self.config, Database(self.store))
        recover(self.server)
        uv.app = make_app(self.server)
        self._uvicorn = uvicorn.Server(uv)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        while not self._uvicorn.started:
            self._thread.join(0.01)

    def _run(self) -> None:
        asyncio.run(self._uvicorn._serve([self._socket]))

    def stop(self) -> None:
        self.server.live.stop.set()
        self._uvicorn.should_exit = True
        self._thread.join(20)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def person(self, name: str, grants: Mapping[str, str] | None = None, **headers: str) -> Client:
        """Someone who signed in by a link."""
        accounts = self.server.accounts
        ident = accounts.person("link", name)
        for project, role in (grants or {}).items():
            accounts.grant(ident, project, role)
        cookie = f"{self.server.cookie}={accounts.sign_in(ident, 'link')}"
        return Client(self.port, {"Cookie": cookie, "Origin": self.origin, **headers})

    def machine(self, role: str, project: str = "*", name: str = "ci") -> Client:
        """A machine with a token."""
        secret = self.server.accounts.make_token(name, role, project, 1, made_by="test")
        return Client(self.port, {"Authorization": f"Bearer {secret}"})

    def nobody(self) -> Client:
        return Client(self.port)


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one finished sweep of twelve samples and two runs, one of whose answers is hostile."""
    folder = tmp_path_factory.mktemp("swept")
    hits = [at % 3 > 0 for at in range(12)]
    rows = yes_no(hits, other=["yes"] * 12)
    rows[1]["m"] = HOSTILE
    rows[7]["request_id"] = "r-1"
    suite = recorded_suite(folder, rows, ["m", "other"], name="team")
    done = evalrun(suite, "--store", folder / "store", "--no-report", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "store"


@pytest.fixture
def root(swept: Path, tmp_path: Path) -> Path:
    """A copy of that store."""
    import shutil

    return Path(shutil.copytree(swept, tmp_path / "store"))


@pytest.fixture
def start(root: Path) -> Iterator[Callable[..., Running]]:
    """Starts servers over the store; they are stopped at the end."""
    running: list[Running] = []

    def begin(**settings: Any) -> Running:
        running.append(Running(settings.pop("root", root), **settings))
        return running[-1]

    yield begin
    for each in running:
        each.stop()


@pytest.fixture
def team(start: Callable[..., Running]) -> Running:
    """The server with its usual settings, to which nobody has a role unless given."""
    return start()


@pytest.fixture
def sweep(root: Path) -> SweepFolder:
    """The sweep that is there."""
    return Store(root).folders()[0]


def form(**values: str) -> bytes:
    """The body of an HTML form."""
    return urlencode(values).encode()
