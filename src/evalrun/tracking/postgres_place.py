"""The catalog in a PostgreSQL database, for a team whose sweep folders lie on a shared disk.

Everything lives in one schema, `evalrun` or what `?schema=` in the URL names, whose comment says which store
it is the index of: two stores in one schema would each throw out the other's sweeps.
"""

from __future__ import annotations

import re
import time
from importlib.util import find_spec
from typing import Any

import sqlalchemy as sa

from evalrun.errors import ExitCode, UserError
from evalrun.secrets import scrub
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

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
DEFAULT_SCHEMA = "evalrun"
CONNECT_TIMEOUT_S = 10

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,39}\Z")
_COMMENT = "evalrun store "
_BROKEN = ("42P01", "42703", "42804", "42883", "23502", "23503", "23505")
"""Table, column, type or function not as they should be; rows that contradict each other."""


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
                remedy="Run: pip install 'evalrun[postgres]'",
            )

    @property
    def shown(self) -> str:
        return shown_url(self._url, self._schema)

    def ready(self) -> sa.Engine:
        # One connection for all that is asked: to make one takes the server longer than to answer.
        engine = self._engine(sa.QueuePool, pool_size=1)
        try:
            found = stored_revision(engine)
            if found is None:
                with writing(engine) as connection:
                    # Whoever waited here for another finds the tables made, and makes none.
                    create_schema(connection)
            elif is_older(found, self.shown):
                with writing(engine) as connection:
                    _back_up(connection, f"{self._schema}_schema_{found}")
                upgrade(engine)
        except BaseException:
            engine.dispose()
            raise
        return engine

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

    def engine(self) -> sa.Engine:
        return self._engine(sa.NullPool)

    def _engine(self, pool: type[sa.Pool], **options: Any) -> sa.Engine:
        engine = sa.create_engine(
            self._url, connect_args={"connect_timeout": CONNECT_TIMEOUT_S}, poolclass=pool, **options
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
        if connection.get_execution_options().get(WRITING):
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
    if not isinstance(schema, str) or not _SCHEMA.match(schema):
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


def _back_up(connection: sa.Connection, kept: str) -> None:
    """A copy of the catalog as it was, in a schema beside it. An earlier copy is kept."""
    if sa.inspect(connection).has_schema(kept):
        return
    connection.exec_driver_sql(f'CREATE SCHEMA "{kept}"')
    for name in sa.inspect(connection).get_table_names():
        connection.exec_driver_sql(f'CREATE TABLE "{kept}"."{name}" AS TABLE "{name}"')


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:500] if lines else "no reason given"
