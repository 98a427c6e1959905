"""Documents are read once however often they are asked for, and anew when they were written anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalrun.tracking import folder as folders
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store


def manifest(folder: SweepFolder, runs: int, **more: object) -> dict[str, object]:
    plan = [{"run": f"r{at}", "model": "m", "prompt": "p", "dataset": "d"} for at in range(runs)]
    suite = {"path": "s", "text": "", "digest": ""}
    known = {"schema_version": 1, "sweep": folder.ulid, "name": "many", "project": "many", "suite": suite}
    return {**known, "status": "running", "spec_digest": "x", "plan": plan, **more}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the documents that are read."""
    names: list[str] = []
    real = folders.read_document

    def read_document(path: Path) -> dict[str, object]:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(folders, "read_document", read_document)
    return names


def test_a_manifest_is_read_again_when_it_was_written_again(tmp_path: Path, read: list[str]) -> None:
    folder = Store(tmp_path).create_sweep("many")
    folder.write_manifest(manifest(folder, 3))
    assert [folder.manifest().name for _ in range(5)] == ["many"] * 5
    assert read == ["sweep.json"]
    folder.write_manifest(manifest(folder, 3, status="complete"))
    assert [folder.manifest().status for _ in range(5)] == ["complete"] * 5
    assert read == ["sweep.json"] * 2


def test_not_all_sweeps_of_a_store_are_held(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for at in range(5):
        folder = store.create_sweep(f"n{at}")
        folder.write_manifest(manifest(folder, 1))
        assert folder.manifest().plan
    assert len(folders._READ) <= folders._KEPT_SWEEPS


def test_the_folders_of_many_runs_are_made_with_one_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Store(tmp_path).create_sweep("many")
    waits: list[Path] = []
    monkeypatch.setattr("evalrun.atomic.sync", waits.append)
    folder.make_run_dirs(f"r{at}" for at in range(50))
    assert len(waits) <= 2
    assert sorted(each.name for each in (folder.path / "runs").iterdir()) == sorted(
        f"r{at}" for at in range(50)
    )
    assert all(each.stat().st_mode & 0o777 == 0o700 for each in (folder.path / "runs").iterdir())
