"""Labelling: queues of samples, who has which, answers, adjudication, agreement, gold.

An answer is in the sweep's `labels/queue-<id>.jsonl` and its trail, durably, before it is confirmed; the
database is an index of it that `recover` brings up to date after a crash. Leases are in the database alone.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa
from starlette.responses import Response

from evalrun.server.asked import Asked, Refused
from evalrun.server.database import answer as answers
from evalrun.server.database import item as items
from evalrun.server.database import lease as leases
from evalrun.server.database import queue as queues
from evalrun.server.durable import append_line, read_lines
from evalrun.tracking.events import acting_as, utc_now
from evalrun.tracking.folder import SweepFolder, new_ulid
from evalrun.tracking.people import ANSWER, FEEDBACK, LABELS_FOLDER

if TYPE_CHECKING:
    from evalrun.server.app import Server

LEASE_S = 30 * 60
KINDS = {
    "pass_fail": "nominal",
    "choice": "nominal",
    "text": "nominal",
    "pair": "nominal",
    "scale": "ordinal",
}
"""Kinds of a schema, each with the level that its answers are compared at."""

MOST_ANSWER, MOST_CHOICES = 4_000, 50
_locks: dict[str, threading.Lock] = defaultdict(threading.Lock)


# Schemas


def read_schema(values: Mapping[str, Any]) -> dict[str, Any]:
    """The question and its possible answers, from `schema` or from a form's fields. Raises Refused."""
    given = values.get("schema", values)
    if isinstance(given, str):
        try:
            given = orjson.loads(given)
        except ValueError as error:
            raise Refused(400, "'schema' is no JSON object") from error
    if not isinstance(given, Mapping) or given.get("kind") not in KINDS:
        raise Refused(400, f"'schema' needs a 'kind': {', '.join(KINDS)}")
    kind, named = str(given["kind"]), given.get("choices") or []
    if isinstance(named, str):
        named = [each.strip() for each in named.split(",") if each.strip()]
    fixed = {"pass_fail": ["pass", "fail"], "pair": ["A", "B", "tie"], "text": []}
    choices = fixed.get(kind) or [str(each) for each in named]
    if kind == "scale":
        low, high = _whole(given.get("min", 1)), _whole(given.get("max", 5))
        if not low < high <= low + 20:
            raise Refused(400, "a scale goes up from 'min' to 'max', by at most 20 steps")
        choices = [str(step) for step in range(low, high + 1)]
    if kind == "choice" and not 2 <= len(set(choices)) == len(choices) <= MOST_CHOICES:
        raise Refused(400, f"a choice has 2 to {MOST_CHOICES} different 'choices'")
    question = str(given.get("question") or "")[:1_000]
    return {
        "kind": kind,
        "question": question,
        "choices": choices,
        "show_target": bool(given.get("show_target")),
    }


def _columns(value: Any) -> list[str]:
    """Names of columns, as a list or parted by commas."""
    named = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return [str(each).strip() for each in named if str(each).strip()]


def _whole(value: Any) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise Refused(400, f"'{str(value)[:40]}' is no whole number") from error


def _checked(schema: Mapping[str, Any], value: Any) -> Any:
    """An answer that the schema has. Raises Refused."""
    if schema["kind"] == "text":
        if not isinstance(value, str) or not value.strip() or len(value) > MOST_ANSWER:
            raise Refused(400, f"an answer has 1 to {MOST_ANSWER:,} characters")
        return value.strip()
    if isinstance(value, bool) or str(value) not in schema["choices"]:
        raise Refused(400, f"'{str(value)[:80]}' is none of: {', '.join(schema['choices'])}")
    return int(str(value)) if schema["kind"] == "scale" else str(value)


# Making one


