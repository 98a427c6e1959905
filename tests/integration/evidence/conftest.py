"""A finished sweep, keys made for the test, and a list of allowed signers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.program import evalrun
from tests.recorded import recorded_suite

from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store


def keygen(*words: str | Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ssh-keygen", *map(str, words)], input=data, capture_output=True, check=False)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys of Ana and Bob, and lists of allowed signers."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen here: apt-get install openssh-client")
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ana", "bob"):
        done = keygen("-q", "-t", "ed25519", "-N", "", "-C", f"{name}@example.org", "-f", folder / name)
        assert done.returncode == 0
    ana = " ".join((folder / "ana.pub").read_text().split()[:2])
    bob = " ".join((folder / "bob.pub").read_text().split()[:2])
    (folder / "signers").write_text(f'# who may sign\n"Ana Souza,ana@example.org" {ana}\n')
    (folder / "bob_only").write_text(f"bob@example.org {bob}\n")
    (folder / "expired").write_text(f'ana@example.org valid-before="20200101" {ana}\n')
    (folder / "git_only").write_text(f'ana@example.org namespaces="git" {ana}\n')
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one finished sweep of six samples in two groups, with gates that pass, fail and cannot
    tell."""
    folder = tmp_path_factory.mktemp("evidence")
    rows = [
        {"id": f"r{at}", "want": "yes", "m": "yes" if at < 4 else "no", "sex": ("f", "m")[at % 2]}
        for at in range(6)
    ]
    suite = recorded_suite(
        folder,
        rows,
        ["m"],
        datasets=[{"id": "d", "path": "rows.jsonl", "key": "id", "target": "want", "sensitive": ["sex"]}],
        fairness={"by": ["sex"], "min_group": 1},
        gates=["exact_match >= 0.5", "exact_match >= 0.9"],
    )
    done = evalrun(suite, "--store", folder / "store", "--report", folder / "r.html")
    assert done.returncode == 1, done.stderr
    return folder / "store"


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Store:
    """A copy of that store, to be altered."""
    shutil.copytree(finished, tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture
def sweep(store: Store) -> SweepFolder:
    (folder,) = store.folders()
    return folder
