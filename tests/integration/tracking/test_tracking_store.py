"""The store and its catalog: an index that never loses anything because it holds nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from catalogs import BOTH, contents, drop, engine_of, execute, make_earlier, query
from hypothesis import given
from hypothesis import strategies as st
from tracking_samples import MakeSweep, manifest_of, run_of

from evalrun.errors import ExitCode, UserError
from evalrun.tracking import changes
from evalrun.tracking.database import writing
from evalrun.tracking.entries import fresh, insert, read_entry
from evalrun.tracking.finding import Search
from evalrun.tracking.folder import PATTERN, new_ulid
from evalrun.tracking.store import Store, slug
from evalrun.tracking.tables import SCHEMA, TableRows, metadata

CATALOGS = BOTH


def test_ulids_sort_by_time_and_differ() -> None:
    first = new_ulid()
    time.sleep(0.002)
    later = {new_ulid() for _ in range(1000)}
    assert len(later) == 1000
    assert all(PATTERN.fullmatch(each) and first < each for each in later)


@given(st.text(max_size=200))
def test_slugs_are_safe_file_names(name: str) -> None:
    made = slug(name)
    assert 0 < len(made) <= 60
    assert made == slug(made)
    assert not set(made) - set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    assert made[0] not in ".-"


def test_a_sweep_is_indexed_with_its_runs_parameters_metrics_and_events(
    store: Store, make_sweep: MakeSweep
) -> None:
    folder = make_sweep()
    store.index(folder)
    assert query(store, "SELECT ulid, name, status, runs, samples, failed, git_commit FROM sweep") == [
        (folder.ulid, "triage", "complete", 2, 200, 2, "c" * 40)
    ]
    assert query(store, "SELECT key, type, num, text FROM run_param WHERE run_id = 1 ORDER BY key") == [
        ("extra.style", "text", None, "x"),
        ("extra.top_k", "number", 5.0, "5"),
        ("stop", "json", None, '["\\n"]'),
        ("stream", "bool", 1.0, "true"),
        ("temperature", "number", 0.7, "0.7"),
    ]
    assert query(
        store,
        "SELECT slice, value, n, ci_low FROM run_metric WHERE run_id = 1 AND name = :name ORDER BY slice",
        name="exact_match",
    ) == [('{"dialect":"aave"}', 0.4, 50, None), ("{}", 0.5, 100, 0.4)]
    assert query(store, "SELECT key, value FROM sweep_tag") == [("team", "nlp")]
    assert query(store, "SELECT name, digest, n FROM dataset_version") == [("d", "d" * 64, 100)]
    assert [row[0] for row in query(store, "SELECT action FROM event ORDER BY seq")] == [
        "start", "finish_run", "finish_run", "finish",
    ]  # fmt: skip


def test_indexing_again_changes_nothing_and_follows_the_folder(store: Store, make_sweep: MakeSweep) -> None:
    folder = make_sweep()
    store.index(folder)
    before = contents(store)
    store.index(folder)
    assert contents(store) == before
    folder.finish_run("m-few-d", run_of("m-few-d", value=0.9))
    store.index(folder)
    values = query(
        store, "SELECT value FROM run_metric WHERE name = 'exact_match' AND slice = '{}' ORDER BY value"
    )
    assert values == [(0.5,), (0.9,)]


def test_doubled_metrics_and_odd_parameters_do_not_stop_the_index(
    store: Store, make_sweep: MakeSweep
) -> None:
    folder = make_sweep()
    run = run_of("m-few-d", params={"stop": "x" * 5000, "big": 10**400, "none": None, "empty": {}})
    folder.finish_run("m-few-d", run | {"metrics": run["metrics"] * 2})
    store.index(folder)
    rows = dict(
        query(store, "SELECT key, length(text) FROM run_param WHERE key IN ('stop', 'big', 'none', 'empty')")
    )
    assert rows == {"stop": 500, "big": 401, "none": 4, "empty": 2}


def test_reindex_gives_what_indexing_gave(store: Store, make_sweep: MakeSweep) -> None:
    for name in ("one", "two", "three"):
        store.index(make_sweep(name=name, tags={"name": name}))
    before = contents(store)
    assert len(before["run"]) == 6
    drop(store)
    assert store.reindex().sweeps == 3
    assert contents(store) == before
    assert store.reindex().sweeps == 3
    assert contents(store) == before


def test_reindex_passes_over_folders_that_cannot_be_read_and_names_them(
    store: Store, make_sweep: MakeSweep, caplog: pytest.LogCaptureFixture
) -> None:
    make_sweep()
    broken, later, huge = make_sweep(), make_sweep(), make_sweep()
    (broken.path / "runs/m-few-d/run.json").write_text("{torn")
    (later.path / "sweep.json").write_text(json.dumps(manifest_of(later, schema_version=9)))
    run = run_of("m-few-d")
    huge.finish_run("m-few-d", run | {"counts": {"samples": 10**30}})
    store.create_sweep("crashed at once")
    (store.sweeps / "notes").mkdir()
    result = store.reindex()
    assert result.sweeps == 1
    assert sorted(problem.where for problem in result.problems) == sorted(
        [
            str(broken.path / "runs/m-few-d/run.json"),
            str(later.path / "sweep.json"),
            str(huge.path / "runs/m-few-d/run.json"),
        ]
    )
    with caplog.at_level("WARNING"):
        assert len(store.list()) == 1
    assert "some sweeps cannot be read" in caplog.text


def test_list_shows_the_newest_first_by_project(store: Store, make_sweep: MakeSweep) -> None:
    assert store.list() == []
    first = make_sweep(project="a")
    time.sleep(0.002)
    second = make_sweep(project="b")
    store.index(first)  # the second is found by looking
    rows = store.list()
    assert [row.sweep for row in rows] == [second.ulid, first.ulid]
    assert [row.sweep for row in store.list(1)] == [second.ulid]
    assert [row.sweep for row in store.list(None, "a")] == [first.ulid]
    assert rows[0].folder == second.path
    assert replace(rows[0], sweep="", folder=Path(), finished_at=None) == replace(
        rows[1], sweep="", folder=Path(), finished_at=None, project="b"
    )
    assert (rows[0].planned, rows[0].runs, rows[0].samples, rows[0].failed, rows[0].user) == (
        2,
        2,
        200,
        2,
        "ada",
    )


def test_list_follows_folders_that_change_and_go(store: Store, make_sweep: MakeSweep) -> None:
    folder, gone = make_sweep(status="running"), make_sweep()
    with folder.lock():
        assert {row.status for row in store.list()} == {"running", "complete"}
        held = [row.sweep for row in store.find(Search.of("status == 'running'")).rows]
        assert held == [folder.ulid] * 2
    # Nobody holds it now: its process must have died.
    assert {row.status for row in store.list()} == {"interrupted", "complete"}
    assert store.find(Search.of("status == 'running'")).total == 0
    assert {row.status for row in store.find(Search.of("status == 'interrupted'")).rows} == {"interrupted"}
    folder.finish("incomplete", 3)
    shutil.rmtree(gone.path)
    assert [(row.sweep, row.status, row.exit_code) for row in store.list()] == [
        (folder.ulid, "incomplete", 3)
    ]


@pytest.mark.parametrize("damage", ["deleted", "no tables", "a column less", "rows that contradict"])
def test_a_broken_or_deleted_catalog_is_made_anew_by_whoever_needs_it(
    store: Store, make_sweep: MakeSweep, damage: str
) -> None:
    one, two = make_sweep(), make_sweep()
    store.index(one)
    if damage == "deleted":
        drop(store)
    elif damage == "no tables":
        execute(store, "DROP TABLE run_metric", "DROP TABLE run_param", "DROP TABLE run")
    elif damage == "a column less":
        execute(store, "ALTER TABLE run DROP COLUMN wall_s")
    else:
        execute(store, "CREATE UNIQUE INDEX wrong ON sweep (name)")
    store.index(two)
    assert {row.sweep for row in store.list()} == {one.ulid, two.ulid}
    assert len(query(store, "SELECT run FROM run")) == 4


def test_a_catalog_of_a_later_version_is_refused_and_left_alone(store: Store, make_sweep: MakeSweep) -> None:
    folder = make_sweep()
    store.index(folder)
    execute(store, "UPDATE alembic_version SET version_num = '9999'")
    for action in (lambda: store.index(folder), store.list, store.reindex):
        with pytest.raises(UserError, match="later evalrun") as caught:
            action()
        assert caught.value.exit_code == ExitCode.USAGE
    assert query(store, "SELECT version_num FROM alembic_version") == [("9999",)]
    assert store.resolve(folder.ulid[:12]).path == folder.path  # folders need no catalog


def test_the_number_of_the_schema_is_that_of_the_tables() -> None:
    """Whoever changes a table gives SCHEMA a new number, and puts the new digest here."""
    said = [
        *(f"{c.table.name}.{c.name} {c.type!r} {c.nullable}" for t in metadata.tables.values() for c in t.c),
        *sorted(str(index.name) for table in metadata.tables.values() for index in table.indexes),
    ]
    assert (SCHEMA, hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]) == ("0005", "4ce7277e4c697905")


def test_a_catalog_of_an_earlier_schema_is_made_anew_once(store: Store, make_sweep: MakeSweep) -> None:
    folder = make_sweep()
    store.index(folder)
    before = contents(store)
    make_earlier(store)
    execute(store, "INSERT INTO project (id, name) VALUES (7, 'gone')")
    folder.append_event("note", {"text": "first look"})
    assert store.list()[0].note == "first look"
    assert query(store, "SELECT version_num FROM alembic_version") == [(SCHEMA,)]
    assert query(store, "SELECT name FROM project") == [("support",)]
    assert contents(store)["run_metric"] == before["run_metric"]
    execute(store, "UPDATE project SET name = 'kept'")
    assert store.list()[0].project == "kept"  # the second time it is taken as it is


def test_processes_that_meet_an_earlier_catalog_at_once_all_see_every_sweep(
    store: Store, make_sweep: MakeSweep
) -> None:
    ids = {make_sweep().ulid for _ in range(5)}
    store.list()
    make_earlier(store)
    script = (
        "import sys, time; from pathlib import Path; from evalrun.tracking.store import Store\n"
        "while time.time() < float(sys.argv[2]): time.sleep(0.001)\n"
        "print(*(row.sweep for row in Store(Path(sys.argv[1])).list()))"
    )
    command = [sys.executable, "-c", script, str(store.root), str(time.time() + 1)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [reader.communicate(timeout=120)[0].split() for reader in readers]
    assert [set(answer) for answer in answers] == [ids] * 4
    assert not list(store.root.glob("*broken*"))


def test_texts_with_nul_and_any_other_character_are_kept(store: Store, make_sweep: MakeSweep) -> None:
    odd = "a\0b \U0001f600 \u202e 'x' \"y\" %s :name ?"
    folder = make_sweep(tags={"odd": odd})
    folder.append_event("note", {"text": odd})
    store.index(folder)
    kept = odd.replace("\0", "\ufffd")
    row = store.list()[0]
    assert (row.note, row.tags) == (kept, {"odd": kept})


def test_sweeps_are_resolved_by_prefix_name_project_path_and_latest(
    store: Store, make_sweep: MakeSweep
) -> None:
    first = make_sweep(name="Support Triage")
    time.sleep(0.002)
    second = make_sweep(name="Support Triage")
    time.sleep(0.002)
    third = make_sweep(name="other", project="elsewhere")
    assert store.resolve("latest").path == third.path
    assert store.resolve(first.ulid).path == first.path
    assert store.resolve(first.ulid[:20].lower()).path == first.path
    assert store.resolve("Support Triage").path == second.path
    assert store.resolve("support").path == second.path  # the project
    assert store.resolve("elsewhere").path == third.path
    assert store.resolve(first.path.name).path == first.path
    assert store.resolve(str(first.path)).path == first.path
    with pytest.raises(UserError, match="fits 3 sweeps") as caught:
        store.resolve("0")
    assert first.path.name in str(caught.value)
    with pytest.raises(UserError, match="there is no sweep 'ZZ'"):
        store.resolve("ZZ")
    with pytest.raises(UserError, match="there is no sweep ''"):
        store.resolve("")


def test_a_copy_beside_the_original_is_told_apart_by_its_folder(store: Store, make_sweep: MakeSweep) -> None:
    folder = make_sweep()
    copy = folder.path.with_name(folder.path.name + "-copy")
    shutil.copytree(folder.path, copy)
    with pytest.raises(UserError, match="fits 2 sweeps"):
        store.resolve(folder.ulid)
    assert store.resolve(folder.path.name).path == folder.path
    assert store.resolve(copy.name).path == copy
    assert len(store.list()) == 1


def test_projects_are_resolved_without_a_usable_catalog(store: Store, make_sweep: MakeSweep) -> None:
    folder = make_sweep()
    store.index(folder)
    execute(store, "UPDATE alembic_version SET version_num = '9999'")
    assert store.resolve("support").path == folder.path


def test_an_empty_store_has_no_latest(store: Store) -> None:
    with pytest.raises(UserError, match="there is no sweep 'latest'") as caught:
        store.resolve("latest")
    assert "no sweep yet" in caught.value.problems[0].remedy
    assert not store.root.exists()


WRITE = """
import sys, time
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from tracking_samples import manifest_of, run_of
from evalrun.tracking.store import Store
while time.time() < float(sys.argv[2]):
    time.sleep(0.001)
