"""What a server knows that no folder does: people, grants, tokens, sessions, queues and who labels what.

None of it can be made again from sweep folders, so it is kept apart from the catalog: in `server.db` of the
store, or, where the catalog is in PostgreSQL, in a schema of its own beside it. `evalrun reindex` touches
neither.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import sqlalchemy as sa

from evalrun.errors import ExitCode, UserError
from evalrun.tracking.database import (
    BrokenCatalog,
    Place,
    PostgresPlace,
    SqlitePlace,
    catalog_place,
    database_errors,
    writing,
)
from evalrun.tracking.store import Store

FILE = "server.db"
VERSION = "1"
"""Of the tables. A database of another version is refused: it holds what cannot be made again."""

_Answer = TypeVar("_Answer")
metadata = sa.MetaData()
Text, Integer = sa.Text, sa.BigInteger

version = sa.Table("version", metadata, sa.Column("number", Text, primary_key=True))
user = sa.Table(
    "person",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("issuer", Text, nullable=False),
    sa.Column("subject", Text, nullable=False),
    sa.Column("name", Text, nullable=False),
    sa.Column("groups", Text, nullable=False, default="[]"),
    sa.Column("created", Integer, nullable=False),
    sa.Column("disabled", Integer, nullable=False, default=0),
    sa.UniqueConstraint("issuer", "subject"),
)
grant = sa.Table(
    "granted",
    metadata,
    sa.Column("person", Text, primary_key=True),
    sa.Column("project", Text, primary_key=True),
    sa.Column("role", Text, nullable=False),
)
token = sa.Table(
    "token",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("hash", Text, nullable=False),
    sa.Column("name", Text, nullable=False),
    sa.Column("made_by", Text, nullable=False),
    sa.Column("owner", Text),
    sa.Column("role", Text, nullable=False),
    sa.Column("project", Text, nullable=False),
    sa.Column("expires", Integer, nullable=False),
    sa.Column("last_used", Integer),
    sa.Column("revoked", Integer),
)
session = sa.Table(
    "login_session",
    metadata,
    sa.Column("hash", Text, primary_key=True),
    sa.Column("person", Text, nullable=False, index=True),
    sa.Column("method", Text, nullable=False),
    sa.Column("created", Integer, nullable=False),
    sa.Column("seen", Integer, nullable=False),
)
link = sa.Table(
    "sign_in_link",
    metadata,
    sa.Column("hash", Text, primary_key=True),
    sa.Column("person", Text, nullable=False),
    sa.Column("expires", Integer, nullable=False),
)
queue = sa.Table(
    "queue",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("project", Text, nullable=False, index=True),
    sa.Column("sweep", Text, nullable=False, index=True),
    sa.Column("title", Text, nullable=False),
    sa.Column("spec", Text, nullable=False),
    sa.Column("seed", Text, nullable=False),
    sa.Column("made_by", Text, nullable=False),
    sa.Column("created", Integer, nullable=False),
    sa.Column("closed", Integer),
)
item = sa.Table(
    "item",
    metadata,
    sa.Column("queue", Text, primary_key=True),
    sa.Column("id", Text, primary_key=True),
    sa.Column("run", Text, nullable=False),
    sa.Column("sample_id", Text, nullable=False),
    sa.Column("shown", Text, nullable=False),
)
lease = sa.Table(
    "lease",
    metadata,
    sa.Column("queue", Text, primary_key=True),
    sa.Column("item", Text, primary_key=True),
    sa.Column("person", Text, primary_key=True),
    sa.Column("until", Integer, nullable=False),
    sa.Column("skipped", Integer, nullable=False, default=0),
)
answer = sa.Table(
    "answer",
    metadata,
    sa.Column("queue", Text, primary_key=True),
    sa.Column("item", Text, primary_key=True),
    sa.Column("person", Text, primary_key=True),
    sa.Column("value", Text, nullable=False),
    sa.Column("comment", Text, nullable=False),
    sa.Column("ts", Text, nullable=False),
)


class Away(Exception):
    """The database cannot be reached at this moment."""


def place_of(store: Store) -> Place:
    """Where the server's tables are: beside the store's catalog, never in it."""
    catalog = catalog_place(store.root)
    if isinstance(catalog, PostgresPlace):
        return catalog.beside("server")
    return SqlitePlace(store.root / FILE)


class Database:
    """The server's tables, made where there are none. Raises UserError for those of another version."""

    def __init__(self, store: Store) -> None:
        self.place = place_of(store)
        store.create_root()
        self._engine = self.place.engine(sa.QueuePool)
        try:
            with database_errors(self.place), writing(self._engine) as connection:
                metadata.create_all(connection)
                number = connection.scalar(sa.select(version.c.number))
                if number is None:
                    connection.execute(version.insert().values(number=VERSION))
        except BrokenCatalog as error:
            raise UserError(
                f"the server's database is damaged: {error}",
                where=self.place.shown,
                remedy="Put a backup in its place; the sweeps are not affected.",
                exit_code=ExitCode.INCOMPLETE,
            ) from error
        if number not in (None, VERSION):
            self._engine.dispose()
            raise UserError(
                f"the server's database is of version {number}; this evalrun knows {VERSION}",
                where=self.place.shown,
                remedy="Use the evalrun that wrote it, or put a backup in its place. Nothing was changed.",
            )

    def read(self, question: Callable[[sa.Connection], _Answer]) -> _Answer:
        """Put a question. Raises Away where the database cannot be reached; asks twice before."""
        try:
            with self._engine.connect() as connection:
                return question(connection)
        except sa.exc.DBAPIError:
            self._engine.dispose()  # what the pool holds may be connections of before
        with self._guarded(), self._engine.connect() as connection:
            return question(connection)

    def write(self, change: Callable[[sa.Connection], _Answer]) -> _Answer:
        """Make a change, whole or not at all. Raises Away where the database cannot be reached."""
        with self._guarded(), writing(self._engine) as connection:
            return change(connection)

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as error:
            self._engine.dispose()
            raise Away(str(error.orig)) from error
