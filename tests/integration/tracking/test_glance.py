"""What a list asks of the catalog without the database layer: the same answers, or none."""

from __future__ import annotations

import subprocess
import sys

import pytest
from catalogs import execute
from tracking_samples import MakeSweep

from evalrun.tracking import changes
from evalrun.tracking.catalog import Catalog
from evalrun.tracking.database import catalog_place
from evalrun.tracking.finding import events_of
from evalrun.tracking.glance import glance, sweep_rows
from evalrun.tracking.store import Store
from evalrun.tracking.targets import find_run_target


@pytest.fixture
def lived_in(store: Store, make_sweep: MakeSweep) -> Store:
    """Sweeps of two projects with tags, a note, an archived one and a promotion."""
    first, second = make_sweep(), make_sweep(project="other", name="O\u2019Neil; --")
    changes.tag(store, second, {"team": "a", "odd": "'; DROP TABLE sweep"})
    changes.note(store, first, "keep this")
    changes.archive(store, make_sweep())
    changes.promote(
        store, find_run_target(store, f"{first.ulid}/m-few-d"), changes.Wish("production", "the first")
    )
    store.list()
    return store


@pytest.mark.parametrize("limit", [None, 1, 2])
@pytest.mark.parametrize("project", [None, "other", "nobody"])
@pytest.mark.parametrize("archived", [True, False])
def test_the_rows_are_those_of_the_catalog(
    lived_in: Store, limit: int | None, project: str | None, archived: bool
) -> None:
    store = lived_in
    quick = glance(store, names_of(store), lambda asked: sweep_rows(asked, store, limit, project, archived))
    with Catalog.open(catalog_place(store.root), store.sweeps) as catalog:
        assert quick == catalog.sweeps(limit, project, archived=archived)
        told = catalog.read(lambda connection: events_of(connection, ("promote", "tag")))
    assert store.events_of(("promote", "tag")) == told
    assert told


def names_of(store: Store) -> list[str]:
    return [folder.path.name for folder in store.folders()]


def test_a_catalog_that_is_behind_has_no_answer(lived_in: Store, make_sweep: MakeSweep) -> None:
    store = lived_in

    def answers() -> bool:
        return glance(store, names_of(store), lambda asked: True) is True

    assert answers()
    (
        store.sweeps / "01K00000000000000000000000-crashed"
    ).mkdir()  # without a manifest there is nothing to enter
    assert answers()
    added = make_sweep()
    assert not answers()
    assert store.list()[0].sweep == added.ulid
    assert answers()
    (store.root / "changed").mkdir(exist_ok=True)
    (store.root / "changed" / added.path.name).touch()
    assert not answers()
    store.list()
    execute(store, "UPDATE alembic_version SET version_num = '0001'")
    assert not answers()
    assert len(store.list()) == 4


def test_a_sweep_that_goes_on_is_looked_at_again(store: Store, make_sweep: MakeSweep) -> None:
    folder = make_sweep(status="interrupted")
    assert [row.status for row in store.list()] == ["interrupted"]
    manifest = folder.read_manifest()
    folder.write_manifest({**manifest, "status": "complete"})
    assert [row.status for row in store.list()] == ["complete"]


def test_a_list_imports_no_database_layer(lived_in: Store) -> None:
    script = """
import sys
from pathlib import Path
from evalrun.cli.main import cli
cli(["list", "--store", sys.argv[1], "--json"], standalone_mode=False)
assert "sqlalchemy" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script, str(lived_in.root)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "production" in done.stdout
