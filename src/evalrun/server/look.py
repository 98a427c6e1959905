"""What is looked at: projects, sweeps, search, reports, comparisons, trends, and a sweep while it runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import anyio.to_thread
import sqlalchemy as sa
from starlette.responses import FileResponse, Response, StreamingResponse

from evalrun._version import __version__
from evalrun.reports.numbers import figure
from evalrun.reports.page import asset
from evalrun.server.asked import Asked, Json, Refused
from evalrun.server.database import Queue
from evalrun.server.durable import requests_file
from evalrun.server.following import Follower
from evalrun.server.jobs import page_stamp
from evalrun.server.live import Followed
from evalrun.server.routes import openapi as document
from evalrun.server.security import SANDBOX
from evalrun.tracking.changes import list_baselines
from evalrun.tracking.finding import Found, Search
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.glance import SweepRow
from evalrun.tracking.people import LABELS_FOLDER, fold

PAGE, MOST_RUNS, MOST_COMPARED = 50, 200, 12
_ASSETS = Path(__file__).parent / "assets"


def _rows(asked: Asked, project: str = "", archived: bool = False) -> list[SweepRow]:
    """The sweeps that the person may see; whoever has the same roles is told from memory."""
    server = asked.server
    rows = server.index.all()
    key = (server.index.version, server.blinded(), _grants(asked))
    mine = server.seen.keep(key, lambda: [row for row in rows if asked.sees(row)])
    return [row for row in mine if (not project or row.project == project) and (archived or not row.archived)]


def _grants(asked: Asked) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(asked.person.grants.items()))


def _kept(asked: Asked, make: Callable[[], Any], *stamps: object) -> Response:
    """A page that depends on nothing but the sweeps there are, who asks, the address and the stamps."""
    server, person = asked.server, asked.person
    server.index.all()
    who = (person.id, person.name, bool(person.session), _grants(asked))
    key = (str(asked.request.url), who, server.index.version, server.blinded(), *stamps)

    def made() -> tuple[bytes, str | None]:
        answer = make()
        whole = answer if isinstance(answer, Response) else Json(answer)
        return bytes(whole.body), whole.media_type

    body, kind = server.pages.keep(key, made)
    return Response(body, media_type=kind)


def _shown(asked: Asked, rows: list[SweepRow]) -> list[dict[str, Any]]:
    """Rows for a table: with their number, score and how they are called."""
    found = []
    for row in rows:
        best = asked.server.index.score(row) if row.runs else None
        score = {} if best is None else {"score": figure(best.value, unit=best.unit), "metric": best.metric}
        found.append(
            {"row": row, "score": "", "metric": "", "when": row.started_at[:16].replace("T", " "), **score}
        )
    return found


def _page_of(asked: Asked) -> int:
    text = asked.param("page", "1")
    return max(1, int(text)) if text.isdigit() and len(text) < 7 else 1


def home(asked: Asked) -> Response:
    def make() -> Response:
        projects: dict[str, list[SweepRow]] = {}
        rows = _rows(asked)
        for row in rows:
            projects.setdefault(row.project, []).append(row)
        newest = [(name, len(found), found[0]) for name, found in projects.items()]
        running = [row for row in rows if row.status == "running"][:10]
        return asked.page("home.html.j2", projects=newest[:500], sweeps=_shown(asked, rows[:20]),
                          total=len(rows), running=running, elsewhere=elsewhere)  # fmt: skip

    elsewhere = [
        (ulid, known) for ulid, known in asked.server.live.elsewhere.items()
        if asked.person.may("viewer", known.project)
    ]  # fmt: skip
    return _kept(asked, make, *[ulid for ulid, _ in elsewhere])


def project(asked: Asked) -> Response:
    def make() -> Response:
        rows = _rows(asked, asked.project, asked.param("archived") == "1")
        if not rows:
            raise Refused(404, "there is no such project, or no sweep of it that you may see")
        at = _page_of(asked)
        shown = rows[(at - 1) * PAGE : at * PAGE]
        return asked.page("project.html.j2", sweeps=_shown(asked, shown), total=len(rows), at=at,
                          pages=-(-len(rows) // PAGE))  # fmt: skip

    return _kept(asked, make)


def _found(asked: Asked) -> tuple[list[dict[str, Any]], int]:
    search = Search.of(asked.param("q"), sort=[each for each in [asked.param("sort")] if each], limit=5000)
    found = asked.server.store.find(search)
    known = asked.server.index
    known.all()
    rows = [
        asdict(row) for row in found.rows if row.sweep in known.by_id and asked.sees(known.by_id[row.sweep])
    ]
    # How many there are in all is said only of what one may see.
    return rows[:MOST_RUNS], len(rows)


def find(asked: Asked) -> Response:
    query = asked.param("q")
    if not query:
        return asked.page("find.html.j2", runs=[], total=0, query="", metrics=[])
    runs, total = _found(asked)
    metrics = list(runs[0]["metrics"]) if runs else []
    return asked.page("find.html.j2", runs=runs, total=total, query=query, metrics=metrics)


def sweep(asked: Asked) -> Response:
    row = asked.row
    if row is None:
        return asked.page("elsewhere.html.j2", ulid=asked.ulid, known=asked.server.live.elsewhere[asked.ulid])
    queues = asked.server.database.all(sa.select(Queue).where(Queue.sweep == row.sweep))
    stamps = (
        page_stamp(asked.folder),
        asked.server.index.changes(),
        [(each.id, each.closed) for each in queues],
    )
    return _kept(asked, lambda: _sweep(asked, row, queues), repr(stamps))


def _sweep(asked: Asked, row: SweepRow, queues: list[Any]) -> Response:
    found = _runs(asked, row)
    best = asked.server.index.score(row)
    manifest = asked.folder.manifest()
    said = fold(manifest.tags, asked.folder.events())
    events = [event for event in asked.folder.events() if event["action"] in ("approve", "promote", "deploy")]
    names = [each.name for each in list_baselines(asked.server.store) if each.sweep == row.sweep]
    return asked.page(
        "sweep.html.j2", row=row, runs=found.rows, total=found.total, best=best, said=said, queues=queues,
        events=events[::-1], baselines=names, gates=asked.folder.read_manifest()["gates"],
        running=row.status == "running", feedback=_feedback(asked, row),
    )  # fmt: skip


def _feedback(asked: Asked, row: SweepRow) -> Any:
    from evalrun.errors import UserError

    files = asked.folder.path / LABELS_FOLDER / "feedback.jsonl", requests_file(asked.server.store)
    known = [file.stat() for file in files if file.exists()]
    if not known:
        return None
    try:
        stamps = [page_stamp(asked.folder), *(f"{each.st_mtime_ns} {each.st_size}" for each in known)]
        return asked.server.jobs.kept("feedback", stamps, sweep=row.sweep)
    except UserError:
        return None


def _runs(asked: Asked, row: SweepRow) -> Found:
    """The runs of a sweep, read again when its folder changes: the catalog looks at all sweeps first."""
    key = (row.sweep, page_stamp(SweepFolder(row.folder)))
    return asked.server.runs.keep(key, lambda: asked.server.store.find(_runs_search(asked, row)))


def _runs_search(asked: Asked, row: SweepRow) -> Search:
    best = asked.server.index.score(row)
    metrics = (best.metric,) if best is not None else ()
    sort = (
        [f"-metric.{metrics[0]}"]
        if metrics and metrics[0].replace(".", "").replace("_", "").isalnum()
        else []
    )
    return Search.of(f'sweep == "{row.sweep}"', sort=sort, metrics=metrics, limit=MOST_RUNS, archived=True)


def _sandboxed(path: Path, stamps: str) -> Response:
    """A page of evalrun's own making that shows what models wrote: never at our origin."""
    headers = {"Content-Security-Policy": SANDBOX, "Cache-Control": "private, no-cache"}
    etag = hashlib.sha256(f"{path.name} {stamps}".encode()).hexdigest()[:32]
    return FileResponse(path, media_type="text/html; charset=utf-8", headers={**headers, "ETag": f'"{etag}"'})


