"""Looking into a catalog behind the store's back, whichever database it is."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from evalrun.tracking.database import catalog_place, writing
from evalrun.tracking.store import Store
from evalrun.tracking.tables import metadata

BOTH = ("sqlite", "postgresql")

HIDDEN = {"id", "run_id", "project_id", "dataset_version_id", "stamp"}
"""The ids that the database gives, and the times of files."""


def engine_of(store: Store) -> sa.Engine:
    """An engine for the store's catalog, with nothing checked and nothing made."""
    return catalog_place(store.root).engine()


def query(store: Store, sql: str, **values: Any) -> list[tuple[Any, ...]]:
    """The rows that a SELECT gives."""
    with engine_of(store).connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(sql), values)]


def execute(store: Store, *statements: str) -> None:
    """Change the catalog."""
    with writing(engine_of(store)) as connection:
        for each in statements:
            connection.execute(sa.text(each))


def drop(store: Store) -> None:
    """Take the whole catalog away."""
    if engine_of(store).dialect.name == "postgresql":
        (schema,) = query(store, "SELECT current_schema()")[0]
        execute(store, f'DROP SCHEMA "{schema}" CASCADE')
    else:
        for path in store.root.glob("catalog.db*"):
            path.unlink()


def contents(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, without what a rebuilt catalog may have otherwise."""
    return {
        table.name: sorted(
            query(
                store,
                f"SELECT {', '.join(c.name for c in table.c if c.name not in HIDDEN)} FROM {table.name}",
            ),
            key=repr,
        )
        for table in metadata.sorted_tables
    }


def make_earlier(store: Store) -> None:
    """Give the catalog the tables of the first schema, as far as they matter: two columns less."""
    execute(
        store,
        "ALTER TABLE sweep DROP COLUMN archived",
        "ALTER TABLE sweep DROP COLUMN note",
        "UPDATE alembic_version SET version_num = '0001'",
    )
