"""A sweep as the runner leaves it, for the tests of what reads it; and both kinds of catalog."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.postgres import PostgresServer, binaries
from tracking_samples import MakeSweep, sweeps_in

from evalrun.tracking.store import Store


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A file that says `CATALOGS = ("sqlite", "postgresql")` has every test with a store run on both."""
    kinds = getattr(metafunc.module, "CATALOGS", None)
    if kinds and "catalog" in metafunc.fixturenames:
        metafunc.parametrize("catalog", kinds, indirect=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole session."""
    programs = binaries()
    if programs is None or find_spec("psycopg") is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql, pip install 'psycopg[binary]>=3.2'")
    with PostgresServer(programs) as server:
        yield server


@pytest.fixture
def catalog(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of catalog that the test's store has; processes that the test starts have it too.

    SQLite unless the test's file has `CATALOGS`.
    """
    kind: str = getattr(request, "param", "sqlite")
    if kind == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        monkeypatch.setenv("EVALRUN_CATALOG", server.url())
    else:
        monkeypatch.delenv("EVALRUN_CATALOG", raising=False)
    return kind


@pytest.fixture
def store(tmp_path: Path, catalog: str) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def make_sweep(store: Store) -> MakeSweep:
    """Makes a finished sweep with two runs; keyword arguments change its manifest."""
    return sweeps_in(store)