def report(asked: Asked) -> Response:
    if not asked.folder.has_manifest():
        raise Refused(404, "there is no such sweep")
    stamps = page_stamp(asked.folder)
    return _sandboxed(asked.server.jobs.page("report", [stamps], sweep=asked.folder.ulid), stamps)


def compare(asked: Asked) -> Response:
    known, names = asked.server.index, asked.request.query_params.getlist("s")
    if not 1 <= len(names) <= MOST_COMPARED:
        raise Refused(400, f"tick 2 to {MOST_COMPARED} sweeps")
    rows = [known.get(name) for name in names]
    if any(row is None or not asked.sees(row) for row in rows):
        raise Refused(404, "there is no such sweep")
    chosen = sorted(names)  # ids begin with their time: the oldest is what others are compared with
    stamps = [page_stamp(SweepFolder(known.by_id[name].folder)) for name in chosen]
    return _sandboxed(asked.server.jobs.page("compare", stamps, sweeps=chosen), "".join(stamps))


def trend(asked: Asked) -> Response:
    rows = [row for row in asked.server.index.all() if row.project == asked.project]
    if not rows or not all(asked.sees(row) for row in rows):
        raise Refused(404, "there is no such project, or a blind queue of it is open")
    stamp = str(asked.server.index.version)
    metric = asked.param("metric")
    return _sandboxed(asked.server.jobs.page("trend", [stamp], project=asked.project, metric=metric), stamp)


