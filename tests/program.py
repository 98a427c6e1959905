"""The program `evalrun` in the process of the test: starting it each time would take most of the time."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from evalrun.cli.main import main


def evalrun(
    *words: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `evalrun WORDS` as the shell would, from `sys.argv` to the exit code, with `env` added.

    What needs a process of its own (signals, limits, dying) has to start one.
    """
    command = ["evalrun", *map(str, words)]
    out, err = _Captured(), _Captured()
    with (
        _as_program(command, env or {}, cwd or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code: object = 0
        except SystemExit as ended:
            code = ended.code
    return subprocess.CompletedProcess(command, int(str(code or 0)), out.text(), err.text())


class _Captured(io.TextIOWrapper):
    """A stream with bytes beneath it, as those of a process have."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        super().__init__(self._bytes, "utf-8", write_through=True)

    def text(self) -> str:
        return self._bytes.getvalue().decode()


@contextlib.contextmanager
def _as_program(command: list[str], env: Mapping[str, str], cwd: Path) -> Iterator[None]:
    before = sys.argv, dict(os.environ), Path.cwd(), sys.stdin
    sys.argv = command
    sys.stdin = io.StringIO()
    os.environ.update(env)
    os.chdir(cwd)
    try:
        yield
    finally:
        sys.argv = before[0]
        os.environ.clear()
        os.environ.update(before[1])
        os.chdir(before[2])
        sys.stdin = before[3]
