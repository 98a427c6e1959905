"""The sweep folder: what it holds, who may write it, what a crash leaves of it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tracking_samples import MakeSweep, manifest_of, run_of

from evalrun.errors import ExitCode, UserError
from evalrun.secrets import MASK
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

HOLD = """
import sys, time
from pathlib import Path
from evalrun.tracking.folder import SweepFolder
with SweepFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_everything_in_a_store_is_private(store: Store, make_sweep: MakeSweep) -> None:
    before = os.umask(0)
    try:
        folder = make_sweep()
        with folder.lock():
            store.index(folder)
    finally:
        os.umask(before)
    for path in [store.root, *store.root.rglob("*")]:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_a_manifest_comes_back_as_written_with_keys_of_later_versions(store: Store) -> None:
    folder = store.create_sweep("triage")
    written = manifest_of(
        folder, gates=[{"gate": "x >= 1", "verdict": "pass"}], faults=["none"], later={"a": [1]}
    )
    folder.write_manifest(written)
    read = folder.read_manifest()
    assert {key: read[key] for key in written if key != "plan"} == {
        k: v for k, v in written.items() if k != "plan"
    }
    assert read["plan"] == [{**each, "repeats": 1} for each in written["plan"]]
    assert read["exit_code"] is None
    folder.update_manifest(exit_code=0)
    assert folder.read_manifest()["later"] == {"a": [1]}


def test_a_run_of_a_later_version_is_read(make_sweep: MakeSweep) -> None:
    """A later evalrun says more of a metric and of counts than this one knows."""
    folder = make_sweep()
    run_id = folder.run_ids()[0]
    path = folder.path / "runs" / run_id / "run.json"
    document = json.loads(path.read_text())
    document["metrics"][0]["later"] = 1
    document["counts"]["later"] = 1
    path.write_text(json.dumps(document))
    assert folder.run(run_id).metrics[0].name == document["metrics"][0]["name"]
    assert folder.run(run_id).counts.samples == document["counts"]["samples"]


