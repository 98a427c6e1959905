"""Where a catalog is kept: a SQLite file beside the sweeps, or a schema of a PostgreSQL database.

`EVALRUN_CATALOG` (`--catalog`) says which, else the store's own setting, else it is the SQLite file. In
PostgreSQL everything lives in one schema, `evalrun` or what `?schema=` in the URL names, whose comment says
which store it is the index of: two stores in one schema would each throw out the other's sweeps.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import shutil
import sqlite3
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from evalrun.atomic import disk_errors, no_room, open_private, write_private
from evalrun.errors import ExitCode, UserError
from evalrun.secrets import scrub
from evalrun.tracking.folder import PATTERN, new_ulid
from evalrun.tracking.glance import SETTING, SQLITE, VARIABLE
from evalrun.tracking.plain import document_bytes, read_document
from evalrun.tracking.rows import PRAGMAS, alone
from evalrun.tracking.tables import SCHEMA, metadata

STORE_ID = "store-id"
BUSY_TIMEOUT_S = 30.0
SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
DEFAULT_SCHEMA = "evalrun"
CONNECT_TIMEOUT_S = 10

_WRITING = "evalrun_write"
"""Execution option of connections that are going to write."""
_STAMP = "alembic_version"
"""The table that holds the schema's number, named as in evalrun's first versions: they look there too, and
refuse a catalog of a later schema instead of filling it wrongly."""
_ABSENT = re.compile(r"no such (?:table|column)|has no column|no such index")
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}\Z")
_COMMENT = "evalrun store "
_BROKEN = ("42P01", "42703", "42804", "42883", "23502", "23503", "23505")
"""Table, column, type or function not as they should be; rows that contradict each other."""


class BrokenCatalog(Exception):
    """The catalog cannot be read as one. It is only an index: set it aside and make it anew."""


class Place(ABC):
    """Where a catalog is kept."""

    @property
    @abstractmethod
    def shown(self) -> str:
        """What messages call it; holds no secret."""

    @abstractmethod
    def engine(self, pool: type[sa.Pool] = sa.NullPool) -> sa.Engine:
        """An engine for what is there, with no table made and nothing checked."""

    @abstractmethod
    def set_aside(self) -> str:
        """Move a broken catalog out of the way, and say where to."""

    @abstractmethod
    def meaning(self, error: sa.exc.DBAPIError) -> Exception | None:
        """What an error of the driver means: BrokenCatalog, a UserError, or None where it is a bug."""

    def damage(self) -> str | None:
        """What is damaged, as the database itself finds it; None where it finds nothing."""
        return None

    def ready(self) -> sa.Engine:
        """An engine for it, its tables made and of this schema, whoever else starts at the same moment. The
        caller disposes of it.

        Tables of an earlier schema are thrown away: whoever asks next enters all folders anew. Raises
        UserError where the catalog cannot be reached or was written by a later version.
        """
        with self._alone():
            # One connection for all that is asked: to make one takes longer than most questions.
            engine = self.engine(sa.QueuePool)
            try:
                self._prepare(engine)
            except BaseException:
                engine.dispose()
                raise
        return engine

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """One process at a time, where the database's own locks are not enough to begin with."""
        return contextlib.nullcontext()

    def _prepare(self, engine: sa.Engine) -> None:
        with engine.connect() as connection:
            if _stamp(connection) == SCHEMA:
                return
        with writing(engine) as connection:
            stamp = _stamp(connection)  # again: another may have been quicker
            if stamp is not None and stamp > SCHEMA:
                raise UserError(
                    f"the catalog was written by a later evalrun (schema {stamp}; this one knows {SCHEMA})",
                    where=self.shown,
                    remedy="Upgrade evalrun, or use another store with --store. The sweep folders are not "
                    "affected.",
                )
            if stamp is not None and stamp < SCHEMA:
                earlier = sa.MetaData()
                earlier.reflect(connection)
                earlier.drop_all(connection)
            if stamp != SCHEMA:
                _make_tables(connection)


