"""The connection to the catalog's database, its schema version, and what its errors mean."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from evalrun.atomic import FILE_MODE, disk_errors, no_room
from evalrun.errors import ExitCode, UserError
from evalrun.tracking.tables import metadata

BUSY_TIMEOUT_S = 30.0
MIGRATIONS = "evalrun.tracking.migrations"

_WRITE = "evalrun_write"


class BrokenCatalog(Exception):
    """The catalog cannot be read as one. It is only an index: set it aside and make it anew."""


def connect(path: Path) -> sa.Engine:
    """An engine for the SQLite file at `path`: foreign keys on, 30 s of patience, writes begun as writes."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_TIMEOUT_S},
        poolclass=sa.NullPool,
    )

    def on_connect(connection: Any, _record: Any) -> None:
        # The driver's own idea of when to begin a transaction is switched off; `on_begin` says it.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")

    def on_begin(connection: sa.Connection) -> None:
        # Taking the write lock at the start means waiting for it, where upgrading a read lock would fail.
        immediate = connection.get_execution_options().get(_WRITE)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    sa.event.listen(engine, "connect", on_connect)
    sa.event.listen(engine, "begin", on_begin)
    return engine


@contextlib.contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection inside a write transaction, committed at the end, undone on an error."""
    with engine.connect().execution_options(**{_WRITE: True}) as connection, connection.begin():
        yield connection


def revisions() -> list[str]:
    """The schema versions that this code knows, oldest first; the last is the one that it needs."""
    folder = resources.files(MIGRATIONS) / "versions"
    return sorted(each.name.split("_")[0] for each in folder.iterdir() if each.name[:1].isdigit())


def ensure_schema(engine: sa.Engine, where: Path) -> None:
    """Make the tables in a new database, bring an older one up to date, refuse a later one (UserError).

    For one process at a time: the caller holds the catalog's lock.
    """
    known = revisions()
    with engine.connect() as connection:
        found = _stored_revision(connection)
    if found == known[-1]:
        return
    if found is None:
        _create(engine, known[-1])
    elif found in known:
        _back_up(engine, where, found)
        upgrade(engine)
    else:
        raise UserError(
            f"the catalog was written by a later evalrun (schema {found}; this one knows {known[-1]})",
            where=str(where),
            remedy="Upgrade evalrun, or use another store with --store. The sweep folders are not affected.",
        )


def upgrade(engine: sa.Engine, revision: str = "head") -> None:
    """Bring the schema to a revision. Imports Alembic, so call it only where there is something to do."""
    from alembic import command
    from alembic.config import Config

    with resources.as_file(resources.files(MIGRATIONS)) as folder, writing(engine) as connection:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def _back_up(engine: sa.Engine, where: Path, revision: str) -> None:
    """A copy of the catalog as it was, beside it: `catalog.db.schema-0001`. An earlier copy is kept."""
    kept = where.with_name(f"{where.name}.schema-{revision}")
    if kept.exists():
        return
    with disk_errors(where.parent):
        os.close(os.open(kept, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        if isinstance(driver, sqlite3.Connection):
            with contextlib.closing(sqlite3.connect(kept)) as copy:
                driver.backup(copy)


def _stored_revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)


def _create(engine: sa.Engine, revision: str) -> None:
    """The newest schema at once: what all migrations come to (a test holds the two together)."""
    with engine.connect() as connection:
        # Outside any transaction, and once: the file remembers.
        driver = connection.connection.driver_connection
        if isinstance(driver, sqlite3.Connection):
            driver.execute("PRAGMA journal_mode = WAL")
    with writing(engine) as connection:
        metadata.create_all(connection)
        connection.exec_driver_sql(
            "CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
        connection.execute(sa.text("DELETE FROM alembic_version"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES (:r)"), {"r": revision})


@contextlib.contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Turn the database's errors into BrokenCatalog or into a UserError that says what to do."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code is None:
            raise
        raise _meaning(code & 0xFF, str(error.orig), path) from error


def _meaning(code: int, text: str, path: Path) -> Exception:
    if code == sqlite3.SQLITE_FULL:
        return no_room(path.parent)
    if code in {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
    }:
        return BrokenCatalog(text)
    remedy = (
        "Another process holds it; try again when it has ended."
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
        else "Check the disk and the file's permissions. The sweep folders hold everything; "
        "`evalrun reindex` makes the catalog anew."
    )
    return UserError(
        f"the catalog cannot be used: {text}", where=str(path), remedy=remedy, exit_code=ExitCode.INCOMPLETE
    )
