"""A sweep as the runner leaves it, for the tests of what reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tracking_samples import MakeSweep, manifest_of, run_of

from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def make_sweep(store: Store) -> MakeSweep:
    """Makes a finished sweep with two runs; keyword arguments change its manifest."""

    def make(**changes: Any) -> SweepFolder:
        folder = store.create_sweep(changes.get("name", "triage"))
        folder.write_manifest(manifest_of(folder, **changes))
        folder.append_event("start", {"argv": ["evalrun", "s.yaml"]})
        for run_id in ("m-direct-d", "m-few-d"):
            folder.finish_run(run_id, run_of(run_id))
        if "status" not in changes:
            folder.finish("complete", 0)
        return folder

    return make
