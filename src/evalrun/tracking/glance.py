"""What a list asks of a catalog in SQLite that is in step with the folders, without the database layer: to
import that takes as long as all the rest of a list.

Nothing is written and nothing brought up to date here. Whatever is not as expected (a catalog elsewhere, none
yet, one of another schema, sweeps that it lacks) has no answer, and is the catalog's own to deal with.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from evalrun.frozen import frozen
from evalrun.tracking.folder import SweepFolder, stamp

if TYPE_CHECKING:
    import sqlite3

    from evalrun.tracking.store import Store

_Answer = TypeVar("_Answer")

SCHEMA = "0005"
"""The number of the catalog's tables (tracking/tables.py), four digits; a test holds the two together."""

PATIENCE_S = 5.0
BEGUN = 20
"""So many folders without a manifest (a crash left them) are looked at."""

VARIABLE, SETTING, SQLITE = "EVALRUN_CATALOG", "catalog.json", "catalog.db"


@frozen
class SweepRow:
    """One sweep, as a list shows it. Times are ISO 8601 in UTC; `runs` counts those with results.

    `samples` and `failed` are sums over the runs; `note` is the latest one.
    """

    sweep: str
    project: str
    name: str
    status: str
    started_at: str
    finished_at: str | None
    exit_code: int | None
    planned: int
    runs: int
    samples: int
    failed: int
    user: str | None
    git_commit: str | None
    folder: Path
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None
    archived: bool = False


def glance(
    store: Store, names: Sequence[str] | None, question: Callable[[sqlite3.Connection], _Answer]
) -> _Answer | None:
    """The answer to a question that only reads, or None where there is no catalog in step with the folders.
    `names` are those of all sweep folders; None where they were looked at just now."""
    path = store.root / SQLITE
    if not is_sqlite(store.root) or not path.is_file() or store.is_read_only:
        return None
    import sqlite3

    with contextlib.suppress(sqlite3.Error):
        uri = f"{path.resolve().as_uri()}?mode=rw"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=PATIENCE_S)) as connection:
            connection.execute("PRAGMA query_only = ON")
            return question(connection) if _in_step(connection, store, names) else None
    return None


def is_sqlite(root: Path) -> bool:
    """Whether the catalog of the store at `root` is the file beside the sweeps."""
    elsewhere = os.environ.get(VARIABLE)
    return elsewhere == "sqlite" or not (elsewhere or (root / SETTING).exists())


def _in_step(connection: sqlite3.Connection, store: Store, names: Sequence[str] | None) -> bool:
    stamps = [row[0] for row in connection.execute("SELECT version_num FROM alembic_version")]
    if stamps != [SCHEMA] or names is None:
        return stamps == [SCHEMA]
    by_id = {name[:26]: name for name in names}
    entered = {row[0] for row in connection.execute("SELECT ulid FROM sweep")}
    lacking = by_id.keys() - entered
    if entered - by_id.keys() or len(lacking) > BEGUN or (store.root / "trainings").is_dir():
        return False
    if any(SweepFolder(store.sweeps / by_id[ulid]).has_manifest() for ulid in lacking):
        return False
    if store.marks.is_dir() and any(store.marks.iterdir()):
        return False
    unfinished = connection.execute("SELECT ulid, stamp FROM sweep WHERE status <> 'complete'")
    return all(old == stamp(SweepFolder(store.sweeps / by_id[ulid])) for ulid, old in unfinished)


_ROWS = """
SELECT s.ulid, p.name, s.name, s.status, s.started_at, s.finished_at, s.exit_code, s.planned, s.runs,
       s.samples, s.failed, s.user_name, s.git_commit, s.folder, s.note, s.archived
FROM sweep s JOIN project p ON s.project_id = p.id
WHERE (:project IS NULL OR p.name = :project) AND (:archived OR s.archived = 0)
ORDER BY s.ulid DESC LIMIT :limit
"""
_PLAIN = (
    "sweep", "project", "name", "status", "started_at", "finished_at", "exit_code", "planned", "runs",
    "samples", "failed", "user", "git_commit",
)  # fmt: skip
_EVENTS = """
SELECT e.sweep, e.seq, e.ts, e.actor, e.action, e.target, e.detail, e.hash, p.name AS project
FROM event e JOIN sweep s ON e.sweep = s.ulid JOIN project p ON s.project_id = p.id
WHERE e.action IN ({}) ORDER BY e.ts, e.sweep, e.seq
"""


def sweep_rows(
    connection: sqlite3.Connection, store: Store, limit: int | None, project: str | None, archived: bool
) -> list[SweepRow]:
    """As `Catalog.sweeps`."""
    asked = {"project": project, "archived": archived, "limit": -1 if limit is None else limit}
    rows = connection.execute(_ROWS, asked).fetchall()
    tags: dict[str, dict[str, str]] = {}
    if rows:
        asked_tags = "SELECT sweep, key, value FROM sweep_tag WHERE sweep BETWEEN ? AND ?"
        for sweep, key, value in connection.execute(asked_tags, (rows[-1][0], rows[0][0])):
            tags.setdefault(sweep, {})[key] = value
    return [
        SweepRow(
            **dict(zip(_PLAIN, row, strict=False)),
            folder=store.sweeps / row[13],
            tags=tags.get(row[0], {}),
            note=row[14],
            archived=bool(row[15]),
        )
        for row in rows
    ]


def folder_named(connection: sqlite3.Connection, name: str) -> tuple[str | None]:
    """As `finding.folder_named`, in a tuple: that there is none is an answer too."""
    asked = "SELECT folder FROM sweep WHERE name = ? ORDER BY ulid DESC LIMIT 1"
    return connection.execute(asked, (name,)).fetchone() or (None,)


def events_of(connection: sqlite3.Connection, actions: Sequence[str]) -> list[dict[str, Any]]:
    """As `finding.events_of`."""
    found = connection.execute(_EVENTS.format(", ".join("?" * len(actions))), actions)
    heads = [column[0] for column in found.description]
    return [dict(zip(heads, row, strict=True)) for row in found]
