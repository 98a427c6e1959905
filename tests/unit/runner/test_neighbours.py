"""Sweeps beside each other on one machine: seen by all of them, and nothing of the dead counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evalrun.runner import neighbours
from evalrun.runner.neighbours import Beside, Neighbours, endpoint_digest

SERVER, OTHER = "http://127.0.0.1:8000/v1", "https://api.example.com/v1"


def span(mine: Neighbours, endpoint: str = SERVER) -> Beside:
    """Who is there in the half second around now."""
    now = time.perf_counter()
    return mine.during(now - 0.2, now + 0.3, endpoint)


def test_both_see_each_other_whichever_began_first(tmp_path: Path) -> None:
    with Neighbours([SERVER], tmp_path) as first:
        assert span(first) == Beside(0, 0.0, 0.0, span(first).of_s)
        with Neighbours([SERVER, OTHER], tmp_path) as second:
            time.sleep(0.02)
            for mine in (first, second):
                beside = span(mine)
                assert beside.sweeps == 1 and 0 < beside.same_endpoint_s <= beside.seconds < 0.5
                assert "another evaluation asked the same endpoint for" in beside.sentence()
        with Neighbours([OTHER], tmp_path):
            time.sleep(0.02)
            assert (
                span(first, "local:engine").sentence().startswith("2 other evaluations ran on this machine")
            )
    assert list(tmp_path.iterdir()) == []


def test_another_endpoint_on_the_same_machine(tmp_path: Path) -> None:
    with Neighbours([SERVER], tmp_path) as mine, Neighbours([OTHER], tmp_path):
        time.sleep(0.02)
        beside = span(mine)
        assert beside.seconds > 0 and beside.same_endpoint_s == 0
        assert "another evaluation ran on this machine" in beside.sentence()


def test_what_ended_before_is_not_beside(tmp_path: Path) -> None:
    with Neighbours([SERVER], tmp_path) as mine:
        with Neighbours([SERVER], tmp_path):
            time.sleep(0.02)
            assert span(mine).sweeps == 1
        time.sleep(0.02)
        now = time.perf_counter()
        assert mine.during(now, now + 1, SERVER).sentence() == ""


def test_a_killed_process_counts_for_nothing_and_its_file_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom evalrun.runner.neighbours import Neighbours\n"
        f"with Neighbours([{SERVER!r}], Path(sys.argv[1])):\n    print('in', flush=True)\n    time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "in\n"
    with Neighbours([SERVER], tmp_path) as mine:
        assert span(mine).sweeps == 1
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    os.utime(left[0], (0, 0))
    monkeypatch.setattr(neighbours, "LOOK_S", 0.01)
    with Neighbours([SERVER], tmp_path) as mine:
        assert span(mine).sweeps == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "garbage", "[]", '{"began": "x", "endpoints": 3}'])
def test_files_that_are_none_of_ours_do_no_harm(tmp_path: Path, text: str) -> None:
    import fcntl

    strange = tmp_path / "1-a.json"
    strange.write_text(text)
    (tmp_path / "2-b.json").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "3-c.json")
    (tmp_path / "4-d.json").mkdir()
    with strange.open() as held, Neighbours([SERVER], tmp_path) as mine:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert span(mine).sweeps == 0


def test_a_place_that_cannot_be_used_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Neighbours([SERVER], tmp_path / "file") as mine:
        assert span(mine).sentence() == ""


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://localhost:8000/v1", "http://127.0.0.1:8000/other", True),
        ("http://user:key@api.example.com/v1", "http://api.example.com:80", True),
        ("https://API.example.com/v1", "https://api.example.com:443/v2?key=1", True),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8001", False),
        ("local:engine", "local:engine", False),
        ("http://[::1", "http://[::1", False),
    ],
)
def test_an_endpoint_is_its_server(one: str, other: str, same: bool) -> None:
    first, second = endpoint_digest(one), endpoint_digest(other)
    assert (first is not None and first == second) is same
