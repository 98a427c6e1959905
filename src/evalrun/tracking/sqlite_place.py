"""The catalog in a SQLite file beside the sweeps: the default, for one machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from evalrun.atomic import FILE_MODE, disk_errors, no_room, replacing
from evalrun.errors import ExitCode, UserError
from evalrun.tracking.database import (
    WRITING,
    BrokenCatalog,
    Place,
    create_schema,
    is_older,
    stored_revision,
    upgrade,
    writing,
)

BUSY_TIMEOUT_S = 30.0

_ABSENT = re.compile(r"no such (?:table|column)|has no column|no such index")


def connect(path: Path, pool: type[sa.Pool] = sa.NullPool) -> sa.Engine:
    """An engine for the SQLite file at `path`: foreign keys on, 30 s of patience, writes begun as writes."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_TIMEOUT_S},
        poolclass=pool,
    )

    def on_connect(connection: Any, _record: Any) -> None:
        # The driver's own idea of when to begin a transaction is switched off; `on_begin` says it.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")

    def on_begin(connection: sa.Connection) -> None:
        # Taking the write lock at the start means waiting for it, where upgrading a read lock would fail.
        immediate = connection.get_execution_options().get(WRITING)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    sa.event.listen(engine, "connect", on_connect)
    sa.event.listen(engine, "begin", on_begin)
    return engine


class SqlitePlace(Place):
    """The file at `path`, made (0600) where there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def shown(self) -> str:
        return str(self._path)

    def engine(self) -> sa.Engine:
        return connect(self._path)

    def ready(self) -> sa.Engine:
        path = self._path
        with _alone(path):
            with disk_errors(path.parent):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
            # One connection for all that is asked: each new one reads the schema again.
            engine = connect(path, sa.QueuePool)
            try:
                found = stored_revision(engine)
                if found is None:
                    _create(engine)
                elif is_older(found, self.shown):
                    _back_up(engine, path, found)
                    upgrade(engine)
            except BaseException:
                engine.dispose()
                raise
        return engine

    def set_aside(self) -> str:
        path = self._path
        kept = path.with_name(f"{path.name}.broken-{time.time_ns()}")
        with _alone(path), disk_errors(path.parent):
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    path.with_name(path.name + suffix).rename(kept.with_name(kept.name + suffix))
        return str(kept)

    def meaning(self, error: sa.exc.DBAPIError) -> Exception | None:
        code, text = getattr(error.orig, "sqlite_errorcode", None), str(error.orig)
        if code is None:
            # The driver's own: a text that is none any more, or a use of it that is a fault of ours.
            return BrokenCatalog(text) if "decode to UTF-8" in text else None
        code &= 0xFF
        if code == sqlite3.SQLITE_FULL:
            return no_room(self._path.parent)
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT):
            return BrokenCatalog(text)
        if code == sqlite3.SQLITE_ERROR:
            # A statement that the database cannot take is a fault of ours, and says nothing of the file.
            return BrokenCatalog(text) if _ABSENT.search(text) else None
        remedy = (
            "Another process holds it; try again when it has ended."
            if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
            else "Check the disk and the file's permissions. The sweep folders hold everything; "
            "`evalrun reindex` makes the catalog anew."
        )
        return UserError(
            f"the catalog cannot be used: {text}",
            where=self.shown,
            remedy=remedy,
            exit_code=ExitCode.INCOMPLETE,
        )


def _create(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        # Outside any transaction, and once: the file remembers.
        driver = connection.connection.driver_connection
        if isinstance(driver, sqlite3.Connection):
            driver.execute("PRAGMA journal_mode = WAL")
    with writing(engine) as connection:
        create_schema(connection)


def _back_up(engine: sa.Engine, where: Path, revision: str) -> None:
    """A copy of the catalog as it was, beside it: `catalog.db.schema-0001`. An earlier copy is kept."""
    kept = where.with_name(f"{where.name}.schema-{revision}")
    if kept.exists():
        return
    with replacing(kept) as temporary, engine.connect() as connection:
        driver = connection.connection.driver_connection
        if isinstance(driver, sqlite3.Connection):
            with contextlib.closing(sqlite3.connect(temporary)) as copy:
                driver.backup(copy)


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