def create(asked: Asked) -> Response:
    values, server, ulid = asked.values, asked.server, asked.folder.ulid
    schema = read_schema(values)
    n, overlap = _whole(values.get("n") or 100), _whole(values.get("overlap") or 1)
    if not 1 <= n <= 5_000 or not 1 <= overlap <= 20:
        raise Refused(400, "a queue has 1 to 5,000 items, each for 1 to 20 people")
    pick = str(values.get("pick") or "sample")
    other = asked.text("other", most=300, default="")
    if pick not in ("sample", "worst", "query") or (schema["kind"] == "pair") != bool(other):
        raise Refused(400, "'pick' is sample, worst or query; pairs, and only they, have an 'other' run")
    run, title = asked.text("run", most=300), asked.text("title", most=200)
    known = asked.folder.run_ids()
    for each in filter(None, (run, other)):
        if each not in known:
            raise Refused(400, f"the sweep has no finished run '{each[:80]}'")
    if run == other:
        raise Refused(400, "a pair needs two different runs")
    seed = str(values.get("seed") or secrets.token_hex(8))
    where = asked.text("where", most=2_000, default="")
    picked = server.jobs.run(
        "items",
        sweep=ulid,
        run=run,
        other=other,
        where=where,
        pick=pick,
        n=n,
        seed=seed,
        show_target=schema["show_target"],
        show=_columns(values.get("show")),
    )
    ident = new_ulid()
    spec = {
        "schema": schema,
        "overlap": overlap,
        "blind": bool(values.get("blind")),
        "run": run,
        "other": other,
    }
    rows = []
    for each in picked:
        # Opaque: it says nothing of the sample, and is another in every queue.
        name = hmac.new(seed.encode() + ident.encode(), str(each["sample_id"]).encode(), hashlib.sha256)
        rows.append({"queue": ident, "id": name.hexdigest()[:20], "run": run, "sample_id": each["sample_id"],
                     "shown": orjson.dumps(each["shown"]).decode()})  # fmt: skip
    row = {"id": ident, "project": asked.project, "sweep": ulid, "title": title,
           "spec": orjson.dumps(spec).decode(), "seed": seed,
           "made_by": asked.person.actor, "created": int(time.time())}  # fmt: skip

    def change(connection: sa.Connection) -> None:
        connection.execute(queues.insert().values(**row))
        connection.execute(items.insert(), rows)

    server.database.write(change)
    detail = {"queue": ident, "title": title, "items": len(rows), **spec}
    with server.store.changing(asked.folder):
        asked.folder.append_event("queue", detail)
    server.queues_changed()
    return asked.done({"queue": ident, "items": len(rows)}, f"/q/{ident}/results")


# Working through it


def _spec(asked: Asked) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(asked.queue.spec)
    return found


def _check_open(asked: Asked) -> None:
    if asked.queue.closed is not None:
        raise Refused(409, "the queue is closed")
    if asked.row is None:
        raise Refused(409, "the sweep is gone")


def _shown_to(asked: Asked, row: Any) -> list[dict[str, Any]]:
    """What is shown, with the sides of a pair drawn for this person and item."""
    parts: list[dict[str, Any]] = orjson.loads(row.shown)
    if _is_turned(asked, row.id):
        parts = [{"pair": part["pair"][::-1]} if "pair" in part else part for part in parts]
    return parts


def _is_turned(asked: Asked, item: str) -> bool:
    words = f"{asked.queue.id} {item} {asked.person.id}".encode()
    return bool(hmac.new(asked.queue.seed.encode(), words, hashlib.sha256).digest()[0] & 1)


def next_item(asked: Asked) -> Any:
    """Lease an item: the one held already, else one that most others have, in an order of one's own."""
    _check_open(asked)
    overlap, ident, person, now = _spec(asked)["overlap"], asked.queue.id, asked.person.id, int(time.time())

    def change(connection: sa.Connection) -> tuple[Any, int, int]:
        given: dict[str, set[str]] = defaultdict(set)
        for row in connection.execute(
            sa.select(answers.c.item, answers.c.person).where(answers.c.queue == ident)
        ):
            given[row.item].add(row.person)
        held: dict[str, set[str]] = defaultdict(set)
        skipped, own = set(), None
        for row in connection.execute(sa.select(leases).where(leases.c.queue == ident)):
            if row.person == person and row.skipped:
                skipped.add(row.item)
            elif row.until > now and row.person not in given[row.item]:
                held[row.item].add(row.person)
                own = row.item if row.person == person else own
        names = list(connection.scalars(sa.select(items.c.id).where(items.c.queue == ident)))
        done = sum(person in given[name] for name in names)
        free = [
            name for name in names
            if person not in given[name] and name not in skipped
            and len(given[name] | (held[name] - {person})) < overlap
        ]  # fmt: skip
        if not free:
            return None, done, 0
        key = f"{asked.queue.seed} {person}".encode()
        chosen = (
            own
            if own in free
            else min(
                free,
                key=lambda name: (-len(given[name] | held[name]), hmac.digest(key, name.encode(), "sha256")),
            )
        )
        _hold(connection, ident, str(chosen), person, now + LEASE_S)
        row = connection.execute(sa.select(items).where(items.c.queue == ident, items.c.id == chosen)).one()
        return row, done, len(free)

    row, done, left = asked.server.database.write(change)
    item = None if row is None else {"id": row.id, "shown": _shown_to(asked, row)}
    return {"item": item, "done": done, "left": left}


