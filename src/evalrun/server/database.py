"""What a server knows that no folder does: people, grants, tokens, sessions, queues and who labels what.

None of it can be made again from sweep folders, so it is kept apart from the catalog: in `server.db` of the
store, or, where the catalog is in PostgreSQL, in a schema of its own beside it. `evalrun reindex` touches
neither.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

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
Key = Annotated[str, mapped_column(primary_key=True)]
Indexed = Annotated[str, mapped_column(index=True)]


class Base(DeclarativeBase):
    """The tables. Moments are seconds since 1970, but `ts`, which is as it stands in the folder."""

    type_annotation_map: ClassVar = {str: sa.Text, int: sa.BigInteger}


class Version(Base):
    __tablename__ = "version"
    number: Mapped[Key]


class User(Base):
    __tablename__ = "person"
    __table_args__ = (sa.UniqueConstraint("issuer", "subject"),)
    id: Mapped[Key]
    issuer: Mapped[str]
    subject: Mapped[str]
    name: Mapped[str]
    groups: Mapped[str] = mapped_column(default="[]")
    created: Mapped[int]
    disabled: Mapped[int] = mapped_column(default=0)


class Grant(Base):
    __tablename__ = "granted"
    person: Mapped[Key]
    project: Mapped[Key]
    role: Mapped[str]


class Token(Base):
    __tablename__ = "token"
    id: Mapped[Key]
    hash: Mapped[str]
    name: Mapped[str]
    made_by: Mapped[str]
    owner: Mapped[str | None]
    role: Mapped[str]
    project: Mapped[str]
    expires: Mapped[int]
    last_used: Mapped[int | None]
    revoked: Mapped[int | None]


class Session(Base):
    __tablename__ = "login_session"
    hash: Mapped[Key]
    person: Mapped[Indexed]
    method: Mapped[str]
    created: Mapped[int]
    seen: Mapped[int]


class Link(Base):
    __tablename__ = "sign_in_link"
    hash: Mapped[Key]
    person: Mapped[str]
    expires: Mapped[int]


class Queue(Base):
    __tablename__ = "queue"
    id: Mapped[Key]
    project: Mapped[Indexed]
    sweep: Mapped[Indexed]
    title: Mapped[str]
    spec: Mapped[str]
    seed: Mapped[str]
    made_by: Mapped[str]
    created: Mapped[int]
    closed: Mapped[int | None]


class Item(Base):
    __tablename__ = "item"
    queue: Mapped[Key]
    id: Mapped[Key]
    run: Mapped[str]
    sample_id: Mapped[str]
    shown: Mapped[str]


class Lease(Base):
    __tablename__ = "lease"
    queue: Mapped[Key]
    item: Mapped[Key]
    person: Mapped[Key]
    until: Mapped[int]
    skipped: Mapped[int] = mapped_column(default=0)


class Answer(Base):
    __tablename__ = "answer"
    queue: Mapped[Key]
    item: Mapped[Key]
    person: Mapped[Key]
    value: Mapped[str]
    comment: Mapped[str]
    ts: Mapped[str]


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
                Base.metadata.create_all(connection)
                number = connection.scalar(sa.select(Version.number))
                if number is None:
                    connection.execute(sa.insert(Version).values(number=VERSION))
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

    def first(self, query: sa.Executable) -> Any:
        """The first row that a query finds, or None."""
        return self.read(lambda connection: connection.execute(query).first())

    def all(self, query: sa.Executable) -> list[Any]:
        """All rows that a query finds."""
        return self.read(lambda connection: list(connection.execute(query).all()))

    def column(self, query: sa.Executable) -> list[Any]:
        """The first column of all rows that a query finds."""
        return self.read(lambda connection: list(connection.scalars(query)))

    def do(self, change: sa.Executable) -> int:
        """Make one change; how many rows it was of."""
        return self.write(lambda connection: connection.execute(change).rowcount)

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
