"""What only the catalog in a SQLite file has: the file, its copies, and how it waits."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
import sqlalchemy as sa
from catalogs import engine_of, execute, query
from tracking_samples import MakeSweep

from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store
from evalrun.tracking.tables import SCHEMA


@pytest.mark.parametrize("damage", ["garbage", "torn"])
def test_a_file_that_is_no_database_is_set_aside_and_made_anew(
    store: Store, make_sweep: MakeSweep, damage: str
) -> None:
    one, two = make_sweep(), make_sweep()
    store.index(one)
    path = store.root / "catalog.db"
    data = path.read_bytes()
    torn = data[:4096] + b"\xaa" * (len(data) - 4096)
    path.write_bytes(b"not a database at all" * 1000 if damage == "garbage" else torn)
    store.index(two)
    assert {row.sweep for row in store.list()} == {one.ulid, two.ulid}
    assert len(list(store.root.glob("catalog.db.broken-*"))) == 1


def test_a_text_that_is_none_any_more_is_damage_too(store: Store, make_sweep: MakeSweep) -> None:
    store.index(make_sweep())
    execute(store, "UPDATE sweep_tag SET value = CAST(x'ff' AS TEXT)")
    assert store.list()[0].tags == {"team": "nlp"}
    assert len(list(store.root.glob("catalog.db.broken-*"))) == 1


def test_a_catalog_with_a_version_table_and_no_version_is_made(store: Store, make_sweep: MakeSweep) -> None:
    folder = make_sweep()
    with closing(sqlite3.connect(store.root / "catalog.db")) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    store.index(folder)
    assert query(store, "SELECT version_num FROM alembic_version") == [(SCHEMA,)]


def test_the_catalog_is_a_patient_wal_database_with_foreign_keys(store: Store, make_sweep: MakeSweep) -> None:
    store.index(make_sweep())
    with engine_of(store).connect() as connection:
        values = [
            connection.scalar(sa.text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert values == ["wal", 1, 1, 30_000]
    assert (store.root / "catalog.db").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_while_indexing_is_one_clear_message(store: Store, make_sweep: MakeSweep) -> None:
    make_sweep()
    script = """
import resource, signal, sys
from pathlib import Path
from evalrun.errors import UserError
from evalrun.tracking.store import Store
from evalrun.tracking.tables import SCHEMA
import sqlalchemy
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
store = Store(Path(sys.argv[1]))
try:
    store.index(store.folders()[0])
except UserError as error:
    print(int(error.exit_code), error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(store.root)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("3 "), done.stdout
    assert str(store.root) in done.stdout
    assert "Traceback" not in done.stderr
    assert [row.sweep for row in store.list()] == [SweepFolder(next(store.sweeps.iterdir())).ulid]
