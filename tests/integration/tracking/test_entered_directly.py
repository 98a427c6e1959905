"""What is entered into the catalog without the database layer: the same tables, the same rows, or none."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tracking_samples import MakeSweep

from evalrun.tracking import changes
from evalrun.tracking.catalog import Catalog
from evalrun.tracking.database import SqlitePlace, catalog_place
from evalrun.tracking.rows import enter
from evalrun.tracking.store import Store

TABLES = ("project", "sweep", "sweep_tag", "dataset_version", "run", "run_param", "run_metric", "event")


def asked(path: Path, question: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(question).fetchall()


def test_the_tables_are_those_of_the_database_layer(
    store: Store, make_sweep: MakeSweep, tmp_path: Path
) -> None:
    assert enter(store.root, make_sweep())
    SqlitePlace(tmp_path / "other.db").ready().dispose()
    question = "SELECT type, name, tbl_name, replace(sql, ' ' || char(10), char(10)) FROM sqlite_master"
    here, there = (set(asked(path, question)) for path in (store.root / "catalog.db", tmp_path / "other.db"))
    assert here == there


def test_the_rows_are_the_database_layers(store: Store, make_sweep: MakeSweep) -> None:
    folder = make_sweep()
    changes.tag(store, folder, {"odd": "nul \0 and '; DROP TABLE sweep", "figure": "0.5"})
    changes.note(store, folder, "kept")
    path = store.root / "catalog.db"

    def rows() -> dict[str, list[tuple[object, ...]]]:
        return {table: sorted(asked(path, f"SELECT * FROM {table}"), key=repr) for table in TABLES}

    assert enter(store.root, folder)
    here = rows()
    assert all(here.values())
    path.unlink()
    with Catalog.open(catalog_place(store.root), store.sweeps) as catalog:
        catalog.index(folder)
    assert rows() == here


@pytest.mark.parametrize(
    "damage", ["UPDATE alembic_version SET version_num = '9999'", "DROP TABLE run_metric"]
)
def test_what_is_not_as_expected_is_left_to_the_catalog(
    store: Store, make_sweep: MakeSweep, damage: str
) -> None:
    one, two = make_sweep(), make_sweep()
    assert enter(store.root, one)
    path = store.root / "catalog.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)
    assert not enter(store.root, two)
    assert asked(path, "SELECT ulid FROM sweep") == [(one.ulid,)], "and nothing is changed"


def test_a_catalog_elsewhere_is_not_this_one(
    store: Store, make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALRUN_CATALOG", "postgresql://nobody@127.0.0.1:9/none")
    assert not enter(store.root, make_sweep())
    assert not (store.root / "catalog.db").exists()
