"""What only the catalog in PostgreSQL has: the URL, its password, the schema, who may use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from catalogs import execute, query
from tests.postgres import PostgresServer
from tests.program import evalrun
from tracking_samples import MakeSweep, run_of

from evalrun.errors import ExitCode, UserError
from evalrun.tracking.database import read_url, shown_url
from evalrun.tracking.finding import Search
from evalrun.tracking.store import Store

PASSWORD = "pw-0f8a-hunter"


def all_text(folder: Path) -> str:
    return "\n".join(each.read_text(errors="replace") for each in folder.rglob("*") if each.is_file())


@pytest.mark.parametrize(
    ("url", "schema"),
    [
        ("postgresql://ada@db.example/evals", "evalrun"),
        ("postgres://ada:secret-one@db.example:5433/evals?schema=team_a", "team_a"),
        ("postgresql+psycopg:///evals?host=/run/pg&schema=x", "x"),
    ],
)
def test_urls_are_read_and_shown_without_the_password(url: str, schema: str) -> None:
    parsed, found = read_url(url)
    assert (parsed.drivername, found) == ("postgresql+psycopg", schema)
    assert "schema" not in parsed.query
    shown = shown_url(parsed, found)
    assert shown.startswith("postgresql://") and "secret" not in shown
    assert "password" not in shown_url(parsed.update_query_dict({"password": "secret"}), found)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://a:secret-pw@h/d",
        "not a url",
        "sqlite:///x.db",
        "postgresql://h/d?schema=Bad-Name",
        "postgresql://[h/d",
    ],
)
def test_other_urls_are_refused_kindly(url: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALRUN_CATALOG", url)
    store.create_sweep("x")
    with pytest.raises(UserError) as caught:
        store.list()
    assert "secret-pw" not in str(caught.value)


def test_a_store_keeps_its_setting_and_goes_back(
    store: Store, make_sweep: MakeSweep, postgres: PostgresServer
) -> None:
    one = make_sweep()
    url = postgres.url("team_setting")
    done = evalrun("catalog", "use", url, "--store", str(store.root))
    assert done.returncode == 0, done.stderr
    assert not (store.root / "catalog.db").exists()
    assert store.catalog_shown.startswith("postgresql://tester@")
    assert [row.sweep for row in store.list()] == [one.ulid]
    shown = json.loads(evalrun("catalog", "--store", str(store.root), "--json").stdout)
    assert (shown["sweeps"], "team_setting" in shown["catalog"]) == (1, True)
    assert evalrun("catalog", "use", "sqlite", "--store", str(store.root)).returncode == 0
    assert (store.root / "catalog.db").exists()
    assert [row.sweep for row in store.list()] == [one.ulid]


def test_a_setting_that_does_not_work_is_not_kept(store: Store, postgres: PostgresServer) -> None:
    done = evalrun("catalog", "use", postgres.url(database="nowhere"), "--store", str(store.root))
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert 'database "nowhere" does not exist' in done.stderr
    assert not (store.root / "catalog.json").exists()


def test_a_password_is_neither_stored_nor_printed(
    store: Store, make_sweep: MakeSweep, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sweep()
    root = str(store.root)
    refused = evalrun("catalog", "use", postgres.url(password=PASSWORD), "--store", root)
    assert refused.returncode == 2 and "password" in refused.stderr
    listed = evalrun("list", "--store", root, "--catalog", postgres.url(password=PASSWORD), "--json")
    assert (listed.returncode, len(json.loads(listed.stdout))) == (0, 1)
    absent = postgres.url(database="nowhere", password=PASSWORD)
    wrong = evalrun("list", "--store", root, "--catalog", absent)
    assert wrong.returncode == 3 and "Traceback" not in wrong.stderr
    monkeypatch.setenv("EVALRUN_CATALOG", postgres.url(password=PASSWORD))
    shown = evalrun("catalog", "--store", root)
    assert shown.returncode == 0
    said = "".join(done.stdout + done.stderr for done in (refused, listed, wrong, shown))
    assert PASSWORD not in said + all_text(store.root)


def test_two_stores_in_one_schema_are_told_apart(
    store: Store,
    make_sweep: MakeSweep,
    postgres: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EVALRUN_CATALOG", postgres.url())
    one = make_sweep()
    assert [row.sweep for row in store.list()] == [one.ulid]
    other = Store(tmp_path / "other")
    other.create_sweep("x")
    with pytest.raises(UserError, match="another store"):
        other.list()
    assert [row.sweep for row in store.list()] == [one.ulid]
    moved = store.root.rename(tmp_path / "elsewhere")
    assert [row.sweep for row in Store(moved).list()] == [one.ulid]


def test_a_schema_of_someone_else_is_left_alone(
    store: Store, make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer
) -> None:
    monkeypatch.setenv("EVALRUN_CATALOG", postgres.url("public"))
    make_sweep()
    with pytest.raises(UserError, match="not made by evalrun"):
        store.list()


def test_a_server_that_is_down_costs_a_warning_and_no_sweep(
    store: Store, make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALRUN_CATALOG", "postgresql://ada@127.0.0.1:9/evals")
    folder = make_sweep()
    with pytest.raises(UserError, match="cannot be used") as caught:
        store.index(folder)
    assert caught.value.exit_code == ExitCode.INCOMPLETE
    assert store.resolve(folder.ulid).path == folder.path


def test_a_broken_catalog_is_renamed_and_made_anew(
    store: Store, make_sweep: MakeSweep, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALRUN_CATALOG", postgres.url())
    folder = make_sweep()
    store.index(folder)
    execute(store, "DROP TABLE run_metric")
    assert store.find(Search.of("metric.exact_match >= 0.5")).total == 2
    kept = query(store, "SELECT nspname FROM pg_namespace WHERE nspname LIKE current_schema() || '_broken_%'")
    assert len(kept) == 1


def test_texts_are_ordered_by_code_point_whatever_the_server_speaks(
    store: Store, make_sweep: MakeSweep, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALRUN_CATALOG", postgres.url())
    folder = make_sweep()
    for run_id, model in (("m-direct-d", "Zulu"), ("m-few-d", "alpha")):
        folder.finish_run(run_id, run_of(run_id, model=model))
    store.index(folder)
    models = [row.model for row in store.find(Search.of("", sort=["model"])).rows]
    assert models == ["Zulu", "alpha"]
    assert store.find(Search.of("model < 'a'")).total == 1


def test_what_one_question_reads_is_of_one_moment_and_changes_nothing(
    store: Store, make_sweep: MakeSweep, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALRUN_CATALOG", postgres.url())
    store.index(make_sweep())

    def twice(connection: sa.Connection) -> tuple[object, object]:
        before = connection.scalar(sa.text("SELECT count(*) FROM sweep"))
        execute(store, "DELETE FROM sweep")
        return before, connection.scalar(sa.text("SELECT count(*) FROM sweep"))

    assert store.read(twice) == (1, 1)
    with pytest.raises(UserError, match="read-only"):
        store.read(lambda connection: connection.execute(sa.text("DELETE FROM sweep")))
