"""What came of a queue: agreement, adjudication, gold, and its end."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa
from starlette.responses import Response

from evalrun.server.answers import keep, locks, path_of
from evalrun.server.asked import Asked, Refused
from evalrun.server.database import Answer, Item, Queue, User
from evalrun.server.durable import read_lines
from evalrun.server.queues import check_open, item_of, spec_of
from evalrun.server.schema import LEVELS, checked
from evalrun.tracking.folder import SweepFolder

if TYPE_CHECKING:
    from evalrun.server.app import Server


def adjudicate(asked: Asked) -> Response:
    check_open(asked)
    row = item_of(asked)
    value = checked(spec_of(asked.queue)["schema"], asked.values.get("value"))
    with locks[asked.queue.id]:
        keep(asked.folder, row, asked.person, "adjudicate", value)
    return asked.done({"adjudicated": row.id, "value": value}, f"/q/{asked.queue.id}/results")


def gold(answers: Mapping[str, Any], adjudicated: Any = None) -> tuple[Any, str]:
    """What stands for an item, and why: what was adjudicated, else what all or most say; None where there is
    none of these."""
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


def status_of(server: Server, queue: Any, person: str = "") -> dict[str, Any]:
    """How far a queue is."""
    n = sa.func.count()
    rows = server.database.all(
        sa.select(Answer.item, n).where(Answer.queue == queue.id).group_by(Answer.item)
    )
    own = sa.select(n).where(Answer.queue == queue.id, Answer.person == person)
    items = server.database.column(sa.select(n).where(Item.queue == queue.id))[0]
    spec = spec_of(queue)
    done = sum(count >= spec["overlap"] for _, count in rows)
    return {"queue": queue.id, "title": queue.title, "items": items, "done": done,
            "answers": sum(count for _, count in rows), "yours": server.database.column(own)[0],
            "closed": queue.closed is not None, "schema": spec["schema"]}  # fmt: skip


def results_of(server: Server, queue: Any, folder: SweepFolder | None) -> dict[str, Any]:
    """Answers by item and person, their agreement (always before adjudication), and what stands for each."""
    spec = spec_of(queue)
    people = server.database.all(sa.select(User.id, User.name))
    shared = Counter(row.name for row in people)
    names = {row.id: row.name if shared[row.name] == 1 else f"{row.name} ({row.id[-4:]})" for row in people}
    given: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in server.database.all(sa.select(Answer).where(Answer.queue == queue.id)):
        given[row.item][names.get(row.person, row.person)] = orjson.loads(row.value)
    lines = read_lines(path_of(folder, queue.id)) if folder is not None else []
    decided = {line["item"]: line["value"] for line in lines if line.get("kind") == "adjudicate"}
    agreed = server.jobs.kept(
        "agreement", [], level=LEVELS[spec["schema"]["kind"]], values=spec["schema"]["choices"], answers=given
    )
    listed = []
    for row in server.database.all(sa.select(Item).where(Item.queue == queue.id).order_by(Item.sample_id)):
        said = given.get(row.id, {})
        value, why = gold(said, decided.get(row.id))
        listed.append({"item": row.id, "sample_id": row.sample_id, "answers": said, "gold": value, "why": why,
                       "shown": orjson.loads(row.shown)})  # fmt: skip
    done = sum(len(each["answers"]) >= spec["overlap"] for each in listed)
    return {"queue": queue.id, "title": queue.title, "closed": queue.closed is not None, **spec,
            "items": len(listed), "done": done, "agreement": agreed, "results": listed}  # fmt: skip


def close_it(server: Server, queue: Any, folder: SweepFolder, actor: str) -> dict[str, Any]:
    """End a queue: its gold becomes labels of the sweep, compared with the scores as by `evalrun label`."""
    with locks[queue.id]:
        change = sa.update(Queue).where(Queue.id == queue.id, Queue.closed.is_(None))
        if not server.database.do(change.values(closed=int(time.time()))):
            raise Refused(409, "the queue is closed")
    found, labels = results_of(server, queue, folder), None
    rows = [each for each in found["results"] if each["gold"] is not None]
    if rows and found["schema"]["kind"] in ("pass_fail", "scale", "choice"):
        column = f"queue {queue.title}"[:60]
        path = server.store.root / f".gold-{queue.id}.jsonl"
        lines = [{"sample_id": each["sample_id"], "run": found["run"], column: each["gold"]} for each in rows]
        path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
        try:
            labels = server.jobs.run("label", actor=actor, sweep=folder.ulid, run=found["run"],
                                     file=str(path), column=column)  # fmt: skip
        finally:
            path.unlink(missing_ok=True)
    with server.store.changing(folder):
        folder.append_event("close_queue", {"queue": queue.id, "gold": len(rows)})
    server.queues_changed()
    return {"closed": queue.id, "gold": len(rows), "labels": labels}


# Routes


def _results(asked: Asked) -> dict[str, Any]:
    return results_of(asked.server, asked.queue, asked.folder if asked.row is not None else None)


def results(asked: Asked) -> Any:
    return _results(asked)


def page(asked: Asked) -> Response:
    return asked.page("results.html.j2", **_results(asked))


def close(asked: Asked) -> Response:
    check_open(asked)
    done = close_it(asked.server, asked.queue, asked.folder, asked.person.actor)
    return asked.done(done, f"/q/{asked.queue.id}/results")


def status(asked: Asked) -> Any:
    return status_of(asked.server, asked.queue, asked.person.id)
