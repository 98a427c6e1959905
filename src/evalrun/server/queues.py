"""Labelling: queues of samples are made, their items leased, answered, skipped, taken back.

Leases are in the database alone; what was answered is kept as `answers` says.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa
from starlette.responses import Response

from evalrun.server.answers import catch_up, enter, in_step, keep, locks
from evalrun.server.asked import Asked, Refused
from evalrun.server.database import Answer, Item, Lease, Queue
from evalrun.server.schema import MOST_ANSWER, checked, read_wish
from evalrun.tracking.folder import SweepFolder, new_ulid

if TYPE_CHECKING:
    from evalrun.server.app import Server

LEASE_S = 30 * 60


def create(asked: Asked) -> Response:
    made = make(asked.server, asked.folder, asked.project, asked.values, asked.person.actor)
    return asked.done(made, f"/q/{made['queue']}/results")


def make(
    server: Server, folder: SweepFolder, project: str, values: Mapping[str, Any], actor: str
) -> dict[str, Any]:
    """A queue as it is wished for: its samples are picked, and it is entered. Raises Refused, UserError."""
    wish, known = read_wish(values), folder.run_ids()
    run = wish.run or (known[0] if len(known) == 1 else "")
    for named in filter(None, (run, wish.other)):
        if named not in known:
            raise Refused(400, f"the sweep has no finished run '{named[:80]}'")
    if not run:
        raise Refused(400, f"'run' is missing: one of {', '.join(known[:20])}")
    seed, ident = wish.seed or secrets.token_hex(8), new_ulid()
    picked = server.jobs.run(
        "items", sweep=folder.ulid, run=run, other=wish.other, where=wish.where, pick=wish.pick, n=wish.n,
        seed=seed, show_target=wish.asks.show_target, show=wish.show,
    )  # fmt: skip
    spec = {"schema": wish.asks.model_dump(), "overlap": wish.overlap, "blind": wish.blind, "run": run,
            "other": wish.other}  # fmt: skip
    rows = []
    for each in picked:
        # Opaque: it says nothing of the sample, and is another in every queue.
        name = hmac.new(seed.encode() + ident.encode(), str(each["sample_id"]).encode(), hashlib.sha256)
        rows.append({"queue": ident, "id": name.hexdigest()[:20], "run": run, "sample_id": each["sample_id"],
                     "shown": orjson.dumps(each["shown"]).decode()})  # fmt: skip
    row = {"id": ident, "project": project, "sweep": folder.ulid, "title": wish.title,
           "spec": orjson.dumps(spec).decode(), "seed": seed,
           "made_by": actor, "created": int(time.time())}  # fmt: skip

    def change(connection: sa.Connection) -> None:
        connection.execute(sa.insert(Queue).values(**row))
        connection.execute(sa.insert(Item), rows)

    server.database.write(change)
    with server.store.changing(folder):
        folder.append_event("queue", {"queue": ident, "title": wish.title, "items": len(rows), **spec})
    server.queues_changed()
    return {"queue": ident, "items": len(rows)}


# Working through it


def spec_of(queue: Any) -> dict[str, Any]:
    """The schema of a queue, how many people answer an item, whether it is blind, its runs."""
    found: dict[str, Any] = orjson.loads(queue.spec)
    return found


def check_open(asked: Asked) -> None:
    """Raises Refused where nothing can be answered any more."""
    if asked.queue.closed is not None:
        raise Refused(409, "the queue is closed")
    if asked.row is None:
        raise Refused(409, "the sweep is gone")
    catch_up(asked.server, asked.folder, asked.queue.id)


def item_of(asked: Asked) -> Any:
    """The item that the path names. Raises Refused (404)."""
    which = (Item.queue == asked.queue.id, Item.id == str(asked.request.path_params["item"]))
    row = asked.server.database.first(sa.select(Item).where(*which))
    if row is None:
        raise Refused(404, "there is no such item")
    return row


def _is_turned(asked: Asked, item: str) -> bool:
    """Whether this person sees the second run of a pair first."""
    words = f"{asked.queue.id} {item} {asked.person.id}".encode()
    return bool(hmac.digest(asked.queue.seed.encode(), words, "sha256")[0] & 1)


def _shown_to(asked: Asked, row: Any) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = orjson.loads(row.shown)
    if _is_turned(asked, row.id):
        parts = [{"pair": part["pair"][::-1]} if "pair" in part else part for part in parts]
    return parts


def _free(asked: Asked, connection: sa.Connection) -> dict[str, int]:
    """The items that the person may answer now, each with how many others answered or hold it."""
    queue, person, overlap = asked.queue.id, asked.person.id, spec_of(asked.queue)["overlap"]
    answered = sa.select(Answer.item, Answer.person).where(Answer.queue == queue)
    leased = sa.select(Lease.item, Lease.person).where(Lease.queue == queue)
    held = leased.where(Lease.until > int(time.time()), Lease.skipped == 0)
    others = sa.union(answered.where(Answer.person != person), held.where(Lease.person != person)).subquery()
    own = sa.union(
        answered.where(Answer.person == person), leased.where(Lease.person == person, Lease.skipped == 1)
    ).subquery()
    n = sa.func.count(others.c.person)
    query = (
        sa.select(Item.id, n)
        .outerjoin(others, others.c.item == Item.id)
        .where(Item.queue == queue, Item.id.not_in(sa.select(own.c.item)))
        .group_by(Item.id)
        .having(n < overlap)
    )
    return {str(name): count for name, count in connection.execute(query)}


def next_item(asked: Asked) -> Any:
    """Lease an item: the one held already, else one that most others have, in an order of one's own."""
    check_open(asked)
    queue, person = asked.queue.id, asked.person.id
    key = f"{asked.queue.seed} {person}".encode()
    mine = sa.select(Lease.item).where(Lease.queue == queue, Lease.person == person, Lease.skipped == 0)
    done = sa.select(sa.func.count()).where(Answer.queue == queue, Answer.person == person)

    def change(connection: sa.Connection) -> dict[str, Any]:
        free = _free(asked, connection)
        said = {"item": None, "done": connection.scalar(done), "left": len(free)}
        if not free:
            return said
        own = connection.scalars(mine.where(Lease.until > int(time.time()), Lease.item.in_(free))).first()
        chosen = own or min(free, key=lambda name: (-free[name], hmac.digest(key, name.encode(), "sha256")))
        _hold(connection, asked, chosen, int(time.time()) + LEASE_S)
        row = connection.execute(sa.select(Item).where(Item.queue == queue, Item.id == chosen)).one()
        return {**said, "item": {"id": row.id, "shown": _shown_to(asked, row)}}

    return asked.server.database.write(change)


