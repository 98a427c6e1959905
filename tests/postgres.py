"""A PostgreSQL server of the tests' own: a new cluster in a folder of its own, on a Unix socket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

OPTIONS = (
    "listen_addresses=",
    "fsync=off",
    "full_page_writes=off",
    "max_connections=60",
    "shared_buffers=16MB",
)


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`, which Debian leaves out of the path; the newest version's."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda each: float(each.parts[-3])
    )
    return versions[-1].parent if versions else None


class PostgresServer:
    """A running server, stopped and removed at the end. The server refuses to run as root, and then runs as
    the user `postgres`."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:
            self._user = {"user": "postgres", "group": "postgres", "extra_groups": []}

    def __enter__(self) -> Self:
        # A short path: that of a socket has 107 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        if self._user:
            shutil.chown(self.folder, "postgres", "postgres")
        self._data = self.folder / "data"
        self._run("initdb", "-D", str(self._data), "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8")
        self.start()
        return self

    def start(self) -> None:
        """Start it, at first or again after `stop`."""
        settings = [
            part for each in (*OPTIONS, f"unix_socket_directories={self.folder}") for part in ("-c", each)
        ]
        with (self.folder / "log").open("wb") as log:
            self._server = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, *settings],
                cwd=self.folder, stdout=log, stderr=log, **self._user,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while subprocess.run(
            [self._programs / "pg_isready", "-q", "-h", self.folder], check=False
        ).returncode:
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """End it at once, whoever is connected."""
        self._server.send_signal(signal.SIGINT)
        self._server.wait(30)

    def __exit__(self, *_: object) -> None:
        self._server.terminate()  # "smart" would wait for clients; none is left by now
        try:
            self._server.wait(30)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, schema: str = "", database: str = "postgres", password: str = "") -> str:
        """A URL of a catalog; in a schema that no other test has unless one is named."""
        secret = f":{password}" if password else ""
        schema = schema or f"t_{uuid4().hex}"
        return f"postgresql://tester{secret}@/{database}?host={self.folder}&schema={schema}"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            cwd=self.folder, capture_output=True, text=True, check=False, **self._user,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr}")
