"""Whether the catalog still says what the folders say: rows changed behind its back are found by this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from evalrun.errors import UserError
from evalrun.tracking.database import connect
from evalrun.tracking.entries import insert, read_entry
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store
from evalrun.tracking.tables import (
    dataset_version,
    event,
    metadata,
    project,
    run,
    run_metric,
    run_param,
    sweep,
    sweep_tag,
)

_HIDDEN = {"id", "run_id", "project_id", "dataset_version_id", "stamp"}
"""Keys that a database gives, and the times of files."""


def altered_tables(
    store: Store, folders: Sequence[SweepFolder], heads: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[str]]:
    """The tables whose rows differ from what the folder says, by sweep. Folders that cannot be read are
    passed over: they are named by what reads them.

    `heads` are the last events that the store's trail knows of: so many at least were entered.
    """
    expected = _expected(folders)
    ids = list(expected)
    actual = store.read(lambda connection: {ulid: _rows(connection, ulid) for ulid in ids})
    found = {
        ulid: [
            name
            for name in rows
            if not _agree(name, rows[name], actual[ulid][name], heads.get(ulid, {}).get("seq"))
        ]
        for ulid, rows in expected.items()
    }
    return {ulid: names for ulid, names in found.items() if names}


def gaps(store: Store, heads: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Complete sweeps that were entered once and that the catalog lacks, and sweeps in it that have no
    folder: id and words. To be asked before anything else brings the catalog up to date."""
    known = store.entered()
    if not known:
        return []  # a catalog that was thrown away is made anew: that is nobody's alteration
    present = {folder.ulid: folder for folder in store.folders()}
    lost = [
        (ulid, f"lacked {ulid}, which was entered again from its folder")
        for ulid in sorted(present.keys() & heads.keys() - known)
    ]
    made_up = [(ulid, f"held {ulid}, which has no folder") for ulid in sorted(known - present.keys())]
    return lost + made_up


def _agree(name: str, expected: list[Any], actual: list[Any], known: Any) -> bool:
    """Events may be newer in the folder than in the catalog; those that are in both must be the same."""
    if name != "event":
        return actual == expected
    at = [column.name for column in _shown(event)].index("seq")
    entered = {row for row in expected if isinstance(known, int) and row[at] <= known}
    return entered <= set(actual) <= set(expected)


def _expected(folders: Sequence[SweepFolder]) -> dict[str, dict[str, Any]]:
    """What a catalog made from the folders alone would hold."""
    found: dict[str, dict[str, Any]] = {}
    engine = connect(Path(":memory:"))
    with engine.connect() as connection:
        metadata.create_all(connection)
        for folder in folders:
            try:
                insert(connection, read_entry(folder))
            except UserError:
                continue
            found[folder.ulid] = _rows(connection, folder.ulid)
            connection.execute(sweep.delete())  # and what hangs on it
    engine.dispose()
    return found


def _rows(connection: sa.Connection, ulid: str) -> dict[str, Any]:
    of_run = run.c.sweep == ulid
    queries = {
        "sweep": sa.select(*_shown(sweep), project.c.name.label("of"))
        .join(project)
        .where(sweep.c.ulid == ulid),
        "run": sa.select(
            *_shown(run), dataset_version.c.digest.label("of"), dataset_version.c.name.label("data")
        )
        .outerjoin(dataset_version, run.c.dataset_version_id == dataset_version.c.id)
        .where(of_run),
        "run_metric": sa.select(*_shown(run_metric), run.c.run.label("of")).join(run).where(of_run),
        "run_param": sa.select(*_shown(run_param), run.c.run.label("of")).join(run).where(of_run),
        "sweep_tag": sa.select(*_shown(sweep_tag)).where(sweep_tag.c.sweep == ulid),
        "event": sa.select(*_shown(event)).where(event.c.sweep == ulid),
    }
    return {
        name: sorted((tuple(row) for row in connection.execute(query)), key=repr)
        for name, query in queries.items()
    }


def _shown(table: sa.Table) -> list[sa.Column[Any]]:
    return [column for column in table.c if column.name not in _HIDDEN]