def _hold(
    connection: sa.Connection, queue: str, item: str, person: str, until: int, skipped: int = 0
) -> None:
    which = sa.and_(leases.c.queue == queue, leases.c.item == item, leases.c.person == person)
    connection.execute(leases.delete().where(which))
    connection.execute(
        leases.insert().values(queue=queue, item=item, person=person, until=until, skipped=skipped)
    )


def _item(asked: Asked) -> Any:
    which = sa.and_(items.c.queue == asked.queue.id, items.c.id == str(asked.request.path_params["item"]))
    row = asked.server.database.read(
        lambda connection: connection.execute(sa.select(items).where(which)).first()
    )
    if row is None:
        raise Refused(404, "there is no such item")
    return row


def _path(folder: SweepFolder, queue: str) -> Path:
    return folder.path / LABELS_FOLDER / f"queue-{queue.lower()}.jsonl"


def _keep(asked: Asked, row: Any, kind: str, value: Any, **more: Any) -> dict[str, Any]:
    """Into the folder and the trail, durably. The caller holds the queue's lock."""
    line = {
        "kind": kind, "queue": asked.queue.id, "item": row.id, "run": row.run, "sample_id": row.sample_id,
        "value": value, "person": asked.person.id, "actor": asked.person.actor, "ts": utc_now(), **more,
    }  # fmt: skip
    path = _path(asked.folder, asked.queue.id)
    digest = append_line(path, line)
    detail = {"kind": kind, "queue": asked.queue.id, "item": row.id, "file": f"{LABELS_FOLDER}/{path.name}",
              "line": digest}  # fmt: skip
    asked.folder.append_event(ANSWER, detail, target=row.run)
    return line


def answer(asked: Asked) -> Any:
    """Keep an answer; another by the same person replaces it. Never more people an item than asked for."""
    _check_open(asked)
    spec, row, person, ident = _spec(asked), _item(asked), asked.person, asked.queue.id
    value = _checked(spec["schema"], asked.values.get("value"))
    if spec["schema"]["kind"] == "pair" and _is_turned(asked, row.id):
        value = {"A": "B", "B": "A"}.get(value, value)  # A is the first run, whichever side it stood on
    comment, ms = asked.text("comment", most=MOST_ANSWER, default=""), asked.values.get("ms")
    spent = ms if isinstance(ms, int) and 0 <= ms < 86_400_000 else None
    with _locks[ident]:

        def change(connection: sa.Connection) -> None:
            mine = sa.and_(answers.c.queue == ident, answers.c.item == row.id)
            by = set(connection.scalars(sa.select(answers.c.person).where(mine)))
            if person.id not in by:
                _check_turn(connection, ident, row.id, person.id, by, spec["overlap"])
            if connection.scalar(sa.select(queues.c.closed).where(queues.c.id == ident)) is not None:
                raise Refused(409, "the queue is closed")
            line = _keep(asked, row, "answer", value, comment=comment, ms=spent)
            _enter(connection, line)

        asked.server.database.write(change)
    return {"saved": row.id}


def _check_turn(
    connection: sa.Connection, queue: str, item: str, person: str, by: set[str], overlap: int
) -> None:
    """Whether a person who has not answered may: the item is theirs, or there is room for one more."""
    held = connection.execute(sa.select(leases).where(leases.c.queue == queue, leases.c.item == item)).all()
    now = int(time.time())
    others = {row.person for row in held if row.until > now and not row.skipped and row.person != person}
    mine = any(row.person == person and row.until > now and not row.skipped for row in held)
    if len(by) >= overlap or (not mine and len(by | others) >= overlap):
        raise Refused(409, "others have answered this item meanwhile")


