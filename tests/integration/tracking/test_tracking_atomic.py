"""Files are whole, private, and a full disk is one clear message."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from evalrun.atomic import disk_errors, private_folder, replacing, write_private
from evalrun.errors import ExitCode, UserError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_and_folders_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = private_folder(tmp_path / "a")
        write_private(folder / "f", b"x")
    finally:
        os.umask(before)
    assert (mode(folder), mode(folder / "f")) == (0o700, 0o600)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_private(path, b"old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_says_so_with_the_folder_and_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught, disk_errors(tmp_path), Path("/dev/full").open("wb", 0) as full:
        full.write(b"x")
    assert caught.value.exit_code == ExitCode.INCOMPLETE
    problem = caught.value.problems[0]
    assert problem.what == "the disk is full"
    assert problem.where == str(tmp_path)
    assert "same command again" in problem.remedy


def test_a_write_that_runs_out_of_room_keeps_the_old_file(tmp_path: Path) -> None:
    write_private(tmp_path / "f", b"old")
    script = """
import resource, signal, sys
from pathlib import Path
from evalrun.atomic import write_private
from evalrun.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_private(Path(sys.argv[1]), b"new" * 5000)
except UserError as error:
    print(int(error.exit_code), error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "f")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("3 ")
    assert "the disk is full" in done.stdout
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("f", b"old")]


def test_a_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(UserError, match="cannot write here"):
        private_folder(tmp_path / "f" / "g")


def test_a_pipe_is_written_into_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_private(pipe, b"all of it")
    reader.join(timeout=10)
    assert got == [b"all of it"]
    assert pipe.is_fifo()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write_private(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_folder_in_the_way_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UserError, match=r"report\.html"):
        write_private(tmp_path / "report.html", b"new")