store = Store(Path(sys.argv[1]))
for number in range(5):
    folder = store.create_sweep("triage")
    folder.write_manifest(manifest_of(folder))
    folder.append_event("start")
    folder.finish_run("m-few-d", run_of("m-few-d"))
    folder.finish("complete", 0)
    store.index(folder)
"""


def test_processes_that_start_at_once_in_a_fresh_store_all_succeed(store: Store) -> None:
    start = str(time.time() + 1.5)
    here = str(Path(__file__).parent)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE, str(store.root), start, here], stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    complaints = [writer.communicate(timeout=120)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, complaints
    assert query(store, "SELECT count(*), sum(runs) FROM sweep") == [(20, 20)]
    assert query(store, "SELECT count(*) FROM project") == [(1,)]
    assert not list(store.root.glob("*broken*"))


def test_running_a_sweep_needs_no_database_layer(store: Store) -> None:
    script = """
import sys
from pathlib import Path
import evalrun.tracking.parquet, evalrun.tracking.provenance
from evalrun.tracking.store import Store
store = Store(Path(sys.argv[1]))
assert store.find_incomplete("x") is None
folder = store.create_sweep("triage")
folder.run_dir("r")
heavy = {"sqlalchemy", "numpy", "pyarrow", "pandas"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script, str(store.root)], check=True)