def _enter(connection: sa.Connection, line: Mapping[str, Any]) -> None:
    """A line of the file into the database; the latest of a person counts."""
    which = sa.and_(answers.c.queue == line["queue"], answers.c.item == line["item"],
                    answers.c.person == line["person"])  # fmt: skip
    connection.execute(answers.delete().where(which))
    if line["kind"] == "answer":
        connection.execute(answers.insert().values(
            queue=line["queue"], item=line["item"], person=line["person"], ts=line["ts"],
            value=orjson.dumps(line["value"]).decode(), comment=str(line.get("comment") or ""),
        ))  # fmt: skip


def skip(asked: Asked) -> Any:
    _check_open(asked)
    row = _item(asked)
    asked.server.database.write(
        lambda connection: _hold(connection, asked.queue.id, row.id, asked.person.id, 0, skipped=1)
    )
    return {"skipped": row.id}


def undo(asked: Asked) -> Any:
    """Take one's last answer back: the item comes again. Its line stays, with one that ends it."""
    _check_open(asked)
    ident, person = asked.queue.id, asked.person.id
    with _locks[ident]:
        query = sa.select(answers).where(answers.c.queue == ident, answers.c.person == person)
        last = asked.server.database.read(lambda c: c.execute(query.order_by(answers.c.ts.desc())).first())
        if last is None:
            raise Refused(409, "you have answered nothing here")
        which = sa.and_(items.c.queue == ident, items.c.id == last.item)
        row = asked.server.database.read(
            lambda connection: connection.execute(sa.select(items).where(which)).one()
        )

        def change(connection: sa.Connection) -> None:
            _enter(connection, _keep(asked, row, "undo", None))
            _hold(connection, ident, row.id, person, int(time.time()) + LEASE_S)

        asked.server.database.write(change)
    return {"undone": row.id}


def adjudicate(asked: Asked) -> Response:
    _check_open(asked)
    row, spec = _item(asked), _spec(asked)
    value = _checked(spec["schema"], asked.values.get("value"))
    with _locks[asked.queue.id]:
        _keep(asked, row, "adjudicate", value)
    return asked.done({"adjudicated": row.id, "value": value}, f"/q/{asked.queue.id}/results")


# What came of it


def _state(asked: Asked) -> dict[str, Any]:
    """Answers by item and person, what was adjudicated, and who the people are."""
    ident = asked.queue.id
    query = sa.select(answers).where(answers.c.queue == ident)
    rows = asked.server.database.read(lambda connection: connection.execute(query).all())
    names = {each["id"]: each["name"] for each in asked.server.accounts.people()}
    given: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in rows:
        given[row.item][names.get(row.person, row.person)] = orjson.loads(row.value)
    lines = read_lines(_path(asked.folder, ident)) if asked.row is not None else []
    decided = {line["item"]: line["value"] for line in lines if line.get("kind") == "adjudicate"}
    known = asked.server.database.read(
        lambda c: c.execute(sa.select(items).where(items.c.queue == ident).order_by(items.c.sample_id)).all()
    )
    return {"answers": given, "decided": decided, "items": known, "names": names}


def gold(answers: Mapping[str, Any], adjudicated: Any = None) -> tuple[Any, str]:
    """What stands for an item, and why: what all say, else what was adjudicated, else what most say; None
    where there is none of these."""
    said = Counter(map(str, answers.values()))
    if adjudicated is not None:
        return adjudicated, "adjudicated"
    if not said:
        return None, "none"
    (first, n), *rest = said.most_common(2)
    value = next(each for each in answers.values() if str(each) == first)
    if not rest:
        return value, "unanimous"
    return (value, "majority") if n > rest[0][1] else (None, "none")


def _results(asked: Asked) -> dict[str, Any]:
    spec, state = _spec(asked), _state(asked)
    level = KINDS[spec["schema"]["kind"]]
    agreed = asked.server.jobs.kept(
        "agreement", [], level=level, values=spec["schema"]["choices"], answers=state["answers"]
    )
    listed = []
    for row in state["items"]:
        said = state["answers"].get(row.id, {})
        value, why = gold(said, state["decided"].get(row.id))
        listed.append({"item": row.id, "sample_id": row.sample_id, "answers": said, "gold": value, "why": why,
                       "shown": orjson.loads(row.shown)})  # fmt: skip
    done = sum(len(each["answers"]) >= spec["overlap"] for each in listed)
    return {"queue": asked.queue.id, "title": asked.queue.title,
            "closed": asked.queue.closed is not None, **spec,
            "items": len(listed), "done": done, "agreement": agreed, "results": listed}  # fmt: skip


