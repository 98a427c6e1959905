"""The program as another user: in a child of the test's process, which has imported all it needs. (Where
Python lies in root's home, no other user could start it.) Commands must have been run by the test before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest

from tests.program import evalrun


def _readable_by_others(place: Path) -> bool:
    """A child that became another user still reads packages from where we are installed."""
    return all(path.stat().st_mode & 0o005 == 0o005 for path in [place, *place.parents][:-1])


@contextmanager
def shared_place() -> Iterator[Path]:
    """A folder that all users may enter; pytest's own are closed to others. Skips where we are not root."""
    if os.getuid() != 0:
        pytest.skip("only root can be another user")
    if not _readable_by_others(Path(sysconfig.get_path("purelib"))):
        pytest.skip(f"no other user may read {sys.prefix}: chmod its folders to try stores of several users")
    place = Path(mkdtemp(prefix="evalrun-shared-"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        rmtree(place, ignore_errors=True)


def as_user(
    uid: int, *words: str | Path, cwd: Path, gid: int | None = None, umask: int = 0o022
) -> subprocess.CompletedProcess[str]:
    """Run `evalrun WORDS` as the user `uid` of the one group `gid` (by default of the same number)."""
    home = cwd / f"home-{uid}"
    if not home.exists():
        home.mkdir()
        os.chown(home, uid, gid or uid)

    def work() -> tuple[int, str, str]:
        env = {
            "HOME": str(home),
            "EVALRUN_CACHE": str(home / "cache"),
            "TMPDIR": str(home),
            "USER": f"u{uid}",
        }
        done = evalrun(*words, env=env, cwd=cwd)
        return done.returncode, done.stdout, done.stderr

    code, out, err = in_child(work, uid, gid or uid, umask)
    return subprocess.CompletedProcess(["evalrun", *map(str, words)], code, out, err)


def in_child(
    work: Callable[[], tuple[int, str, str]], uid: int, gid: int, umask: int
) -> tuple[int, str, str]:
    """What `work` gives in a child process of that user."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            os.umask(umask)
            try:
                answer = work()
            except BaseException:
                answer = (-1, "", traceback.format_exc())
            with os.fdopen(writing, "w") as pipe:
                json.dump(answer, pipe)
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    code, out, err = json.loads(text)
    return code, out, err
