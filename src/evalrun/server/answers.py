"""What people answered. The sweep's `labels/queue-<id>.jsonl` and its trail hold it, durably, before it is
confirmed; the database is an index of them, brought up to date after a crash."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa

from evalrun.server.database import Answer, Queue
from evalrun.server.durable import append_line, read_lines
from evalrun.tracking.events import acting_as, utc_now
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.people import ANSWER, FEEDBACK, LABELS_FOLDER

if TYPE_CHECKING:
    from evalrun.server.accounts import Person
    from evalrun.server.app import Server

locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
"""One a queue: who writes to its file holds it."""

_behind: set[str] = set()
"""Queues whose database was away after a line was written."""


def path_of(folder: SweepFolder, queue: str) -> Path:
    """The file of a queue's answers."""
    return folder.path / LABELS_FOLDER / f"queue-{queue.lower()}.jsonl"


def keep(
    folder: SweepFolder, item: Any, person: Person, kind: str, value: Any, **more: Any
) -> dict[str, Any]:
    """Into the folder and the trail, durably; returns the line. The caller holds the queue's lock."""
    line = {
        "kind": kind, "queue": item.queue, "item": item.id, "run": item.run, "sample_id": item.sample_id,
        "value": value, "person": person.id, "actor": person.actor, "ts": utc_now(), **more,
    }  # fmt: skip
    path = path_of(folder, item.queue)
    _behind.add(item.queue)  # until the database has it too
    digest = append_line(path, line)
    detail = {"kind": kind, "queue": item.queue, "item": item.id, "file": f"{LABELS_FOLDER}/{path.name}",
              "line": digest}  # fmt: skip
    folder.append_event(ANSWER, detail, target=item.run)
    return line


def in_step(queue: str) -> None:
    """The database has all that was written."""
    _behind.discard(queue)


def enter(connection: sa.Connection, line: Mapping[str, Any]) -> None:
    """A line of the file into the database; the latest of a person counts."""
    mine = (Answer.queue == line["queue"], Answer.item == line["item"], Answer.person == line["person"])
    connection.execute(sa.delete(Answer).where(*mine))
    if line["kind"] == "answer":
        connection.execute(sa.insert(Answer).values(
            queue=line["queue"], item=line["item"], person=line["person"], ts=line["ts"],
            value=orjson.dumps(line["value"]).decode(), comment=str(line.get("comment") or ""),
        ))  # fmt: skip


def catch_up(server: Server, folder: SweepFolder, queue: str, *, always: bool = False) -> None:
    """Bring the database up to date with the file, where it was away or `always`."""
    if not always and queue not in _behind:
        return
    with locks[queue]:
        if not always and queue not in _behind:
            return  # another did it meanwhile
        lines = read_lines(path_of(folder, queue))

        def change(connection: sa.Connection) -> None:
            connection.execute(sa.delete(Answer).where(Answer.queue == queue))
            for line in lines:
                if line.get("kind") in ("answer", "undo") and line.get("queue") == queue:
                    enter(connection, line)

        if lines:
            server.database.write(change)
        in_step(queue)


def recover(server: Server) -> None:
    """Bring trail and database up to date with the files, which hold everything that was confirmed: a server
    that was killed may have written a line and not its event, or not its row."""
    opened = server.database.all(sa.select(Queue).where(Queue.closed.is_(None)))
    told = {path.parent.parent.name[:26] for path in server.store.sweeps.glob("*/labels/feedback.jsonl")}
    for name in {row.sweep for row in opened} | told:
        row = server.index.get(name)
        if row is not None:
            _tell(SweepFolder(row.folder))
    for queue in opened:
        row = server.index.get(queue.sweep)
        if row is not None:
            catch_up(server, SweepFolder(row.folder), queue.id, always=True)


def _tell(folder: SweepFolder) -> None:
    """Events for whole lines that have none."""
    told = {
        str(each["detail"].get("line")) for each in folder.events() if each["action"] in (ANSWER, FEEDBACK)
    }
    labels = folder.path / LABELS_FOLDER
    for path in [*labels.glob("queue-*.jsonl"), *labels.glob("feedback.jsonl")]:
        data = path.read_bytes()
        for raw in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
            digest = hashlib.sha256(raw).hexdigest()
            if digest in told:
                continue
            line = orjson.loads(raw)
            kind = FEEDBACK if path.name == "feedback.jsonl" else ANSWER
            detail = {name: line[name] for name in ("kind", "queue", "item") if name in line}
            detail |= {"file": f"{LABELS_FOLDER}/{path.name}", "line": digest, "told_later": True}
            with acting_as(str(line.get("actor") or "")):
                folder.append_event(kind, detail, target=str(line.get("run", "")))