# JSON


def me(asked: Asked) -> Any:
    return {"name": asked.person.name, "actor": asked.person.actor, "roles": asked.person.grants}


def _document(row: SweepRow) -> dict[str, Any]:
    names = (
        "sweep project name status started_at finished_at exit_code planned runs samples failed note archived"
    )
    return {**{name: getattr(row, name) for name in names.split()}, "tags": dict(row.tags)}


def api_projects(asked: Asked) -> Any:
    counts: dict[str, int] = {}
    for row in _rows(asked):
        counts[row.project] = counts.get(row.project, 0) + 1
    return {"projects": [{"project": name, "sweeps": n} for name, n in counts.items()]}


def api_sweeps(asked: Asked) -> Any:
    def make() -> Any:
        rows = _rows(asked, asked.param("project"), asked.param("archived") == "1")
        at = _page_of(asked)
        return {"total": len(rows), "sweeps": [_document(row) for row in rows[(at - 1) * PAGE : at * PAGE]]}

    return _kept(asked, make)


def api_runs(asked: Asked) -> Any:
    runs, total = _found(asked)
    return {"total": total, "runs": runs}


def api_sweep(asked: Asked) -> Any:
    assert asked.row is not None
    found = _runs(asked, asked.row)
    return {**_document(asked.row), "results": [asdict(run) for run in found.rows]}


def _followed(asked: Asked) -> Followed:
    return asked.server.live.elsewhere[asked.ulid] if asked.row is None else Follower(asked.folder)


def progress(asked: Asked) -> Response:
    followed = _followed(asked)
    followed.look()
    return Json(followed.state, headers={"ETag": f'"{followed.offset}"'})


async def live(asked: Asked) -> Response:
    headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
    stream = asked.server.live.stream(asked.ulid, lambda: _followed(asked))
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


def openapi(_: Asked) -> Any:
    return document()


async def healthz(asked: Asked) -> Response:
    try:
        with anyio.fail_after(5):
            await anyio.to_thread.run_sync(asked.server.database.first, sa.select(1), abandon_on_cancel=True)
        return Json({"status": "ok", "version": __version__})
    except Exception:
        return Json({"status": "database away", "version": __version__}, status_code=503)


# Files of the pages


@cache
def _static() -> Mapping[str, tuple[bytes, str]]:
    style = asset("report.css") + (_ASSETS / "server.css").read_text(encoding="utf-8")
    script = (_ASSETS / "server.js").read_text(encoding="utf-8")
    found = {}
    for stem, text, kind in (("css", style, "text/css"), ("js", script, "text/javascript")):
        data = text.encode()
        name = f"{hashlib.sha256(data).hexdigest()[:16]}.{stem}"
        found[name] = (data, kind)
    return found


def asset_names() -> Mapping[str, str]:
    """The address of the style and the script; it changes with what they hold."""
    return {name.rpartition(".")[2]: f"/static/{name}" for name in _static()}


def static(asked: Asked) -> Response:
    found = _static().get(asked.request.path_params["name"])
    if found is None:
        raise Refused(404, "there is no such file")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(found[0], media_type=f"{found[1]}; charset=utf-8", headers=headers)


def day(seconds: int) -> str:
    """The day (UTC) of a moment in seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
