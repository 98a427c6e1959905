"""The catalog: an index over sweep folders, in SQL, that can be thrown away and made anew."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import sqlalchemy as sa

from evalrun.atomic import FILE_MODE, disk_errors
from evalrun.errors import Problem, UserError
from evalrun.tracking.database import BrokenCatalog, connect, database_errors, ensure_schema, writing
from evalrun.tracking.entries import SweepEntry, insert, read_entry, stamp
from evalrun.tracking.folder import MANIFEST, SweepFolder
from evalrun.tracking.rows import Reindexed, SweepRow
from evalrun.tracking.tables import metadata, project, sweep

__all__ = ["BrokenCatalog", "Catalog"]

_BATCH = 100
"""Sweeps entered in one transaction when there are many: others get their turn in between."""


class Catalog:
    """The catalog in one database. Open it with `Catalog.open`; it raises BrokenCatalog or UserError."""

    def __init__(self, engine: sa.Engine, path: Path, sweeps: Path) -> None:
        self._engine = engine
        self._path = path
        self._sweeps = sweeps

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, sweeps: Path) -> Iterator[Catalog]:
        """The catalog at `path` (made where there is none, 0600) over the folders in `sweeps`.

        Raises BrokenCatalog where the file is no database, UserError where it is of a later version.
        """
        with database_errors(path):
            with _alone(path):
                with disk_errors(path.parent):
                    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
                engine = connect(path)
                ensure_schema(engine, path)
            yield cls(engine, path, sweeps)

    @staticmethod
    def set_aside(path: Path) -> Path:
        """Move a broken catalog out of the way, and say where to."""
        kept = path.with_name(f"{path.name}.broken-{time.time_ns()}")
        with _alone(path), disk_errors(path.parent):
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    path.with_name(path.name + suffix).rename(kept.with_name(kept.name + suffix))
        return kept

    def index(self, folder: SweepFolder) -> None:
        """Enter one sweep as its folder is now. Raises UserError where the folder cannot be read."""
        entry = read_entry(folder)
        with writing(self._engine) as connection:
            insert(connection, entry)

    def sync(self, folders: Sequence[SweepFolder]) -> tuple[Problem, ...]:
        """Enter what the catalog lacks or holds in an older state, and drop what is gone from the disk.

        Complete sweeps do not change, so only the others are looked at again. Returns the folders that
        could not be read.
        """
        with self._engine.connect() as connection:
            known = {
                row.ulid: None if row.status == "complete" else row.stamp
                for row in connection.execute(sa.select(sweep.c.ulid, sweep.c.status, sweep.c.stamp))
            }
        changed = [
            folder
            for folder in folders
            if folder.ulid not in known
            or (known[folder.ulid] is not None and known[folder.ulid] != stamp(folder))
        ]
        self._drop(known.keys() - {folder.ulid for folder in folders})
        return self._enter(changed)

    def rebuild(self, folders: Sequence[SweepFolder]) -> Reindexed:
        """Enter every folder afresh, and drop what is not on the disk."""
        with writing(self._engine) as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
        problems = self._enter(folders)
        with self._engine.connect() as connection:
            count = connection.scalar(sa.select(sa.func.count()).select_from(sweep))
        return Reindexed(int(count or 0), problems)

    def sweeps(self, limit: int | None, of_project: str | None) -> list[SweepRow]:
        """The newest sweeps first."""
        query = (
            sa.select(sweep, project.c.name.label("project"))
            .join_from(sweep, project)
            .order_by(sweep.c.ulid.desc())
            .limit(limit)
        )
        if of_project is not None:
            query = query.where(project.c.name == of_project)
        with self._engine.connect() as connection:
            return [self._row(row) for row in connection.execute(query)]

    def _row(self, row: sa.Row[tuple[object, ...]]) -> SweepRow:
        values = row._mapping
        same = ("project", "name", "status", "started_at", "finished_at", "exit_code", "planned", "runs")
        return SweepRow(
            sweep=values["ulid"],
            **{key: values[key] for key in same},
            samples=values["samples"],
            failed=values["failed"],
            user=values["user_name"],
            git_commit=values["git_commit"],
            folder=self._sweeps / values["folder"],
        )

    def _drop(self, gone: set[str]) -> None:
        if gone:
            with writing(self._engine) as connection:
                for ulid in gone:
                    connection.execute(sweep.delete().where(sweep.c.ulid == ulid))

    def _enter(self, folders: Sequence[SweepFolder]) -> tuple[Problem, ...]:
        problems: list[Problem] = []
        for start in range(0, len(folders), _BATCH):
            entries: list[SweepEntry] = []
            for folder in folders[start : start + _BATCH]:
                if not (folder.path / MANIFEST).exists():
                    continue  # a crash before the manifest: nothing was done yet
                try:
                    entries.append(read_entry(folder))
                except UserError as error:
                    problems.extend(error.problems)
            if entries:
                with writing(self._engine) as connection:
                    for entry in entries:
                        insert(connection, entry)
        return tuple(problems)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time: two that start in a fresh store must not both make the tables."""
    with disk_errors(path.parent):
        descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
