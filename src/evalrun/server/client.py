"""The other end: a sweep is sent to a server, or fetched from it. Needs nothing but the standard library."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from evalrun.atomic import private_folder
from evalrun.errors import ExitCode, UserError
from evalrun.server.transfer import (
    FOLDER_NAME,
    INCOMING,
    check,
    files_of,
    plan_document,
    read_files,
    take_in,
)
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

TOKEN = "EVALRUN_TOKEN"  # noqa: S105  the name of the variable
CHUNK, TRIES, TIMEOUT_S, TELL_S = 4 << 20, 6, 60, 1.0
_MOST_BYTES, _MOST_FILES = 64 << 30, 100_000


class Unreached(UserError):
    """The server cannot be reached at this moment."""


class Remote:
    """A server at an address. What fails on the way is tried again, with pauses that grow."""

    def __init__(self, url: str, token: str | None = None, pause_s: float = 0.5) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"'{url[:200]}' is no http:// or https:// address of a server")
        self._token = token or os.environ.get(TOKEN, "")
        if not self._token:
            remedy = "Make one on the server: evalrun token create ci --role editor --project NAME"
            raise UserError(f"there is no token: set {TOKEN}", where=url, remedy=remedy)
        if not self._token.isascii() or not self._token.isprintable():
            raise UserError(f"{TOKEN} holds no token", where=url)
        local = parts.hostname in ("127.0.0.1", "localhost", "::1")
        if parts.scheme == "http" and not local:
            remedy = "Use its https:// address."
            raise UserError("a token is not sent in the clear", where=url, remedy=remedy)
        self.url, self._parts, self._pause_s = url, parts, pause_s
        self._base = parts.path.rstrip("/")

    def ask(
        self, method: str, path: str, document: Any = None, *, data: bytes | None = None,
        headers: Mapping[str, str] | None = None, good: tuple[int, ...] = (200, 206),
        into: Callable[[http.client.HTTPResponse], None] | None = None,
    ) -> Any:  # fmt: skip
        """The answer's document. Raises UserError with what the server said."""
        body = json.dumps(document).encode() if document is not None else data
        sent = {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            **(headers or {}),
        }
        for attempt in range(TRIES):
            connection = self._connection()
            try:
                connection.request(method, self._base + path, body, sent)
                answer = connection.getresponse()
                if into is not None and answer.status in good:
                    into(answer)
                    return answer.status
                text = answer.read(16 << 20)
                if answer.status in good:
                    return json.loads(text)
                if answer.status not in (429, 502, 503, 504):
                    raise _refused(self.url, answer.status, text)
            except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
                if attempt == TRIES - 1 or isinstance(error, ssl.SSLCertVerificationError):
                    what = f"the server cannot be reached: {error}"
                    remedy = "The same command again goes on where it stopped."
                    raise Unreached(
                        what, where=self.url, remedy=remedy, exit_code=ExitCode.INCOMPLETE
                    ) from error
            finally:
                connection.close()
            time.sleep(self._pause_s * 2**attempt)
        raise Unreached("the server is too busy", where=self.url, exit_code=ExitCode.INCOMPLETE)

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(str(self._parts.hostname), self._parts.port, timeout=TIMEOUT_S)


def _refused(url: str, status: int, text: bytes) -> UserError:
    try:
        said = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        said = "no reason given"
    return UserError(f"the server refused ({status}): {said[:500]}", where=url)


def tell(folder: SweepFolder, remote: Remote) -> None:
    """Tell a server how far a running sweep is, once a second, until it has ended: counts and scores, no
    answers. A server that is away for longer than tries last is told again when it is back."""
    from dataclasses import asdict

    from evalrun.server.following import Follower

    follower, said, here = Follower(folder), -1, False
    head = {"project": folder.manifest().project, "name": folder.path.name[27:]}
    while not follower.ended:
        follower.look()
        if follower.state is not None and not here and follower.offset != said:
            with contextlib.suppress(Unreached):
                news = {**head, "state": asdict(follower.state)}
                answer = remote.ask("POST", f"/api/v1/sweeps/{folder.ulid}/live", news)
                here, said = answer["state"] == "present", follower.offset
        time.sleep(TELL_S)


