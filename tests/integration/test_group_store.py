"""Two users and one store: a group's, whose mode every file keeps whatever the umask, and a private one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.program import evalrun
from tests.recorded import recorded_suite, yes_no
from tests.users import as_user, shared_place

ANN, BOB, EVE, TEAM = 4711, 4712, 4713, 4800


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that all users may enter and write, with a suite; commands of it are imported already."""
    with shared_place() as folder:
        suite = recorded_suite(folder, yes_no([True, False] * 10), ["m"])
        warm = folder / "warm"
        for words in (
            (suite, "-q", "--no-report"), (suite, "-q", "--no-report", "--fresh"), ("list",), ("find",),
            ("show", "latest"), ("tag", "latest", "a=b"),
            ("annotate", "latest", "a note"), ("audit", "verify"), ("reindex",), ("samples", "m-p-d"),
            ("sql", "select count(*) from samples"), ("store",),
            ("promote", "latest", "--as", "x", "--reason", "y"),
            ("rename", "latest", "z"), ("delete", "latest", "--yes"), ("list",),
        ):  # fmt: skip
            evalrun(*words, "--store", warm)
        folder.chmod(0o1777)
        yield folder


def modes(store: Path) -> tuple[set[int], set[int], set[int]]:
    """The modes of all files, of all folders, and the groups of both."""
    paths = [store, *store.rglob("*")]
    files = {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()}
    folders = {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_dir()}
    return files, folders, {path.stat().st_gid for path in paths}


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_two_users_of_a_group_share_a_store(place: Path, umask: int) -> None:
    store = place / "team"

    def ann(*words: str | Path) -> str:
        done = as_user(ANN, *words, "--store", store, cwd=place, gid=TEAM, umask=umask)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def bob(*words: str | Path) -> str:
        done = as_user(BOB, *words, "--store", store, cwd=place, gid=TEAM, umask=umask)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    assert "group" in ann("store", "create", "--mode", "group")
    suite = place / "suite.yaml"
    ann(suite, "-q", "--no-report")
    bob(suite, "-q", "--no-report", "--fresh")
    for who in (ann, bob):
        assert who("list").count("complete") == 2
        assert "2 runs" in who("find") or who("find").count("m-p-d") == 2
        who("show", "latest")
        who("samples", "m-p-d")
        assert "40" in who("sql", "select count(*) from samples")
        who("audit", "verify")
    first = sorted((store / "sweeps").iterdir())[0]
    assert first.stat().st_uid == ANN
    bob("tag", first.name, "seen=bob")
    ann("annotate", "latest", "a note of Ann's on Bob's sweep")
    bob("promote", f"{first.name}/m-p-d", "--as", "production", "--reason", "it is better")
    ann("rename", "latest", "Ann's name")
    bob("reindex")
    ann("list")
    files, folders, groups = modes(store)
    assert files == {0o660} and folders == {0o2770} and groups == {TEAM}
    ann("delete", "latest", "--yes")
    assert bob("list").count("complete") == 1
    refused = as_user(EVE, "list", "--store", store, cwd=place)
    assert refused.returncode != 0 and "Traceback" not in refused.stderr


def test_a_private_store_stays_so_within_a_shared_folder(place: Path) -> None:
    shared = place / "shared"
    shared.mkdir()
    os.chown(shared, ANN, TEAM)
    shared.chmod(0o2770)
    made = as_user(ANN, "store", "create", "--store", shared / "mine", cwd=place, gid=TEAM, umask=0)
    assert made.returncode == 0, made.stderr
    done = as_user(
        ANN,
        place / "suite.yaml",
        "-q",
        "--no-report",
        "--store",
        shared / "mine",
        cwd=place,
        gid=TEAM,
        umask=0,
    )
    assert done.returncode == 0, done.stderr
    files, folders, _ = modes(shared / "mine")
    assert files == {0o600} and folders == {0o700}
    again = as_user(
        ANN, "store", "create", "--mode", "group", "--store", shared / "mine", cwd=place, gid=TEAM
    )
    assert again.returncode == 2 and "it is private" in again.stderr


def test_a_setgid_folder_is_a_groups_store(place: Path) -> None:
    store = place / "by-hand"
    store.mkdir()
    os.chown(store, ANN, TEAM)
    store.chmod(0o2770)
    for user in (ANN, BOB):
        words = (place / "suite.yaml", "-q", "--no-report", "--fresh")
        done = as_user(user, *words, "--store", store, cwd=place, gid=TEAM, umask=0o077)
        assert done.returncode == 0, done.stderr
    assert modes(store) == ({0o660}, {0o2770}, {TEAM})
