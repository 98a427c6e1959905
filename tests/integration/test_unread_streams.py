"""Whoever reads the terminal may stop, or never begin: the files are written, and the exit code is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

FILES = ("r.html", "j.xml", "s.md")
COMMAND = [
    *(sys.executable, "-m", "evalrun", "suite.yaml"),
    *("--report", "r.html", "--junit", "j.xml", "--summary", "s.md"),
]


@pytest.fixture
def failing(project: Path) -> Path:
    """A suite whose gate fails."""
    rows = [{"id": f"r{at}", "q": f"q{at}", "out": "no", "t": "yes"} for at in range(40)]
    (project / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = {
        "name": "unread",
        "models": [{"id": "m", "provider": "recorded", "column": "out"}],
        "prompts": [{"id": "p", "text": "{{ q }}"}],
        "datasets": [{"id": "d", "path": "rows.jsonl", "key": "id", "target": "t"}],
        "scorers": ["exact_match"],
        "gates": ["exact_match >= 0.9"],
    }
    (project / "suite.yaml").write_text(json.dumps(suite))
    return project


def check_files(folder: Path) -> None:
    assert all((folder / name).stat().st_size for name in FILES)
    assert ElementTree.parse(folder / "j.xml").getroot().attrib["failures"] == "1"
    assert "exact" in (folder / "s.md").read_text()


def broken_pipe() -> int:
    """The end to write to of a pipe that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize("more", [[], ["--json"], ["--quiet"]])
def test_a_reader_of_the_output_that_goes_away(failing: Path, more: list[str]) -> None:
    gone = broken_pipe()
    done = subprocess.run([*COMMAND, *more], stdout=gone, stderr=subprocess.PIPE, timeout=120, check=False)
    os.close(gone)
    assert done.returncode == 1, done.stderr
    assert b"Traceback" not in done.stderr and b"BrokenPipe" not in done.stderr
    check_files(failing)


def test_a_reader_of_the_errors_that_goes_away(failing: Path) -> None:
    gone = broken_pipe()
    done = subprocess.run(COMMAND, stdout=subprocess.PIPE, stderr=gone, timeout=120, check=False)
    os.close(gone)
    assert done.returncode == 1 and b"exact_match >= 0.9" in done.stdout
    check_files(failing)


@pytest.mark.parametrize("closed", [">&- 2>&-", "<&- >&- 2>&-", "2>&-", "<&-"])
def test_closed_streams(failing: Path, closed: str) -> None:
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *COMMAND], timeout=120, check=False)
    assert done.returncode == 1
    check_files(failing)


@pytest.mark.parametrize("closed", [">&- 2>&-", "<&- >&- 2>&-", "2>&-"])
def test_no_file_takes_the_place_of_a_closed_stream(project: Path, closed: str) -> None:
    """Or it would be given what is printed."""
    program = """
import os, sys
from evalrun.cli.streams import spare_streams
spare_streams()
opened = [os.open("data", os.O_RDWR | os.O_CREAT) for _ in range(4)]
sys.stderr.write("a warning"); sys.stderr.flush()
os.system("echo a child >&2")
assert min(opened) > 2 and os.path.getsize("data") == 0, opened
"""
    command = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-c", program]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0


def test_errors_that_nobody_reads(failing: Path) -> None:
    """The pipe is full and stays so: whoever writes to it without care waits forever."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(write, b"x" * 4096)
    os.set_blocking(write, True)
    done = subprocess.run(COMMAND, stdout=subprocess.PIPE, stderr=write, timeout=120, check=False)
    os.close(read)
    os.close(write)
    assert done.returncode == 1 and b"exact_match >= 0.9" in done.stdout
    check_files(failing)


def test_a_gate_held_again_keeps_its_exit_code(failing: Path) -> None:
    subprocess.run([*COMMAND, "--quiet"], capture_output=True, timeout=120, check=False)
    gone = broken_pipe()
    held = [sys.executable, "-m", "evalrun", "gate", "latest"]
    done = subprocess.run(held, stdout=gone, stderr=subprocess.PIPE, timeout=120, check=False)
    os.close(gone)
    assert done.returncode == 1 and done.stderr == b"", done.stderr


def test_a_report_of_gates_that_cannot_be_written_hides_no_results(failing: Path) -> None:
    (failing / "taken").mkdir()
    command = [sys.executable, "-m", "evalrun", "suite.yaml", "--no-report", "--quiet"]
    done = subprocess.run([*command, "--summary", "taken"], capture_output=True, timeout=120, check=False)
    assert done.returncode != 0 and b"Traceback" not in done.stderr


@pytest.mark.parametrize("more", [[], ["--json"], ["--quiet"]])
def test_output_that_goes_where_there_is_no_room(failing: Path, more: list[str]) -> None:
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("there is no /dev/full")
    with full.open("w") as nowhere:
        done = subprocess.run(
            [*COMMAND, *more], stdout=nowhere, stderr=subprocess.PIPE, timeout=120, check=False
        )
        listed = subprocess.run(
            [*COMMAND[:3], "list", "--json"], stdout=nowhere, stderr=subprocess.PIPE, timeout=120, check=False
        )
    assert done.returncode == 1 and b"Traceback" not in done.stderr, done.stderr
    assert listed.returncode == 3 and b"no room" in listed.stderr, listed.stderr
    assert b"Traceback" not in listed.stderr and b"Exception ignored" not in listed.stderr
    assert b"no room" in done.stderr and b"Exception ignored" not in done.stderr, done.stderr
    check_files(failing)