def _hold(connection: sa.Connection, asked: Asked, item: str, until: int, skipped: int = 0) -> None:
    own = {"queue": asked.queue.id, "item": item, "person": asked.person.id}
    connection.execute(sa.delete(Lease).filter_by(**own))
    connection.execute(sa.insert(Lease).values(**own, until=until, skipped=skipped))


def answer(asked: Asked) -> Any:
    """Keep an answer; another by the same person replaces it. Never more people an item than asked for."""
    check_open(asked)
    schema, row, queue = spec_of(asked.queue)["schema"], item_of(asked), asked.queue.id
    value = checked(schema, asked.values.get("value"))
    if schema["kind"] == "pair" and _is_turned(asked, row.id):
        value = {"A": "B", "B": "A"}.get(value, value)  # A is the first run, whichever side it stood on
    comment, ms = asked.text("comment", most=MOST_ANSWER, default=""), asked.values.get("ms")
    spent = ms if isinstance(ms, int) and 0 <= ms < 86_400_000 else None
    again = sa.select(Answer.item).where(
        Answer.queue == queue, Answer.item == row.id, Answer.person == asked.person.id
    )

    def change(connection: sa.Connection) -> None:
        if connection.scalar(sa.select(Queue.closed).where(Queue.id == queue)) is not None:
            raise Refused(409, "the queue is closed")
        if connection.scalar(again) is None and row.id not in _free(asked, connection):
            raise Refused(409, "others have answered this item meanwhile")
        enter(connection, keep(asked.folder, row, asked.person, "answer", value, comment=comment, ms=spent))

    with locks[queue]:
        asked.server.database.write(change)
        in_step(queue)
    return {"saved": row.id}


def skip(asked: Asked) -> Any:
    check_open(asked)
    row = item_of(asked)
    asked.server.database.write(lambda connection: _hold(connection, asked, row.id, 0, skipped=1))
    return {"skipped": row.id}


def undo(asked: Asked) -> Any:
    """Take one's last answer back: the item comes again. Its line stays, with one that ends it."""
    check_open(asked)
    queue = asked.queue.id
    last = (
        sa.select(Item)
        .join(Answer, sa.and_(Answer.queue == Item.queue, Answer.item == Item.id))
        .where(Item.queue == queue, Answer.person == asked.person.id)
        .order_by(Answer.ts.desc())
    )

    def change(connection: sa.Connection) -> str:
        row = connection.execute(last).first()
        if row is None:
            raise Refused(409, "you have answered nothing here")
        enter(connection, keep(asked.folder, row, asked.person, "undo", None))
        _hold(connection, asked, row.id, int(time.time()) + LEASE_S)
        return str(row.id)

    with locks[queue]:
        undone = asked.server.database.write(change)
        in_step(queue)
    return {"undone": undone}


# Pages


def overview(asked: Asked) -> Response:
    rows = asked.server.database.all(sa.select(Queue).order_by(Queue.created.desc()).limit(500))
    mine = [row for row in rows if asked.person.may("annotator", row.project)]
    return asked.page("queues.html.j2", queues=[(row, spec_of(row)) for row in mine])


def page(asked: Asked) -> Response:
    schema = spec_of(asked.queue)["schema"]
    return asked.page("label.html.j2", queue=asked.queue, schema=schema,
                      schema_json=orjson.dumps(schema).decode())  # fmt: skip
