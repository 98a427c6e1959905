"""Sweeps that arrive and that are fetched: announced with digests, sent on from a stop, checked whole."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import anyio.to_thread
import orjson
from starlette.responses import FileResponse, Response

from evalrun.atomic import disk_errors, open_private, private_folder, write_private
from evalrun.errors import UserError
from evalrun.server.asked import Asked, Json, Refused
from evalrun.server.transfer import (
    ALLOWED,
    FOLDER_NAME,
    INCOMING,
    File,
    check,
    files_of,
    mend,
    read_files,
    take_in,
)
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

STALE_S = 7 * 86400
_PLAN = "plan.json"
_locks: dict[str, threading.Lock] = defaultdict(threading.Lock)


def _staged(asked: Asked) -> Path:
    return asked.server.store.root / INCOMING / asked.ulid


def _plan(asked: Asked) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = orjson.loads((_staged(asked) / _PLAN).read_bytes())
    except (OSError, ValueError):
        return None
    return found


def project_of(asked: Asked) -> str:
    """The project of a push: of the sweep that is in the store, of one announced before, else as it is said.

    The commit checks it against the manifest."""
    row = asked.server.index.get(asked.ulid)
    if row is not None:
        return row.project
    plan = _plan(asked)
    if plan is not None and asked.request.method == "PUT":
        return str(plan["project"])
    if asked.request.method == "PUT":
        raise Refused(404, "announce the files first")
    return asked.text("project", most=200)


def begin(asked: Asked) -> Any:
    ulid, limits = asked.ulid, asked.server.config.limits
    name = asked.text("folder", most=120)
    if not FOLDER_NAME.match(name) or name[:26] != ulid:
        raise Refused(400, "'folder' is not the name of the sweep's folder")
    files = read_files(asked.values.get("files"), limits.push_bytes, limits.push_files)
    row = asked.server.index.get(ulid)
    if row is not None and _same_trail(SweepFolder(row.folder), files):
        return {"state": "present", "missing": []}
    staged = _staged(asked)
    with _locks[ulid]:
        before = {each["path"]: each for each in (_plan(asked) or {}).get("files", ())}
        private_folder(staged / name)
        for other in staged.iterdir():
            if other.is_dir() and other.name != name:
                shutil.rmtree(other)
        plan = {"project": asked.project, "folder": name, "actor": asked.person.actor,
                "files": [{"path": f.path, "bytes": f.bytes, "sha256": f.sha256} for f in files]}  # fmt: skip
        for path in [path for path in (staged / name).rglob("*") if path.is_file()]:
            known = path.relative_to(staged / name).as_posix()
            if known not in {f.path for f in files} or before.get(known) not in plan["files"]:
                path.unlink()
        write_private(staged / _PLAN, orjson.dumps(plan))
        missing = [
            {"path": file.path, "offset": have}
            for file in files
            if (have := _size(staged / name / file.path)) != file.bytes
            or not (staged / name / file.path).exists()
        ]
    return {"state": "wanted", "missing": missing}


def _same_trail(folder: SweepFolder, files: list[File]) -> bool:
    from evalrun.tracking.folder import EVENTS, file_sha256

    digest = next(file.sha256 for file in files if file.path == EVENTS)
    return (folder.path / EVENTS).exists() and file_sha256(folder.path / EVENTS) == digest


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


async def put(asked: Asked) -> Response:
    """Append to a file from `Upload-Offset` on. 409 with the true offset where that is another."""
    plan, name = _plan(asked), str(asked.request.path_params["path"])
    listed = {each["path"]: each for each in (plan or {}).get("files", ())}
    if plan is None or name not in listed or not ALLOWED.match(name):
        raise Refused(404, "this file was not announced")
    given, size = asked.request.headers.get("upload-offset", "0"), int(listed[name]["bytes"])
    path = _staged(asked) / plan["folder"] / name
    with disk_errors(path.parent):
        private_folder(path.parent)
        descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        have = os.fstat(descriptor).st_size
        if not given.isdigit() or int(given) != have:
            return Json({"error": f"{have} bytes are here", "offset": have}, status_code=409)
        async for chunk in asked.request.stream():
            if have + len(chunk) > size:
                raise Refused(413, f"{name} was announced with {size:,} bytes")
            with disk_errors(path.parent):
                await anyio.to_thread.run_sync(_write, descriptor, chunk)
            have += len(chunk)
    finally:
        os.close(descriptor)
    return Json({"offset": have})


def _write(descriptor: int, chunk: bytes) -> None:
    while chunk:
        chunk = chunk[os.write(descriptor, chunk) :]


def commit(asked: Asked) -> Any:
    """Check all that came, and take it in. What is not whole is named and kept, to be sent again; what was
    altered is thrown away."""
    plan, ulid, store = _plan(asked), asked.ulid, asked.server.store
    if plan is None:
        row = asked.server.index.get(ulid)
        if row is not None:
            return {"state": "present", "sweep": ulid}
        raise Refused(404, "announce the files first")
    staged = _staged(asked)
    folder = SweepFolder(staged / plan["folder"])
    files = [File(**each) for each in plan["files"]]
    with _locks[ulid]:
        torn = [
            f.path
            for f in files
            if not (folder.path / f.path).exists() or _size(folder.path / f.path) != f.bytes
        ]
        if torn:
            raise Refused(409, f"not all has come: {', '.join(torn[:5])}")
        try:
            check(folder, files, ulid)
            if folder.manifest().project != asked.project:
                raise UserError("the sweep is of another project than was announced")
            tables = [str(folder.path / f.path) for f in files if f.path.endswith(".parquet")]
            if tables:
                asked.server.jobs.run("check", files=tables)
        except UserError as error:
            shutil.rmtree(staged, ignore_errors=True)
            raise Refused(422, f"nothing was taken in: {error}") from error
        state = take_in(store, folder)
        shutil.rmtree(staged, ignore_errors=True)
    if state != "present":
        detail = {"folder": plan["folder"], "state": state, "files": len(files)}
        store.append_event("receive", detail, target=ulid)
    asked.server.index.all(now=True)
    asked.server.live.arrived(ulid)
    return {"state": state, "sweep": ulid}


def files(asked: Asked) -> Any:
    if asked.folder.is_locked():
        raise Refused(409, "the sweep is running; fetch it when it has ended")
    listed = [{"path": f.path, "bytes": f.bytes, "sha256": f.sha256} for f in files_of(asked.folder)]
    return {"folder": asked.folder.path.name, "project": asked.project, "files": listed}


def file(asked: Asked) -> Response:
    name = str(asked.request.path_params["path"])
    path = asked.folder.path / name
    if not ALLOWED.match(name) or not path.is_file() or path.is_symlink():
        raise Refused(404, "there is no such file")
    headers = {"Content-Security-Policy": "sandbox; default-src 'none'"}
    return FileResponse(path, media_type="application/octet-stream", filename=path.name, headers=headers)


def remove_stale(store: Store) -> None:
    """At the start: what a crash left half done, and pushes that were given up long ago."""
    mend(store)
    incoming = store.root / INCOMING
    for staged in incoming.iterdir() if incoming.is_dir() else ():
        if time.time() - staged.stat().st_mtime > STALE_S:
            shutil.rmtree(staged, ignore_errors=True)
