"""Queues: blind, k people an item, durable before it is confirmed, agreement by the books, gold."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.team import Client, Running

from evalrun.server.results import gold
from evalrun.tracking.audit import verify
from evalrun.tracking.changes import said
from evalrun.tracking.folder import SweepFolder


def _queue(team: Running, sweep: SweepFolder, **values: Any) -> str:
    document = {
        "title": "q",
        "run": "m-p-d",
        "schema": {"kind": "pass_fail"},
        "n": 12,
        "overlap": 2,
        "blind": True,
    }
    answer = team.machine("editor", name="ed").post(
        f"/api/v1/sweeps/{sweep.ulid}/queues", {**document, **values}
    )
    assert answer.status == 200, answer.body
    return str(answer.json["queue"])


def _annotator(team: Running, name: str) -> Client:
    return team.person(name, {"team": "annotator"})


def _answer(client: Client, queue: str, choose: Callable[[Any], Any]) -> Any:
    item = client.post(f"/api/v1/queues/{queue}/next").json["item"]
    if item is not None:
        path = f"/api/v1/queues/{queue}/items/{item['id']}/answer"
        assert client.post(path, {"value": choose(item), "comment": "", "ms": 10}).status == 200
    return item


def _answer_all(client: Client, queue: str, choose: Callable[[Any], Any]) -> int:
    count = 0
    while _answer(client, queue, choose) is not None:
        count += 1
    return count


def test_a_blind_annotator_is_told_nothing(team: Running, sweep: SweepFolder) -> None:
    queue, ana, ben = _queue(team, sweep), _annotator(team, "ana"), _annotator(team, "ben")
    _answer_all(ben, queue, lambda item: "fail")
    seen = b""
    for path in (f"/q/{queue}", "/queues", "/", f"/api/v1/queues/{queue}", "/api/v1/sweeps"):
        answer = ana.get(path)
        seen += answer.body + str(answer.headers).encode()
    for _ in range(12):
        answer = ana.post(f"/api/v1/queues/{queue}/next")
        seen += answer.body + str(answer.headers).encode()
        item = answer.json["item"]["id"]
        ana.post(f"/api/v1/queues/{queue}/items/{item}/answer", {"value": "pass"})
    for secret in (b"m-p-d", sweep.ulid.encode(), b"exact_match", b"ben", b"other", b"want"):
        assert secret not in seen, secret
    for path in (f"/s/{sweep.ulid}", f"/api/v1/sweeps/{sweep.ulid}", "/p/team", f"/compare?s={sweep.ulid}"):
        assert ana.get(path).status == 404
    assert ana.get(f"/q/{queue}/results").status == 403
    assert team.machine("editor").post(f"/api/v1/queues/{queue}/close").status == 200
    assert ana.get(f"/s/{sweep.ulid}").status == 200


def test_never_more_people_an_item_than_were_asked_for(team: Running, sweep: SweepFolder) -> None:
    queue = _queue(team, sweep, overlap=2)
    people = [_annotator(team, name) for name in ("a", "b", "c", "d")]
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda p=p: counts.append(_answer_all(p, queue, lambda item: "pass")))  # type: ignore[misc]
        for p in people
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results = team.machine("editor").get(f"/api/v1/queues/{queue}/results").json["results"]
    assert sum(counts) == 24
    assert all(len(each["answers"]) == 2 for each in results)
    # One who was given none cannot answer by guessing the address.
    late = _annotator(team, "late")
    path = f"/api/v1/queues/{queue}/items/{results[0]['item']}/answer"
    assert late.post(path, {"value": "pass"}).status == 409


def test_an_answer_can_be_changed_taken_back_and_skipped(team: Running, sweep: SweepFolder) -> None:
    queue, ana = _queue(team, sweep, n=2), _annotator(team, "ana")
    first = _answer(ana, queue, lambda item: "pass")
    assert ana.post(f"/api/v1/queues/{queue}/undo").json == {"undone": first["id"]}
    assert ana.post(f"/api/v1/queues/{queue}/next").json["item"]["id"] == first["id"]
    assert ana.post(f"/api/v1/queues/{queue}/items/{first['id']}/skip").status == 200
    second = _answer(ana, queue, lambda item: "fail")
    assert second["id"] != first["id"]
    path = f"/api/v1/queues/{queue}/items/{second['id']}/answer"
    assert ana.post(path, {"value": "maybe"}).status == 400
    assert ana.post(path, {"value": "pass"}).status == 200
    lines = (sweep.path / "labels" / f"queue-{queue.lower()}.jsonl").read_text().splitlines()
    assert len(lines) == 4  # all that was ever said
    results = team.machine("editor").get(f"/api/v1/queues/{queue}/results").json["results"]
    assert sorted(str(each["answers"]) for each in results) == ["{'ana': 'pass'}", "{}"]


def test_what_was_confirmed_outlives_a_crash_at_any_moment(
    team: Running, start: Callable[..., Running], sweep: SweepFolder, root: Path
) -> None:
    """A server that dies between the line, its event and its row: the next one knows all three."""
    queue, ana = _queue(team, sweep), _annotator(team, "ana")
    for _ in range(3):
        _answer(ana, queue, lambda item: "pass")
    team.stop()
    (root / "server.db-wal").exists()
    import sqlalchemy as sa

    from evalrun.server.database import Answer, Database
    from evalrun.tracking.store import Store

    database = Database(Store(root))
    database.write(lambda connection: connection.execute(sa.delete(Answer)))
    database.close()
    path = sweep.path / "events.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))  # the last answer's event
    labels = sweep.path / "labels" / f"queue-{queue.lower()}.jsonl"
    with labels.open("a") as file:
        file.write('{"kind":"answer","torn')
    again = start()
    results = again.machine("editor").get(f"/api/v1/queues/{queue}/results").json["results"]
    assert sum(len(each["answers"]) for each in results) == 3
    _answer(again.person("ana"), queue, lambda item: "fail")
    assert len(labels.read_text().splitlines()) == 4
    assert [event["actor"] for event in sweep.events() if event["action"] == "answer"] == ["ana (link)"] * 4


def test_an_altered_answer_is_found(team: Running, sweep: SweepFolder) -> None:
    queue = _queue(team, sweep, overlap=1)
    _answer_all(_annotator(team, "ana"), queue, lambda item: "pass")
    assert verify(team.store).broken == []
    labels = sweep.path / "labels" / f"queue-{queue.lower()}.jsonl"
    labels.write_text(labels.read_text().replace('"pass"', '"fail"', 1))
    assert [each.what for each in verify(team.store).broken] == ["1 of its lines were altered or are gone"]


def test_the_textbook_queue(team: Running, sweep: SweepFolder) -> None:
    """Krippendorff (2011), four people, twelve units with gaps: alpha of the ordinal level is 0.815."""
    table = {
        "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        "C": [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    }
    queue = _queue(team, sweep, schema={"kind": "scale", "min": 1, "max": 5}, overlap=4, pick="query")
    editor = team.machine("editor")
    items = [each["item"] for each in editor.get(f"/api/v1/queues/{queue}/results").json["results"]]
    for name, values in table.items():
        person = _annotator(team, name)
        for item, value in zip(items, values, strict=True):
            if value is not None:
                path = f"/api/v1/queues/{queue}/items/{item}/answer"
                assert person.post(path, {"value": value}).status == 200
    found = editor.get(f"/api/v1/queues/{queue}/results").json
    assert round(found["agreement"]["alpha"]["value"], 3) == 0.815
    assert found["agreement"]["alpha"]["ci_low"] < 0.815 < found["agreement"]["alpha"]["ci_high"]
    sixth = found["results"][5]
    assert (sixth["gold"], sixth["why"]) == (None, "none")
    path = f"/api/v1/queues/{queue}/items/{sixth['item']}/adjudicate"
    assert editor.post(path, {"value": 2}).status == 200
    closed = editor.post(f"/api/v1/queues/{queue}/close").json
    assert closed["gold"] == 12
    assert said(sweep).labels[0].n == 12
    assert said(sweep).labels[0].actor == "ci (token)"
    assert editor.post(f"/api/v1/queues/{queue}/close").status == 409
    assert verify(team.store).broken == []


def test_sides_of_a_pair_are_drawn_and_counted_by_run(team: Running, sweep: SweepFolder) -> None:
    queue = _queue(team, sweep, schema={"kind": "pair"}, other="other-p-d", overlap=1, pick="query")
    sides: list[list[str]] = []

    def first_run(item: Any) -> str:
        pair = next(part["pair"] for part in item["shown"] if "pair" in part)
        sides.append(pair)
        return "A"  # always the left side

    _answer_all(_annotator(team, "ana"), queue, first_run)
    results = team.machine("editor").get(f"/api/v1/queues/{queue}/results").json["results"]
    assert {each["gold"] for each in results} == {"A", "B"}  # the left one was now of this run, now of that
    assert len(sides) == 12


@pytest.mark.parametrize(
    ("answers", "decided", "expected"),
    [
        ({}, None, (None, "none")),
        ({"a": "x"}, None, ("x", "unanimous")),
        ({"a": "x", "b": "y"}, None, (None, "none")),
        ({"a": "x", "b": "y", "c": "y"}, None, ("y", "majority")),
        ({"a": "x", "b": "x"}, "y", ("y", "adjudicated")),
        ({"a": 1, "b": 1}, None, (1, "unanimous")),
    ],
)
def test_gold(answers: dict[str, Any], decided: Any, expected: tuple[Any, str]) -> None:
    assert gold(answers, decided) == expected


def test_feedback_of_an_application(team: Running, sweep: SweepFolder) -> None:
    app = team.machine("feedback", "team")
    values = {"sweep": sweep.ulid, "run": "m-p-d", "text": "wrong <b>"}
    for at in range(12):
        answer = app.post("/api/feedback", {**values, "sample": f"s{at:04d}", "rating": at % 3 > 0})
        assert answer.json == {"kept": "sample"}
    assert app.post("/api/feedback", {**values, "sample": "s9", "rating": 1}).status == 404
    assert app.post("/api/feedback", {**values, "sample": "s0001", "rating": "very"}).status == 400
    vic, path = team.machine("viewer", name="vic"), f"/s/{sweep.ulid}"
    assert "other-p-d" not in vic.get(path).body.decode().partition("Feedback from applications")[2]
    assert app.post("/api/feedback", {"request": "r-1", "rating": "up"}).json == {"kept": "request"}
    shown = vic.get(path).body.decode().partition("Feedback from applications")[2]
    assert "other-p-d" in shown  # a sample of each run has that request's id
    for path in ("/", f"/s/{sweep.ulid}", "/api/v1/sweeps"):
        assert app.get(path).status in (403, 404)
    page = team.machine("viewer").get(f"/s/{sweep.ulid}").body.decode()
    assert "Feedback from applications" in page
    assert "kappa" in page
    assert verify(team.store).broken == []
