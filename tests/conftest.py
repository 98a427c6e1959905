"""Fixtures that several test folders use. Servers here are real ones, on loopback."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import ChatServer

# No test depends on how fast the machine is.
settings.register_profile("any_speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_speed")

# Processes that tests start would compile the package anew each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Tests that run side by side are no evaluations beside each other.
os.environ["EVALRUN_RUNNING"] = ""

# What a sweep leaves behind to send its results tries once, and is gone when the test is.
os.environ["EVALRUN_SYNC_TRIES"] = "1"

IN_MEMORY = Path("/dev/shm")
ROOM_BYTES = 2 << 30
TESTS_A_COLLECTION = 200
MOST_WORKERS = 4


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Folders are tested side by side, by as many as there is work for; files and single tests here."""
    if all("::" in word or Path(word).is_file() for word in config.args):
        return 0
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(here, MOST_WORKERS)


def pytest_configure(config: pytest.Config) -> None:
    """Temporary folders in memory, where there is room: a sweep is durable, and mostly waits for a disk."""
    if IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free >= ROOM_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))


class _Collections:
    """Looks for garbage rarely, and keeps what is there out of the collections in between.

    A worker's process holds all test modules and every library: a sweep, which looks for garbage before it
    begins and gives everything back to the collector when it ends, would take twice as long here as in a
    process of its own.
    """

    def __init__(self) -> None:
        self._tests = 0
        self._unfreeze = gc.unfreeze
        pytest.MonkeyPatch().setattr(gc, "unfreeze", lambda: None)

    def pytest_collectstart(self) -> None:
        gc.disable()  # modules hold no garbage, and there is more to look through with every one that is read

    def pytest_collection_finish(self) -> None:
        gc.enable()
        self._collect()

    def pytest_runtest_logfinish(self) -> None:
        self._tests += 1
        if self._tests % TESTS_A_COLLECTION == 0:
            self._collect()

    def _collect(self) -> None:
        self._unfreeze()
        gc.collect()
        gc.freeze()


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.pluginmanager.register(_Collections())


@pytest.fixture(scope="session")
def charts_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for EVALRUN_CACHE, the same for all workers: making the charts' JavaScript takes seconds."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "charts-cache"


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    """A chat-completions server of its own for the test; it answers "42" until told otherwise."""
    with ChatServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _apart_from_the_user(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's store or depends on the user's settings."""
    monkeypatch.delenv("EVALRUN_STORE", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
