"""What a catalog's database is to the code that uses it, whichever it is: its schema and its writing."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib import resources

import sqlalchemy as sa

from evalrun.errors import UserError
from evalrun.tracking.tables import metadata

MIGRATIONS = "evalrun.tracking.migrations"

WRITING = "evalrun_write"
"""Execution option of connections that are going to write."""


class BrokenCatalog(Exception):
    """The catalog cannot be read as one. It is only an index: set it aside and make it anew."""


class Place(ABC):
    """Where a catalog is kept: a SQLite file beside the sweeps, or a schema of a PostgreSQL database."""

    @property
    @abstractmethod
    def shown(self) -> str:
        """What messages call it; holds no secret."""

    @abstractmethod
    def engine(self) -> sa.Engine:
        """An engine for what is there, with nothing made and nothing checked."""

    @abstractmethod
    def ready(self) -> sa.Engine:
        """An engine for it, its tables made and up to date, whoever else starts at the same moment. The
        caller disposes of it.

        Raises UserError where it cannot be reached or was written by a later version.
        """

    @abstractmethod
    def set_aside(self) -> str:
        """Move a broken catalog out of the way, and say where to."""

    @abstractmethod
    def meaning(self, error: sa.exc.DBAPIError) -> Exception | None:
        """What an error of the driver means: BrokenCatalog, a UserError, or None where it is a bug."""


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


@contextlib.contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection inside a write transaction, committed at the end, undone on an error.

    Of one catalog there is one at a time: others wait for it.
    """
    with engine.connect().execution_options(**{WRITING: True}) as connection, connection.begin():
        yield connection


def revisions() -> list[str]:
    """The schema versions that this code knows, oldest first; the last is the one that it needs."""
    folder = resources.files(MIGRATIONS) / "versions"
    return sorted(each.name.split("_")[0] for each in folder.iterdir() if each.name[:1].isdigit())


def stored_revision(engine: sa.Engine) -> str | None:
    """The schema version of a database, None where it has none."""
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        found = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)


def is_older(found: str | None, shown: str) -> bool:
    """Whether a database of this version has to be upgraded. Raises UserError for a later one."""
    known = revisions()
    if found is None or found == known[-1]:
        return False
    if found in known:
        return True
    raise UserError(
        f"the catalog was written by a later evalrun (schema {found}; this one knows {known[-1]})",
        where=shown,
        remedy="Upgrade evalrun, or use another store with --store. The sweep folders are not affected.",
    )


def create_schema(connection: sa.Connection) -> None:
    """The newest schema at once: what all migrations come to (a test holds the two together)."""
    metadata.create_all(connection)
    connection.exec_driver_sql(
        "CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL, "
        "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    connection.execute(sa.text("DELETE FROM alembic_version"))
    connection.execute(sa.text("INSERT INTO alembic_version VALUES (:r)"), {"r": revisions()[-1]})


def upgrade(engine: sa.Engine, revision: str = "head") -> None:
    """Bring the schema to a revision. Imports Alembic, so call it only where there is something to do."""
    from alembic import command
    from alembic.config import Config

    with resources.as_file(resources.files(MIGRATIONS)) as folder, writing(engine) as connection:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