def _stamp(connection: sa.Connection) -> str | None:
    """The schema of the catalog's tables; None where there are none."""
    if not sa.inspect(connection).has_table(_STAMP):
        return None
    stamp = connection.scalar(sa.text(f"SELECT version_num FROM {_STAMP}"))
    return None if stamp is None else str(stamp)


def _make_tables(connection: sa.Connection) -> None:
    metadata.create_all(connection)
    connection.exec_driver_sql(
        f"CREATE TABLE IF NOT EXISTS {_STAMP} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"
    )
    connection.execute(sa.text(f"INSERT INTO {_STAMP} VALUES (:schema)"), {"schema": SCHEMA})


@contextlib.contextmanager
def database_errors(place: Place) -> Iterator[None]:
    """Turn the database's errors into BrokenCatalog or into a UserError that says what to do."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        meaning = place.meaning(error)
        if meaning is None:
            raise
        raise meaning from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BrokenCatalog(f"it holds what it was never given: {error}") from error
    except (UserError, BrokenCatalog):
        raise
    except Exception as error:
        # What the driver hands on from a damaged file may be anything, and fail anywhere.
        damage = place.damage()
        if damage is None:
            raise
        raise BrokenCatalog(damage) from error


@contextlib.contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection inside a write transaction, committed at the end, undone on an error.

    Of one catalog there is one at a time: others wait for it.
    """
    with engine.connect().execution_options(**{_WRITING: True}) as connection, connection.begin():
        yield connection


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
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    def on_begin(connection: sa.Connection) -> None:
        # Taking the write lock at the start means waiting for it, where upgrading a read lock would fail.
        immediate = connection.get_execution_options().get(_WRITING)
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

    def damage(self) -> str | None:
        with contextlib.suppress(OSError), contextlib.closing(sqlite3.connect(self._path)) as connection:
            try:
                answer = connection.execute("PRAGMA integrity_check(1)").fetchone()
            except (sqlite3.Error, UnicodeDecodeError) as error:
                return str(error)
            return None if answer is None or answer[0] == "ok" else str(answer[0])
        return None

    def engine(self, pool: type[sa.Pool] = sa.NullPool) -> sa.Engine:
        if self._path.is_dir():
            raise BrokenCatalog("it is a folder")
        with disk_errors(self._path.parent):
            os.close(open_private(self._path, os.O_RDWR | os.O_CREAT))
        return connect(self._path, pool)

    def set_aside(self) -> str:
        path = self._path
        kept = path.with_name(f"{path.name}.broken-{time.time_ns()}")
        with self._alone(), disk_errors(path.parent):
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    path.with_name(path.name + suffix).rename(kept.with_name(kept.name + suffix))
        return str(kept)

    def meaning(self, error: sa.exc.DBAPIError) -> Exception | None:
        code, text = getattr(error.orig, "sqlite_errorcode", None), str(error.orig)
        if code is None:
            # The driver's own: a text that is none any more, or a use of it that is a fault of ours.
            damage = text if "decode" in text.lower() else self.damage()
            return BrokenCatalog(damage) if damage else None
        code &= 0xFF
        if code == sqlite3.SQLITE_FULL:
            return no_room(self._path.parent)
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT):
            return BrokenCatalog(text)
        if code == sqlite3.SQLITE_ERROR:
            # A statement that the database cannot take is a fault of ours, and says nothing of the file.
            damage = text if _ABSENT.search(text) else self.damage()
            return BrokenCatalog(damage) if damage else None
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

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """Two that start in a fresh store must not both make the file."""
        return alone(self._path)


