"""When memory is read: where resident sizes moved, and not otherwise, since reading it holds an engine up."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from evalrun.runner.processes import MemoryWatch

BLOCK = 60_000_000
GROWS = f"""
print("ready", flush=True)
input()
block = bytearray(b"x") * {BLOCK}
print("grown", flush=True)
input()
"""


@pytest.fixture
def growing() -> Iterator[subprocess.Popen[str]]:
    """A process that takes a block of memory when it is sent a line, and then waits for another."""
    process = subprocess.Popen(
        [sys.executable, "-c", GROWS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


def grow(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "grown\n"


def watching(process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> MemoryWatch:
    """With its first reading made, and the next one not kept waiting for its share of the time."""
    monkeypatch.setattr("evalrun.runner.processes._SHARE", 1e9)
    watch = MemoryWatch(lambda: process.pid)
    watch.list(anew=True)
    assert watch.pss(anew=True).engine is not None
    return watch


def test_memory_that_did_not_move_is_not_read_again(
    growing: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = watching(growing, monkeypatch)
    monkeypatch.setattr("evalrun.runner.processes._MOVED", 0.5)  # our own process may breathe meanwhile
    assert watch.pss(anew=False).engine is None
    assert watch.pss(anew=True).engine is not None, "asked for, it is read in any case"


def test_memory_that_moved_is_read(growing: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watching(growing, monkeypatch)
    before = watch.pss(anew=True).engine
    grow(growing)
    after = watch.pss(anew=False).engine
    assert before is not None and after is not None and after - before >= 0.9 * BLOCK


def test_reading_keeps_to_its_share_of_the_time(
    growing: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = watching(growing, monkeypatch)
    monkeypatch.setattr("evalrun.runner.processes._SHARE", 1e-9)  # the next reading is years away
    watch.pss(anew=True)
    grow(growing)
    assert watch.pss(anew=False).engine is None


def test_another_engine_is_seen_at_once(
    growing: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalrun.runner.processes._SHARE", 1e-9)
    pids: list[int | None] = [None]
    watch = MemoryWatch(lambda: pids[0])
    watch.list(anew=True)
    assert watch.pss(anew=True).engine is None
    pids[0] = growing.pid
    watch.list(anew=False)
    assert list(watch.engine) == [growing.pid]
    assert watch.pss(anew=False).engine is not None
