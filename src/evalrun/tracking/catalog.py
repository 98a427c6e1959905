"""The catalog: an index over sweep folders, in SQL, that can be thrown away and made anew."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from evalrun.errors import Problem, UserError
from evalrun.tracking.database import BrokenCatalog, Place, database_errors, writing
from evalrun.tracking.folder import SweepFolder, stamp
from evalrun.tracking.glance import SweepRow
from evalrun.tracking.tables import TableRows, metadata, project, sweep, sweep_tag

if TYPE_CHECKING:
    from evalrun.tracking.entries import SweepEntry

__all__ = ["BrokenCatalog", "Catalog", "SweepRow"]

_Answer = TypeVar("_Answer")

_BATCH = 100
"""Sweeps entered in one transaction when there are many: others get their turn in between."""

_VALUES = 500
"""Ids that one statement may name; for more, all is read."""


@dataclass(frozen=True, slots=True)
class Reindexed:
    """How many sweeps the catalog holds now, and which folders could not be read."""

    sweeps: int
    problems: tuple[Problem, ...] = ()


class Catalog:
    """The catalog in one database. Open it with `Catalog.open`; it raises BrokenCatalog or UserError."""

    def __init__(self, engine: sa.Engine, sweeps: Path) -> None:
        self._engine = engine
        self._sweeps = sweeps

    @classmethod
    @contextlib.contextmanager
    def open(cls, place: Place, sweeps: Path) -> Iterator[Catalog]:
        """The catalog at a place (made where there is none) over the folders in `sweeps`.

        Raises BrokenCatalog where it cannot be read as one, UserError where it is of a later version.
        """
        with database_errors(place):
            engine = place.ready()
            try:
                yield cls(engine, sweeps)
            finally:
                engine.dispose()

    @staticmethod
    def set_aside(place: Place) -> str:
        """Move a broken catalog out of the way, and say where to."""
        with database_errors(place):
            return place.set_aside()

    def index(self, folder: SweepFolder) -> None:
        """Enter one sweep as its folder is now. Raises UserError where the folder cannot be read."""
        from evalrun.tracking.entries import fresh, insert, read_entry

        entry = read_entry(folder)
        with writing(self._engine) as connection:
            insert(TableRows(connection), fresh(entry))

    def sync(self, names: Sequence[str]) -> tuple[Problem, ...]:
        """Enter what the catalog lacks or holds in an older state, and drop what is gone from the disk.

        `names` are those of all sweep folders there are.
        Complete sweeps do not change, so only the others are looked at again. Returns the folders that
        could not be read.
        """
        with self._engine.connect() as connection:
            known = set(connection.scalars(sa.select(sweep.c.ulid)))
            open_ = sa.select(sweep.c.ulid, sweep.c.stamp).where(sweep.c.status != "complete")
            stamps = {row.ulid: row.stamp for row in connection.execute(open_)}
        by_id = {name[:26]: name for name in names}
        changed = [SweepFolder(self._sweeps / by_id[ulid]) for ulid in by_id.keys() - known]
        for ulid, old in stamps.items():
            folder = SweepFolder(self._sweeps / by_id.get(ulid, ulid))
            if ulid in by_id and old != stamp(folder):
                changed.append(folder)
        self._drop(known - by_id.keys())
        return self._enter(changed) + self._sync_trainings()

    def _sync_trainings(self) -> tuple[Problem, ...]:
        """The same for the store's trainings, where it has any."""
        root = self._sweeps.parent / "trainings"
        if not root.is_dir():
            return ()
        from evalrun.tracking.trainings import sync_trainings, trainings_changed

        with self._engine.connect() as connection:
            if not trainings_changed(connection, root):
                return ()
        with writing(self._engine) as connection:
            return sync_trainings(connection, root)

    def rebuild(self, folders: Sequence[SweepFolder]) -> Reindexed:
        """Enter every folder afresh, and drop what is not on the disk."""
        with writing(self._engine) as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
        problems = self._enter(folders) + self._sync_trainings()
        with self._engine.connect() as connection:
            count = connection.scalar(sa.select(sa.func.count()).select_from(sweep))
        return Reindexed(int(count or 0), problems)

    def sweeps(self, limit: int | None, of_project: str | None, *, archived: bool = True) -> list[SweepRow]:
        """The newest sweeps first; without the archived ones if asked."""
        query = (
            sa.select(sweep, project.c.name.label("project"))
            .join_from(sweep, project)
            .order_by(sweep.c.ulid.desc())
            .limit(limit)
        )
        if of_project is not None:
            query = query.where(project.c.name == of_project)
        if not archived:
            query = query.where(sweep.c.archived == 0)
        with self._engine.connect() as connection:
            rows = list(connection.execute(query))
            tags: dict[str, dict[str, str]] = {}
            wanted = sa.select(sweep_tag)
            if len(rows) <= _VALUES:
                wanted = wanted.where(sweep_tag.c.sweep.in_([row.ulid for row in rows]))
            for tag in connection.execute(wanted):
                tags.setdefault(tag.sweep, {})[tag.key] = tag.value
        return [self._row(row, tags) for row in rows]

    def entered(self) -> set[str]:
        """The ids of all sweeps in it."""
        with self._engine.connect() as connection:
            return set(connection.scalars(sa.select(sweep.c.ulid)))

    def read(self, question: Callable[[sa.Connection], _Answer]) -> _Answer:
        """Put a question of one's own, which changes nothing."""
        with self._engine.connect() as connection:
            return question(connection)

    def _row(self, row: sa.Row[tuple[object, ...]], tags: dict[str, dict[str, str]]) -> SweepRow:
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
            tags=tags.get(values["ulid"], {}),
            note=values["note"],
            archived=bool(values["archived"]),
        )

    def _drop(self, gone: set[str]) -> None:
        if gone:
            with writing(self._engine) as connection:
                for ulid in gone:
                    connection.execute(sweep.delete().where(sweep.c.ulid == ulid))

    def _enter(self, folders: Sequence[SweepFolder]) -> tuple[Problem, ...]:
        if not folders:
            return ()  # nearly always: what reads folders need not be imported then
        from evalrun.tracking.entries import fresh, insert, read_entry

        problems: list[Problem] = []
        for start in range(0, len(folders), _BATCH):
            entries: list[SweepEntry] = []
            for folder in folders[start : start + _BATCH]:
                if not folder.has_manifest():
                    continue  # a crash before the manifest: nothing was done yet
                try:
                    entries.append(read_entry(folder))
                except UserError as error:
                    problems.extend(error.problems)
            if entries:
                with writing(self._engine) as connection:
                    current = []
                    for entry in entries:
                        try:
                            current.append(fresh(entry))
                        except UserError as error:
                            problems.extend(error.problems)
                    insert(TableRows(connection), *current)
        if len(folders) > _BATCH:
            with writing(self._engine) as connection:
                connection.exec_driver_sql("ANALYZE")  # else a new index is searched as if it were empty
        return tuple(problems)