class CopiedPlace(SqlitePlace):
    """A copy, in a temporary folder, of a catalog that may only be read: it is brought up to date there."""

    def __init__(self, original: Path) -> None:
        self._original = original
        self._folder = tempfile.TemporaryDirectory(prefix="evalrun-catalog-", ignore_cleanup_errors=True)
        super().__init__(Path(self._folder.name) / SQLITE)
        # Where there is none, or none that may be read, it is made from the folders.
        with contextlib.suppress(OSError):
            for suffix in ("", "-wal"):
                shutil.copyfile(f"{original}{suffix}", f"{self._path}{suffix}")

    @property
    def shown(self) -> str:
        return str(self._original)


class PostgresPlace(Place):
    """One schema of the database at `url`, for the store with this id.

    Raises UserError for a URL that is not of a PostgreSQL database, and where psycopg is not installed.
    """

    def __init__(self, url: str, store_id: str) -> None:
        self._store_id = store_id
        self._url, self._schema = read_url(url)
        if find_spec("psycopg") is None:
            raise UserError(
                "the PostgreSQL driver is not installed",
                where=self.shown,
                remedy="Run: pip install 'psycopg[binary]>=3.2'",
            )

    def beside(self, name: str) -> PostgresPlace:
        """Another schema of the same store, `<schema>_<name>`, for what is no index."""
        other = copy.copy(self)
        other._schema = f"{self._schema}_{name}"  # PostgreSQL takes 63 characters, and a catalog's has 40
        return other

    @property
    def shown(self) -> str:
        return shown_url(self._url, self._schema)

    def set_aside(self) -> str:
        kept = f"{self._schema}_broken_{time.time_ns()}"
        with writing(self.engine()) as connection:
            connection.exec_driver_sql(f'ALTER SCHEMA "{self._schema}" RENAME TO "{kept}"')
        return f"schema {kept}"

    def meaning(self, error: sa.exc.DBAPIError) -> Exception | None:
        text = _first_line(scrub(str(error.orig)))
        state = getattr(error.orig, "sqlstate", None)
        if state in _BROKEN:
            return BrokenCatalog(text)
        if state is not None and state[:2] in ("42", "0A") and state != "42501":
            return None  # a statement that this database cannot take is a fault of ours
        return UserError(
            f"the catalog cannot be used: {text}",
            where=self.shown,
            remedy="Check that the server runs, and the user's name, password (PGPASSWORD or ~/.pgpass) and "
            "rights. The sweep folders hold everything; `evalrun reindex` makes the catalog anew.",
            exit_code=ExitCode.INCOMPLETE,
        )

    def engine(self, pool: type[sa.Pool] = sa.NullPool) -> sa.Engine:
        engine = sa.create_engine(
            self._url, connect_args={"connect_timeout": CONNECT_TIMEOUT_S}, poolclass=pool
        )
        # Before SQLAlchemy's own first look at the connection, which asks for the current schema.
        sa.event.listen(engine, "connect", self._on_connect, insert=True)
        sa.event.listen(engine, "begin", self._on_begin)
        return engine

    def _on_connect(self, connection: Any, _record: Any) -> None:
        """Use our schema, made where there is none, if it is this store's."""
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s",
                (self._schema,),
            )
            row = cursor.fetchone()
            if row is None:
                row = (self._make_schema(connection, cursor),)
            self._check_store(row[0])
            cursor.execute(f'SET search_path TO "{self._schema}"')
            cursor.execute("SET timezone TO 'UTC'")
        connection.autocommit = False

    def _make_schema(self, connection: Any, cursor: Any) -> str:
        with connection.transaction():
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (self._schema,))
            cursor.execute(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"')
            cursor.execute("SELECT obj_description(%s::regnamespace, 'pg_namespace')", (self._schema,))
            comment: str | None = cursor.fetchone()[0]
            if comment is None:  # else another process was quicker
                comment = _COMMENT + self._store_id
                cursor.execute(f"COMMENT ON SCHEMA \"{self._schema}\" IS '{comment}'")
        return comment

    def _check_store(self, comment: str | None) -> None:
        if comment == _COMMENT + self._store_id:
            return
        ours = comment is not None and comment.startswith(_COMMENT)
        what = "holds the catalog of another store" if ours else "was not made by evalrun"
        raise UserError(
            f"the schema '{self._schema}' {what}",
            where=self.shown,
            remedy="Each store needs a schema of its own: add ?schema=NAME to the URL.",
        )

    def _on_begin(self, connection: sa.Connection) -> None:
        if connection.get_execution_options().get(_WRITING):
            # One writer at a time, as in SQLite; the lock ends with the transaction.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext(%s))", (self._schema,))
        else:
            # All that one question reads is of one moment, as in SQLite; and it changes nothing.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def read_url(text: str) -> tuple[sa.URL, str]:
    """The URL for SQLAlchemy, and the schema that it names. Raises UserError, with nothing secret in it."""
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        url = None
    if url is None or url.drivername not in SCHEMES:
        raise UserError(
            f"'{scrub(text)}' is no URL of a PostgreSQL database",
            where="catalog",
            remedy="Write postgresql://USER@HOST/DATABASE, and the password in PGPASSWORD or ~/.pgpass.",
        )
    schema = url.query.get("schema", DEFAULT_SCHEMA)
    if not isinstance(schema, str) or not _SCHEMA_NAME.match(schema):
        raise UserError(
            f"'{schema}' cannot name a schema",
            where="catalog",
            remedy="Use small letters, digits and '_', at most 40.",
        )
    return url.set(drivername="postgresql+psycopg").difference_update_query(["schema"]), schema


def shown_url(url: sa.URL, schema: str) -> str:
    """The URL as messages show it: without any password."""
    plain = url.set(drivername="postgresql", password=None).difference_update_query(["password"])
    shown = plain.render_as_string(hide_password=True)
    return shown if schema == DEFAULT_SCHEMA else f"{shown} (schema {schema})"


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:500] if lines else "no reason given"