def push(folder: SweepFolder, remote: Remote, say: Callable[[str], None] = lambda text: None) -> str:
    """Send a sweep; returns `new`, `extended` or `present`. Again, it goes on where it stopped."""
    if folder.is_locked():
        raise UserError(
            "the sweep is running",
            where=folder.path.name,
            remedy="Push it when it has ended, or now with --live.",
        )
    manifest, files = folder.manifest(), files_of(folder)
    document = plan_document(manifest.project, folder.path.name, files)
    path = f"/api/v1/sweeps/{folder.ulid}"
    for _ in range(3):  # another may send the same: what is missing is asked anew
        wanted = remote.ask("POST", f"{path}/push", document)
        if wanted["state"] == "present":
            return "present"
        sizes = {file.path: file.bytes for file in files}
        total = sum(sizes[each["path"]] - each["offset"] for each in wanted["missing"])
        say(f"sending {len(wanted['missing'])} files, {total:,} bytes")
        for each in wanted["missing"]:
            _send(folder, remote, path, each["path"], int(each["offset"]))
        try:
            done = remote.ask("POST", f"{path}/push-commit", {"project": manifest.project})
            return str(done["state"])
        except UserError as error:
            if "not all has come" not in str(error):
                raise
    raise UserError("the files did not arrive whole", where=remote.url, exit_code=ExitCode.INCOMPLETE)


def _send(folder: SweepFolder, remote: Remote, path: str, name: str, offset: int) -> None:
    with (folder.path / name).open("rb") as file:
        while True:
            file.seek(offset)
            data = file.read(CHUNK)
            answer = remote.ask(
                "PUT", f"{path}/push/{quote(name)}", data=data, good=(200, 409),
                headers={"Upload-Offset": str(offset), "Content-Type": "application/octet-stream"},
            )  # fmt: skip
            if "error" in answer and answer["offset"] == offset:
                raise UserError(f"the server refused: {answer['error']}", where=remote.url)
            offset = int(answer["offset"])
            if offset >= os.fstat(file.fileno()).st_size:
                return


def pull(store: Store, remote: Remote, sweep: str) -> tuple[SweepFolder, str]:
    """Fetch a sweep by its whole id into a store; again, it goes on where it stopped."""
    listed = remote.ask("GET", f"/api/v1/sweeps/{quote(sweep, safe='')}/files")
    name = str(listed.get("folder", ""))
    if not FOLDER_NAME.match(name) or name[:26] != sweep:
        raise UserError("the server names another sweep", where=remote.url)
    files = read_files(listed.get("files"), _MOST_BYTES, _MOST_FILES)
    store.create_root()
    staged = private_folder(store.root / INCOMING / sweep) / name
    for file in files:
        _fetch(remote, sweep, file.path, file.bytes, staged / file.path)
    folder = SweepFolder(staged)
    try:
        check(folder, files, sweep)
        state = take_in(store, folder)
    finally:
        import shutil

        shutil.rmtree(staged.parent, ignore_errors=True)
    return SweepFolder(store.sweeps / name), state


def _fetch(remote: Remote, sweep: str, name: str, size: int, out: Path) -> None:
    private_folder(out.parent)
    out.touch(mode=0o600)

    def save(answer: http.client.HTTPResponse) -> None:
        with out.open("ab" if answer.status == 206 else "wb") as file:
            while data := answer.read(1 << 20):
                file.write(data)
                if file.tell() > size:
                    raise UserError(f"{name} is longer than the server said", where=remote.url)

    for _ in range(TRIES):
        have = out.stat().st_size
        if have >= size:
            return
        headers = {"Range": f"bytes={have}-"} if have else {}
        remote.ask("GET", f"/api/v1/sweeps/{sweep}/files/{quote(name)}", headers=headers, into=save)
