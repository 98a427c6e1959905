"""The audit trail: whatever is altered behind the store's back is named."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from catalogs import BOTH, drop, execute
from tests import program
from tracking_samples import MakeSweep

from evalrun.errors import UserError
from evalrun.tracking import changes
from evalrun.tracking.audit import make_anchor, verify
from evalrun.tracking.changes import set_baseline
from evalrun.tracking.events import read_events
from evalrun.tracking.folder import SweepFolder, new_ulid
from evalrun.tracking.people import fold
from evalrun.tracking.store import Store

CATALOGS = BOTH


@pytest.fixture
def folder(store: Store, make_sweep: MakeSweep) -> SweepFolder:
    """A finished sweep with a Parquet file (of any bytes) and a note, in the catalog."""
    made = make_sweep()
    made.samples_path("m-direct-d").write_bytes(b"samples")
    made.finish_run("m-direct-d", made.read_run("m-direct-d"))
    store.index(made)
    changes.note(store, made, "first look")
    return made


def broken(store: Store, **options: object) -> list[str]:
    return [f"{Path(each.where).name}: {each.what}" for each in verify(store, **options).broken]  # type: ignore[arg-type]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_an_untouched_store_is_intact(store: Store, folder: SweepFolder) -> None:
    changes.tag(store, folder, {"team": "cv"})
    result = verify(store)
    assert (result.broken, result.sweeps, result.files) == ([], 1, 4)
    assert store.list(1)[0].tags == {"team": "cv"}


def test_several_sweeps_are_verified(store: Store, folder: SweepFolder, make_sweep: MakeSweep) -> None:
    store.index(make_sweep())
    changes.note(store, make_sweep(), "third")
    result = verify(store)
    assert (result.broken, result.sweeps) == ([], 3)


def test_an_event_that_the_catalog_has_not_seen_is_no_alteration(store: Store, folder: SweepFolder) -> None:
    folder.append_event("export", {"to": "elsewhere"})
    assert broken(store) == []
    execute(store, "UPDATE event SET actor = 'mallory' WHERE seq = 1")
    assert any("in: event" in each for each in broken(store))


def test_an_edited_event_is_named(store: Store, folder: SweepFolder) -> None:
    edit(folder.path / "events.jsonl", "first look", "second look")
    (said,) = [each for each in broken(store) if each.startswith("events.jsonl")]
    assert "event 6 is not what was written" in said and "'note'" in said


def test_an_event_taken_out_is_named(store: Store, folder: SweepFolder) -> None:
    path = folder.path / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    assert any("event 3 is not what was written" in each for each in broken(store))


def test_events_cut_off_the_end_show_against_the_stores_trail(store: Store, folder: SweepFolder) -> None:
    path = folder.path / "events.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert any("cut off: the store's trail knows 6 events, 5 are left" in each for each in broken(store))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("sweep.json", "sweep.json: was altered"),
        ("runs/m-few-d/run.json", "run.json: was altered"),
        ("runs/m-direct-d/samples.parquet", "samples.parquet: was altered"),
    ],
)
def test_altered_files_are_named(store: Store, folder: SweepFolder, name: str, what: str) -> None:
    path = folder.path / name
    path.write_bytes(path.read_bytes() + b"\n")
    assert any(each.startswith(what) for each in broken(store))
    path.unlink()
    assert any(each.startswith(path.name) and "gone" in each for each in broken(store))


def test_files_and_runs_that_no_event_tells_of_are_named(store: Store, folder: SweepFolder) -> None:
    folder.samples_path("m-few-d").write_bytes(b"new")
    shutil.copytree(folder.path / "runs" / "m-few-d", folder.path / "runs" / "planted")
    found = broken(store)
    assert any("was added after" in each for each in found)
    assert any("no event tells of this run" in each for each in found)


def test_rows_changed_in_the_catalog_are_named_and_mended_by_reindex(
    store: Store, folder: SweepFolder
) -> None:
    execute(store, "UPDATE run_metric SET value = 0.99 WHERE name = 'exact_match' AND slice = '{}'")
    assert [each for each in broken(store) if "run_metric" in each]
    store.reindex()
    assert broken(store) == []


def test_a_sweep_that_vanished_is_named_and_a_deleted_one_is_not(
    store: Store, folder: SweepFolder, make_sweep: MakeSweep
) -> None:
    other = make_sweep()
    store.index(other)
    changes.delete(store, other, "by mistake")
    assert broken(store) == []
    assert not other.path.exists() and [row.sweep for row in store.list()] == [folder.ulid]
    (tombstone,) = (event for event in read_events(store.events_path) if event["action"] == "delete")
    assert tombstone["detail"]["reason"] == "by mistake"
    assert tombstone["detail"]["runs"].keys() == {"m-direct-d", "m-few-d"}
    shutil.rmtree(folder.path)
    assert any("gone without a tombstone" in each for each in broken(store))


def test_a_running_sweep_is_not_deleted(store: Store, folder: SweepFolder) -> None:
    with folder.lock(), pytest.raises(UserError, match="is running"):
        changes.delete(store, folder)
    assert folder.path.exists()


def test_an_anchor_shows_what_was_written_anew(store: Store, folder: SweepFolder, tmp_path: Path) -> None:
    anchor = tmp_path / "anchor.json"
    anchor.write_text(json.dumps(make_anchor(store)))
    changes.note(store, folder, "later")
    assert broken(store, anchor=anchor) == []
    # Someone who writes everything: trails begun again from nothing, and consistent.
    (folder.path / "events.jsonl").unlink()
    store.events_path.unlink()
    folder.append_event("start", {})
    store.index(folder)
    shown = [each for each in broken(store) if each.startswith("events.jsonl")]
    assert shown == []
    assert sum("the anchor" in each for each in broken(store, anchor=anchor)) == 2


def test_a_changed_store_trail_is_named(store: Store, folder: SweepFolder) -> None:
    edit(store.events_path, '"record"', '"recurd"')
    assert any("event 1 is not what was written" in each for each in broken(store))


def test_reindex_loses_no_tag_note_or_archiving(store: Store, folder: SweepFolder) -> None:
    changes.tag(store, folder, {"release": "v1", "team": "cv"}, ["team"])
    changes.tag(store, folder, {"owner": "ada"})
    changes.archive(store, folder)
    before = store.list()
    drop(store)
    assert store.list() == before
    assert before[0].tags == {"release": "v1", "owner": "ada"}
    assert (before[0].note, before[0].archived) == ("first look", True)
    assert store.list(archived=False) == []
    changes.archive(store, folder, archived=False)
    assert len(store.list(archived=False)) == 1


def test_the_catalog_learns_of_a_change_that_a_crash_cut_short(store: Store, folder: SweepFolder) -> None:
    with pytest.raises(RuntimeError), store.changing(folder):
        folder.append_event("tag", {"set": {"late": "yes"}})
        raise RuntimeError("died here")
    assert store.list()[0].tags["late"] == "yes"
    assert list(store.marks.iterdir()) == []


def test_removing_a_tag_that_is_not_there_is_refused(store: Store, folder: SweepFolder) -> None:
    with pytest.raises(UserError, match="has no tag 'taem'"):
        changes.tag(store, folder, {}, ["taem"])


def test_events_of_an_odd_form_are_passed_over() -> None:
    event = {"actor": "a", "ts": "t"}
    odd = [{"action": "tag", "detail": {"set": 3, "removed": "x"}}, {"action": "note", "detail": {"text": 1}}]
    said = fold(
        {"x": "1"}, [*({**event, **each} for each in odd), {**event, "action": "tag", "detail": None}]
    )
    assert (said.tags, said.notes, said.archived) == ({"x": "1"}, (), False)


def evalrun(store: Store, *arguments: str, columns: str = "80") -> subprocess.CompletedProcess[str]:
    return program.evalrun(*arguments, "--store", store.root, env={"COLUMNS": columns})


def test_the_commands(store: Store, folder: SweepFolder, tmp_path: Path) -> None:
    assert json.loads(evalrun(store, "tag", "latest", "a=b", "--json").stdout)["tags"]["a"] == "b"
    assert evalrun(store, "tag", "latest", "nonsense").returncode == 2
    notes = json.loads(evalrun(store, "note", "latest", "a\x1b[2Jnote", "--json").stdout)["notes"]
    assert [each["text"] for each in notes] == ["first look", "a\x1b[2Jnote"]
    assert "\x1b" not in evalrun(store, "note", "latest").stdout
    actions = [each["action"] for each in json.loads(evalrun(store, "audit", "latest", "--json").stdout)]
    assert actions[-3:] == ["note", "tag", "note"]
    anchor = tmp_path / "anchor.json"
    anchor.write_text(evalrun(store, "audit", "anchor").stdout)
    assert evalrun(store, "audit", "verify", "--anchor", str(anchor)).returncode == 0
    edit(folder.path / "sweep.json", "support", "sapport")
    done = evalrun(store, "audit", "verify", folder.ulid, "--json")
    assert (done.returncode, json.loads(done.stdout)["intact"]) == (1, False)
    assert "was altered" in done.stdout
    assert evalrun(store, "delete", folder.ulid).returncode != 0
    assert folder.path.exists()
    assert evalrun(store, "delete", folder.ulid, "--yes", "--reason", "old").returncode == 0
    assert "delete" in evalrun(store, "audit").stdout and not folder.path.exists()


def test_event_rows_taken_out_of_the_catalog_are_named(store: Store, folder: SweepFolder) -> None:
    execute(store, "DELETE FROM event WHERE action = 'note'")
    assert [each for each in broken(store) if "event" in each]
    store.reindex()
    assert broken(store) == []


def test_sweeps_missing_from_the_catalog_or_made_up_in_it_are_told_of_and_mended(
    store: Store, folder: SweepFolder, make_sweep: MakeSweep
) -> None:
    other = make_sweep()
    store.index(other)
    execute(
        store,
        f"UPDATE sweep SET ulid = '{'0' * 26}' WHERE ulid = '{other.ulid}' AND NOT EXISTS "
        "(SELECT 1 FROM run WHERE run.sweep = sweep.ulid)",
        f"DELETE FROM sweep WHERE ulid = '{other.ulid}'",
    )
    result = verify(store)
    assert result.broken == []
    assert [each.what for each in result.mended] == [
        f"lacked {other.ulid}, which was entered again from its folder"
    ]
    result = verify(store)
    assert (result.broken, result.mended) == ([], [])
    drop(store)
    assert verify(store).mended == []


def test_a_sweep_without_manifest_and_trail_is_named(store: Store, folder: SweepFolder) -> None:
    (folder.path / "sweep.json").unlink()
    (folder.path / "events.jsonl").unlink()
    assert f"{folder.path.name}: its manifest and its trail are gone" in broken(store)


def test_inputs_are_sealed_with_the_sweep(store: Store, make_sweep: MakeSweep) -> None:
    folder = make_sweep()
    kept = folder.path / "inputs" / "rows-0.jsonl.gz"
    kept.parent.mkdir()
    kept.write_bytes(b"rows")
    folder.finish("complete", 0)
    store.index(folder)
    assert broken(store) == []
    kept.write_bytes(b"other rows")
    assert broken(store) == ["rows-0.jsonl.gz: was altered after the sweep had finished"]
    kept.unlink()
    assert broken(store) == ["rows-0.jsonl.gz: is gone"]


def test_a_copy_under_another_id_is_named(store: Store, folder: SweepFolder) -> None:
    shutil.copytree(folder.path, store.sweeps / f"{new_ulid()}-copy")
    assert broken(store) == [f"sweep.json: is the manifest of another sweep, {folder.ulid}"]


def test_a_forged_start_does_not_unseal_the_manifest(store: Store, folder: SweepFolder) -> None:
    edit(folder.path / "sweep.json", "support", "sapport")
    folder.append_event("start", {})
    assert any("no event tells of its end" in each for each in broken(store))


def test_show_and_list_tell_what_people_said(store: Store, make_sweep: MakeSweep) -> None:
    folder = make_sweep()
    changes.note(store, folder, "first look")
    changes.rename(store, folder, "the good one")
    changes.tag(store, folder, {"release": "v1"})
    changes.note(store, folder, "the target\x1b[2J is wrong", "m-few-d/s1")
    set_baseline(store, "main", folder)
    place = ["promote", f"{folder.ulid}/m-few-d", "--as", "production", "--reason", "better"]
    assert evalrun(store, *place).returncode == 0
    shown = evalrun(store, "show", "latest").stdout
    for text in (
        "Called the good one; the suite calls it triage.",
        "release=v1",
        "Baseline: main",
        "Promoted: m-few-d as production",
        "better",
        "first look",
        "Note on m-few-d/s1",
    ):
        assert text in shown
    assert "\x1b" not in shown
    said = json.loads(evalrun(store, "show", "latest", "--json").stdout)["said"]
    assert (said["name"], said["tags"]["release"], said["baselines"]) == ("the good one", "v1", ["main"])
    assert [each["name"] for each in said["placed"]] == ["production"]
    listed = json.loads(evalrun(store, "list", "--json").stdout)[0]
    assert listed["stands_for"] == ["production", "baseline main"]
    wide = evalrun(store, "list", columns="160").stdout
    assert "production, baseline main" in wide and "release=v1" in wide