def test_indexing_needs_no_pandas(store: Store, make_sweep: MakeSweep) -> None:
    script = """
import sys
from pathlib import Path
from evalrun.tracking.store import Store
store = Store(Path(sys.argv[1]))
store.index(store.folders()[0])
heavy = {"numpy", "pyarrow", "pandas"} & set(sys.modules)
assert not heavy, heavy
"""
    make_sweep()
    subprocess.run([sys.executable, "-c", script, str(store.root)], check=True)


def test_a_store_in_a_repository_hides_itself_from_git(store: Store) -> None:
    store.create_sweep("triage")
    subprocess.run(["git", "init", "-q", str(store.root.parent)], check=True)
    status = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all"],
        cwd=store.root.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert status.stdout == ""


def test_an_older_reading_of_a_folder_does_not_replace_a_newer(store: Store, make_sweep: MakeSweep) -> None:
    folder = make_sweep()
    older = read_entry(folder)
    changes.tag(store, folder, {"seen": "yes"})
    with writing(engine_of(store)) as connection:
        insert(TableRows(connection), fresh(older))
    assert store.list()[0].tags["seen"] == "yes"
    assert len(query(store, "SELECT * FROM event")) == len(folder.events())


def test_the_mark_of_a_change_under_way_is_left_to_its_maker(store: Store, make_sweep: MakeSweep) -> None:
    folder = make_sweep()
    mark = store.marks / folder.path.name
    with store.changing(folder):
        store.list()
        assert mark.exists()
        folder.append_event("note", {"text": "under way"})
    assert not mark.exists()
    assert store.list()[0].note == "under way"


def test_processes_that_change_one_sweep_at_once_lose_nothing(store: Store, make_sweep: MakeSweep) -> None:
    make_sweep()
    script = (
        "import sys; from pathlib import Path\n"
        "from evalrun.tracking import changes; from evalrun.tracking.store import Store\n"
        "store = Store(Path(sys.argv[1])); folder = store.folders()[0]\n"
        "for at in range(5): changes.tag(store, folder, {sys.argv[2] + str(at): 'x'})"
    )
    command = [sys.executable, "-c", script, str(store.root)]
    started = [subprocess.Popen([*command, name]) for name in "abc"]
    assert [each.wait(120) for each in started] == [0, 0, 0]
    assert len(store.list()[0].tags) == 16
    before = contents(store)
    store.reindex()
    assert contents(store) == before