def catalog_place(root: Path) -> Place:
    """The place of the catalog of the store at `root`. Raises UserError for a setting that is not usable."""
    url = os.environ.get(VARIABLE) or setting(root)
    if url and url != "sqlite":
        return PostgresPlace(url, store_id(root))
    return SqlitePlace(root / SQLITE)


def setting(root: Path) -> str | None:
    """The URL that was set for the store, None where none was."""
    path = root / SETTING
    if not path.exists():
        return None
    url = read_document(path).get("url")
    if not isinstance(url, str):
        raise UserError("names no catalog", where=str(path), remedy="Set it by: evalrun catalog use URL")
    return url


def set_catalog(root: Path, url: str | None) -> None:
    """Set the store's catalog to a PostgreSQL database, or back to the SQLite file (None).

    Raises UserError for a URL with a password in it: it would be stored.
    """
    path = root / SETTING
    if url is None:
        path.unlink(missing_ok=True)
        return
    parsed, _ = read_url(url)
    if parsed.password is not None or "password" in parsed.query:
        raise UserError(
            "the URL holds a password, which is not stored",
            where="catalog",
            remedy="Leave it out; give it in PGPASSWORD, in ~/.pgpass, or with a URL in EVALRUN_CATALOG.",
        )
    write_private(path, document_bytes({"schema_version": 1, "url": url}))


def store_id(root: Path) -> str:
    """What the store is called in a database, wherever its folder is mounted; made when first needed."""
    path = root / STORE_ID
    with contextlib.suppress(FileNotFoundError):
        found = path.read_text().strip()
        if not PATTERN.fullmatch(found):
            raise UserError("is no id of a store", where=str(path))
        return found
    made = path.with_name(f".{STORE_ID}.{os.getpid()}")
    write_private(made, new_ulid().encode() + b"\n")
    try:
        with contextlib.suppress(FileExistsError):
            os.link(made, path)  # of several processes one is first, and all read what it wrote
    finally:
        made.unlink(missing_ok=True)
    return path.read_text().strip()