def results(asked: Asked) -> Any:
    return _results(asked)


def results_page(asked: Asked) -> Response:
    return asked.page("results.html.j2", **_results(asked))


def close(asked: Asked) -> Response:
    """End the queue: its gold becomes labels of the sweep, compared with the scores as by `evalrun label`."""
    _check_open(asked)
    ident = asked.queue.id
    with _locks[ident]:
        change = (
            queues.update()
            .where(queues.c.id == ident, queues.c.closed.is_(None))
            .values(closed=int(time.time()))
        )
        if not asked.server.database.write(lambda connection: connection.execute(change).rowcount):
            raise Refused(409, "the queue is closed")
    found, said = _results(asked), None
    rows = [each for each in found["results"] if each["gold"] is not None]
    if rows and found["schema"]["kind"] in ("pass_fail", "scale", "choice"):
        column = f"queue {asked.queue.title}"[:60]
        path = asked.server.store.root / f".gold-{ident}.jsonl"
        lines = [{"sample_id": each["sample_id"], "run": found["run"], column: each["gold"]} for each in rows]
        path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
        try:
            said = asked.server.jobs.run("label", actor=asked.person.actor, sweep=asked.folder.ulid,
                                         run=found["run"], file=str(path), column=column)  # fmt: skip
        finally:
            path.unlink(missing_ok=True)
    with asked.server.store.changing(asked.folder):
        asked.folder.append_event("close_queue", {"queue": ident, "gold": len(rows)})
    asked.server.queues_changed()
    return asked.done({"closed": ident, "gold": len(rows), "labels": said}, f"/q/{ident}/results")


def status(asked: Asked) -> Any:
    spec, state = _spec(asked), _state(asked)
    done = sum(len(given) >= spec["overlap"] for given in state["answers"].values())
    own = sum(asked.person.name in given for given in state["answers"].values())
    return {"queue": asked.queue.id, "title": asked.queue.title, "items": len(state["items"]), "done": done,
            "yours": own, "closed": asked.queue.closed is not None, "schema": spec["schema"]}  # fmt: skip


# Pages


def overview(asked: Asked) -> Response:
    rows = asked.server.database.read(
        lambda c: c.execute(sa.select(queues).order_by(queues.c.created.desc()).limit(500)).all()
    )
    mine = [row for row in rows if asked.person.may("annotator", row.project)]
    return asked.page("queues.html.j2", queues=[(row, orjson.loads(row.spec)) for row in mine])


def page(asked: Asked) -> Response:
    spec = _spec(asked)
    return asked.page("label.html.j2", queue=asked.queue, schema=spec["schema"],
                      schema_json=orjson.dumps(spec["schema"]).decode())  # fmt: skip


# After a crash


def recover(server: Server) -> None:
    """Bring trail and database up to date with the files, which hold everything that was confirmed: a server
    that was killed may have written a line and not its event, or not its row."""
    known = server.database.read(
        lambda c: {row.id: row for row in c.execute(sa.select(queues).where(queues.c.closed.is_(None)))}
    )
    for name in {row.sweep for row in known.values()} | _with_feedback(server):
        row = server.index.get(name)
        if row is not None:
            _tell(SweepFolder(row.folder))
    for ident, queue in known.items():
        row = server.index.get(queue.sweep)
        lines = read_lines(_path(SweepFolder(row.folder), ident)) if row is not None else []

        def change(
            connection: sa.Connection, ident: str = ident, lines: list[dict[str, Any]] = lines
        ) -> None:
            connection.execute(answers.delete().where(answers.c.queue == ident))
            for line in lines:
                if line.get("kind") in ("answer", "undo") and line.get("queue") == ident:
                    _enter(connection, line)

        if lines:
            server.database.write(change)


def _with_feedback(server: Server) -> set[str]:
    return {path.parent.parent.name[:26] for path in server.store.sweeps.glob("*/labels/feedback.jsonl")}


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
