"""Entering sweeps into a catalog in SQLite without the database layer: to import that takes longer than all
else that follows a sweep.

Whatever is not as expected (a catalog elsewhere, of another schema, damaged, a full disk, one that another
process holds for long) is left to the catalog itself, which knows what it means, and waits longer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evalrun.atomic import disk_errors, open_private
from evalrun.tracking.glance import PATIENCE_S, SCHEMA, SQLITE, is_sqlite

if TYPE_CHECKING:
    from evalrun.tracking.folder import SweepFolder

PRAGMAS = ("foreign_keys = ON", "journal_mode = WAL", "synchronous = NORMAL")
TABLES = Path(__file__).with_name("catalog.sql")
"""The tables of tracking/tables.py as SQLite makes them; a test holds the two together."""


class Rows(Protocol):
    """Where the rows of sweeps are written; whoever gives one holds the write lock."""

    def forget(self, sweeps: Sequence[str]) -> None:
        """Delete the sweeps with these ids, and all that hangs on them."""

    def add(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, each a value by column; all have the same columns."""

    def id_of(self, table: str, key: Mapping[str, str], extra: Mapping[str, Any] | None = None) -> int:
        """The id of the row with this key, which is made where there is none."""

    def run_ids(self, sweeps: Sequence[str]) -> dict[tuple[str, str], int]:
        """The ids of the runs of sweeps by (sweep, run)."""


class SqliteRows:
    """Rows by sqlite3 itself."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def forget(self, sweeps: Sequence[str]) -> None:
        self._connection.executemany("DELETE FROM sweep WHERE ulid = ?", [(ulid,) for ulid in sweeps])

    def add(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            values = [[_text(value) for value in row.values()] for row in rows]
            self._connection.executemany(_insertion(table, rows[0]), values)

    def id_of(self, table: str, key: Mapping[str, str], extra: Mapping[str, Any] | None = None) -> int:
        values = {name: _text(value) for name, value in key.items()}
        where = " AND ".join(f'"{name}" = :{name}' for name in values)
        row = self._connection.execute(f"SELECT id FROM {table} WHERE {where}", values).fetchone()
        if row is not None:
            return int(row[0])
        made = {**key, **(extra or {})}
        cursor = self._connection.execute(_insertion(table, made), [_text(each) for each in made.values()])
        return int(cursor.lastrowid or 0)

    def run_ids(self, sweeps: Sequence[str]) -> dict[tuple[str, str], int]:
        asked = "SELECT run, id FROM run WHERE sweep = ?"
        return {(ulid, run): at for ulid in sweeps for run, at in self._connection.execute(asked, (ulid,))}


def _insertion(table: str, row: Mapping[str, Any]) -> str:
    columns = ", ".join(f'"{name}"' for name in row)
    return f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})"


def _text(value: Any) -> Any:
    """As the texts of tracking/tables.py are stored: without NUL."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def enter(root: Path, folder: SweepFolder) -> bool:
    """Enter a sweep, as its folder is now, into the catalog of the store at `root`, made where there is none.
    False where that is not in SQLite or not as expected, and nothing was changed.

    Raises UserError where the folder cannot be read.
    """
    if not is_sqlite(root):
        return False
    from evalrun.tracking.entries import fresh, insert, read_entry

    entry = read_entry(folder)
    path = root / SQLITE
    with contextlib.suppress(sqlite3.Error, OSError):
        if not path.exists():
            _make(path)
        with _connected(path) as connection:
            if not _is_ours(connection):  # before anything is begun: a damaged file is left as it is
                return False
            with _transaction(connection):
                insert(SqliteRows(connection), fresh(entry))
        return True
    return False


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process at a time that makes the file at `path`, or moves it away."""
    with disk_errors(path.parent):
        descriptor = open_private(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(path: Path) -> None:
    """The catalog's file with its tables, unless another process was quicker."""
    with alone(path):
        os.close(open_private(path, os.O_RDWR | os.O_CREAT))
        with _connected(path) as connection, _transaction(connection):
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
                for statement in TABLES.read_text().split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO alembic_version VALUES (?)", (SCHEMA,))


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None)
    with contextlib.closing(made) as connection:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        yield connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A write transaction, begun as one: to wait for the lock, where upgrading a read lock would fail."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _is_ours(connection: sqlite3.Connection) -> bool:
    return [row[0] for row in connection.execute("SELECT version_num FROM alembic_version")] == [SCHEMA]