def test_a_manifest_of_a_later_version_is_refused_kindly(store: Store) -> None:
    folder = store.create_sweep("triage")
    folder.write_manifest(manifest_of(folder))
    path = folder.path / "sweep.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2}))
    with pytest.raises(UserError, match="later evalrun") as caught:
        folder.read_manifest()
    assert caught.value.problems[0].where == str(path)
    assert "Upgrade" in caught.value.problems[0].remedy


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sweep": 1}', "\xff"])
def test_a_broken_manifest_names_its_file(store: Store, text: str) -> None:
    folder = store.create_sweep("triage")
    (folder.path / "sweep.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"sweep\.json"):
        folder.manifest()


def test_secrets_do_not_reach_the_manifest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVED_API_KEY", "correct-horse-battery")
    folder = store.create_sweep("triage")
    suite = {
        "path": "s.yaml",
        "text": "key sk-" + "a1" * 20,
        "digest": "",
        "resolved": {"x": "correct-horse-battery"},
    }
    folder.write_manifest(manifest_of(folder, suite=suite))
    folder.append_event("start", {"argv": ["--token", "hunter2"]})
    text = "".join(path.read_text() for path in folder.path.rglob("*") if path.is_file())
    assert text.count(MASK) == 3
    assert not any(secret in text for secret in ("correct-horse", "a1a1", "hunter2"))


def test_a_run_is_finished_by_its_results_and_carries_the_digests_of_its_files(store: Store) -> None:
    folder = store.create_sweep("triage")
    folder.write_manifest(manifest_of(folder))
    run_dir = folder.run_dir("m-few-d")
    (run_dir / "samples.parquet").write_bytes(b"samples")
    assert not folder.is_finished("m-few-d")
    folder.finish_run("m-few-d", run_of("m-few-d", digests={"other": "1"}))
    folder.finish_run("m-direct-d", run_of("m-direct-d", status="incomplete"))
    assert folder.is_finished("m-few-d")
    assert not folder.is_finished("m-direct-d")
    digests = folder.read_run("m-few-d")["digests"]
    assert digests == {"other": "1", "samples_sha256": hashlib.sha256(b"samples").hexdigest()}
    assert [run["run"] for run in folder.runs()] == ["m-direct-d", "m-few-d"]
    assert folder.run("m-few-d").metrics[1].slice == {"dialect": "aave"}
    assert [each["action"] for each in folder.events()] == ["finish_run", "finish_run"]
    assert folder.verify_events() is None


def test_results_with_values_that_json_cannot_hold_are_written_all_the_same(store: Store) -> None:
    folder = store.create_sweep("triage")
    folder.write_manifest(manifest_of(folder))
    details = {"labels": ["a\ud800"], "huge": 2**80, "nan": float("nan"), 3: "three"}
    folder.finish_run("r", run_of("m-few-d", run="r", details={str(k): v for k, v in details.items()}))
    read = folder.read_run("r")["details"]
    assert read["labels"] == ["a\ufffd"]
    assert read["nan"] is None
    assert read["3"] == "three"


@pytest.mark.parametrize(
    "run_id", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a\0b", "a\nb", "x" * 300]
)
def test_run_ids_cannot_climb_out(store: Store, run_id: str) -> None:
    with pytest.raises(UserError, match="cannot name a run"):
        store.create_sweep("triage").run_dir(run_id)


def test_run_ids_of_the_plan_are_file_names(store: Store) -> None:
    path = store.create_sweep("triage").run_dir("smollm2-few_shot-tickets-temperature=0.7")
    assert path.name == "smollm2-few_shot-tickets-temperature=0.7"


def _holder(folder: SweepFolder) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_sweep_is_held_by_one_process_and_freed_by_its_death(store: Store) -> None:
    folder = store.create_sweep("triage")
    folder.write_manifest(manifest_of(folder))
    process = _holder(folder)
    try:
        assert folder.is_locked()
        assert store.find_incomplete("a" * 64) is None
        with pytest.raises(UserError, match=f"process {process.pid}") as caught, folder.lock():
            pass
        assert caught.value.exit_code == ExitCode.INCOMPLETE
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not folder.is_locked()
    found = store.find_incomplete("a" * 64)
    assert found is not None
    assert found.path == folder.path
    with folder.lock():
        assert folder.is_locked()


def test_looking_at_a_lock_does_not_keep_others_from_taking_it(store: Store) -> None:
    folder = store.create_sweep("triage")
    script = """
import sys
from pathlib import Path
from evalrun.tracking.folder import SweepFolder
folder = SweepFolder(Path(sys.argv[1]))
print("looking", flush=True)
while True:
    folder.is_locked()
"""
    with folder.lock():
        pass
    looker = subprocess.Popen(
        [sys.executable, "-c", script, str(folder.path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert looker.stdout is not None
        looker.stdout.readline()
        for _ in range(30):
            with folder.lock():
                pass
    finally:
        looker.kill()
        looker.communicate()


def test_a_running_sweep_without_a_process_is_interrupted(store: Store) -> None:
    folder = store.create_sweep("triage")
    folder.write_manifest(manifest_of(folder))
    with folder.lock():
        assert folder.status() == "running"
    assert folder.status() == "interrupted"
    folder.finish("complete", 0)
    assert folder.status() == "complete"


def test_numbers_of_numpy_are_written_as_numbers(store: Store) -> None:
    import numpy as np

    folder = store.create_sweep("triage")
    run = run_of("m-few-d", run="r")
    run["metrics"][0] |= {"n": np.int64(7), "value": np.float64(0.5), "se": np.float64("nan")}
    folder.finish_run("r", run | {"details": {"histogram": np.arange(3)}})
    read = folder.run("r")
    assert (read.metrics[0].n, read.metrics[0].value, read.metrics[0].se) == (7, 0.5, None)
    assert folder.read_run("r")["details"] == {"histogram": [0, 1, 2]}


def test_a_child_of_the_holder_does_not_keep_the_lock(store: Store) -> None:
    folder = store.create_sweep("triage")
    with folder.lock():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        assert not folder.is_locked()
    finally:
        child.kill()
        child.wait()


def test_unfinished_sweeps_are_found_by_their_work_newest_first(store: Store, make_sweep: MakeSweep) -> None:
    make_sweep()
    older = make_sweep(status="interrupted")
    time.sleep(0.002)
    newer = make_sweep(status="incomplete")
    make_sweep(status="incomplete", spec_digest="f" * 64)
    found = store.find_incomplete("a" * 64)
    assert found is not None
    assert found.path == newer.path
    newer.finish("complete", 0)
    found = store.find_incomplete("a" * 64)
    assert found is not None
    assert found.path == older.path
    older.finish("complete", 0)
    assert store.find_incomplete("a" * 64) is None


def test_a_mark_that_outlived_completion_or_a_missing_manifest_is_passed_over(
    store: Store, make_sweep: MakeSweep
) -> None:
    done = make_sweep()
    (done.path / "unfinished").write_text("a" * 64)
    empty = store.create_sweep("triage")
    (empty.path / "unfinished").write_text("a" * 64)
    assert store.find_incomplete("a" * 64) is None


def test_a_copied_folder_is_complete(make_sweep: MakeSweep, tmp_path: Path) -> None:
    import shutil

    folder = make_sweep()
    copy = SweepFolder(Path(shutil.copytree(folder.path, tmp_path / folder.path.name)))
    assert copy.read_manifest() == folder.read_manifest()
    assert copy.runs() == folder.runs()
    assert copy.verify_events() is None
