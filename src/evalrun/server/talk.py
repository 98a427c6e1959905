"""What people say and decide: comments, tags, baselines, approvals, promotions, feedback of applications.

Each is an event in the sweep's trail with the person's name, as if it had been said on the command line.
"""

from __future__ import annotations

import threading
from typing import Any

from starlette.responses import Response

from evalrun.server.asked import Asked, Refused
from evalrun.server.durable import append_line, requests_file
from evalrun.tracking import changes
from evalrun.tracking.events import utc_now
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.people import BAD, FEEDBACK, GOOD, LABELS_FOLDER, read_tags
from evalrun.tracking.targets import Target, within

_MOST_REASON = 2_000
_feedback_lock = threading.Lock()


def _back(asked: Asked) -> str:
    return f"/s/{asked.folder.ulid}"


def _target(asked: Asked, name: str) -> Target:
    """RUN or RUN/SAMPLE of the sweep; empty: the sweep. Raises UserError where it is not there."""
    return within(asked.folder, name.split("/")) if name else Target(asked.folder)


def note(asked: Asked) -> Response:
    target = _target(asked, asked.text("target", most=500, default=""))
    changes.note(asked.server.store, asked.folder, asked.text("text"), target.name)
    return asked.done({"noted": target.name or asked.folder.ulid}, _back(asked))


def tag(asked: Asked) -> Response:
    name, value = asked.text("name", most=200), asked.text("value", most=200, default="")
    given = read_tags([f"{name}={value}"]) if value else {}
    now = changes.tag(asked.server.store, asked.folder, given, () if value else (name,))
    asked.server.index.all(now=True)
    return asked.done({"tags": dict(now)}, _back(asked))


def archive(asked: Asked) -> Response:
    archived = not asked.values.get("undo")
    changes.archive(asked.server.store, asked.folder, archived)
    asked.server.index.all(now=True)
    return asked.done({"archived": archived}, _back(asked))


def baseline(asked: Asked) -> Response:
    done = changes.set_baseline(asked.server.store, asked.text("name", most=100), asked.folder)
    return asked.done({"baseline": done.name, "sweep": done.sweep}, _back(asked))


def approve(asked: Asked) -> Response:
    verdict, reason = asked.text("verdict"), asked.text("reason", most=_MOST_REASON)
    if verdict not in ("approved", "rejected"):
        raise Refused(400, "'verdict' is approved or rejected")
    target = _target(asked, asked.text("run", most=300))
    with asked.server.store.changing(asked.folder):
        asked.folder.append_event("approve", {"verdict": verdict, "reason": reason}, target=target.name)
    return asked.done({"run": target.name, "verdict": verdict}, _back(asked))


def promote(asked: Asked) -> Response:
    override = asked.values.get("override") in (True, "1", "true")
    if override and not asked.person.may("admin", asked.project):
        raise Refused(403, "to promote in spite of objections needs the role admin")
    wish = changes.Wish(asked.text("name", most=100), asked.text("reason", most=_MOST_REASON), override)
    done = changes.promote(asked.server.store, _target(asked, asked.text("run", most=300)), wish)
    return asked.done({"name": done.name, "sweep": done.sweep, "run": done.run}, _back(asked))


def delete(asked: Asked) -> Any:
    changes.delete(asked.server.store, asked.folder, asked.param("reason"))
    asked.server.index.all(now=True)
    return {"deleted": asked.folder.ulid}


# Feedback


def _rating(value: Any) -> float:
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float) and -1e6 < value < 1e6:
        return float(value)
    if isinstance(value, str) and value.lower() in GOOD | BAD:
        return float(value.lower() in GOOD)
    raise Refused(400, "'rating' is a number, true or false, or up or down")


def feedback(asked: Asked) -> Any:
    """Of a sample of a sweep: into its folder and trail. Of a request: into the project's file."""
    rating, text = _rating(asked.values.get("rating")), asked.text("text", most=4_000, default="")
    said = {"rating": rating, "text": text, "actor": asked.person.actor, "ts": utc_now()}
    ulid = asked.text("sweep", most=26, default="")
    if not ulid:
        request = asked.text("request", most=300)
        project = asked.text("project", most=200, default="") or _only_project(asked)
        if not asked.person.may("feedback", project):
            raise Refused(404, "there is no such project")
        line = {"project": project, "request_id": request, **said}
        with _feedback_lock:
            digest = append_line(requests_file(asked.server.store), line)
            asked.server.store.append_event("feedback", {"file": "feedback/requests.jsonl", "line": digest})
        return {"kept": "request"}
    row = asked.server.index.get(ulid)
    if row is None or not asked.person.may("feedback", row.project):
        raise Refused(404, "there is no such sweep")
    sweep = SweepFolder(row.folder)
    sample, run = asked.text("sample", most=300), asked.text("run", most=300)
    _known_sample(asked, sweep, run, sample)
    with _feedback_lock:
        path = sweep.path / LABELS_FOLDER / "feedback.jsonl"
        digest = append_line(path, {"run": run, "sample_id": sample, **said})
        detail = {"file": f"{LABELS_FOLDER}/feedback.jsonl", "line": digest, "rating": rating}
        sweep.append_event(FEEDBACK, detail, target=f"{run}/{sample}")
    return {"kept": "sample"}


def _only_project(asked: Asked) -> str:
    named = [project for project in asked.person.grants if project != "*"]
    if len(named) != 1:
        raise Refused(400, "'project' is missing")
    return named[0]


def _known_sample(asked: Asked, sweep: SweepFolder, run: str, sample: str) -> None:
    if run not in sweep.run_ids():
        raise Refused(404, f"the sweep has no finished run '{run[:80]}'")
    if sample not in asked.server.jobs.sample_ids(sweep, run):
        raise Refused(404, f"the run has no sample '{sample[:80]}'")
