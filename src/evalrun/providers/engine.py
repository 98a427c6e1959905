"""An inference engine as a child process of ours: started, watched, logged, stopped, never left behind.

The child announces itself by one JSON line on its standard output, `{"port": 12345, ...}`; everything else
it says goes to a log file. It ends with us whatever happens: its standard input is a pipe that closes when
this process dies (`watch_parent` in the child exits then), and on Linux the kernel kills it as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import IO, Any

import orjson

from evalrun.errors import ExitCode, UserError

_POLL_S = 0.02
_STOP_PATIENCE_S = 5.0
_LOG_LINES = 5
_LOG_TAIL_BYTES = 16_384
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """What to start. `log_path` receives what the engine says; `env` is added to ours."""

    name: str
    argv: tuple[str, ...]
    log_path: Path
    startup_timeout_s: float
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    remedy: str = ""


class Engine:
    """One child process that serves HTTP on a port of 127.0.0.1."""

    def __init__(self, command: EngineCommand) -> None:
        self.command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._announced: dict[str, Any] = {}

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> dict[str, Any]:
        """Start it and wait until it answers /health. What it announced, with `port`.

        Raises UserError (exit 3) with the last lines of its log when it ends or is not ready in time.
        """
        command = self.command
        deadline = monotonic() + command.startup_timeout_s
        try:
            self._spawn()
            self._announced = await self._announcement(deadline)
            await self._healthy(int(self._announced["port"]), deadline)
        except OSError as error:
            await self.stop()
            raise self._not_started(f"cannot be started: {error.strerror or error}") from error
        except BaseException:
            await self.stop()
            raise
        return self._announced

    async def stop(self) -> None:
        """End it: ask, wait up to 5 s, kill with its whole process group. Safe at any time."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                await self._gone(process, _STOP_PATIENCE_S)
            finally:  # also when this wait is cancelled
                _kill_group(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    async def failure(self, patience_s: float = 0.5) -> str | None:
        """Why the engine is no longer there, with the last lines of its log; None while it runs.

        A connection breaks a little before the process can be seen to have ended: wait so long for it.
        """
        process = self._process
        if process is None or not await self._gone(process, patience_s):
            return None
        return f"the engine ended ({exit_reason(process.returncode)}){self._last_words()}"

    def _spawn(self) -> None:
        command = self.command
        command.log_path.parent.mkdir(parents=True, exist_ok=True)
        with command.log_path.open("wb") as log:
            # Its own session: Ctrl-C in the terminal is ours to handle, and the group can be killed whole.
            self._process = subprocess.Popen(
                command.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **command.env},
                start_new_session=True,
            )

    async def _announcement(self, deadline: float) -> dict[str, Any]:
        """The child's JSON line, read by a thread, since pipes are not awaitable on every platform."""
        process = self._process
        assert process is not None and process.stdout is not None
        found: list[dict[str, Any]] = []
        threading.Thread(target=_read_output, args=(process.stdout, found), daemon=True).start()
        while not found:
            if process.poll() is not None:
                raise self._not_started(f"ended while starting ({exit_reason(process.returncode)})")
            self._check(deadline)
            await asyncio.sleep(_POLL_S)
        return found[0]

    async def _healthy(self, port: int, deadline: float) -> None:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with session.get(f"http://127.0.0.1:{port}/health") as answer:
                        if answer.status == 200:
                            return
                if not self.running:
                    raise self._not_started("ended while starting")
                self._check(deadline)
                await asyncio.sleep(_POLL_S)

    def _check(self, deadline: float) -> None:
        if monotonic() > deadline:
            raise self._not_started(f"was not ready after {self.command.startup_timeout_s:g} s")

    async def _gone(self, process: subprocess.Popen[bytes], patience_s: float) -> bool:
        deadline = monotonic() + patience_s
        while process.poll() is None:
            if monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    def _not_started(self, what: str) -> UserError:
        return UserError(
            f"the engine {self.command.name} {what}{self._last_words()}",
            where=str(self.command.log_path),
            remedy=self.command.remedy,
            exit_code=ExitCode.INCOMPLETE,
        )

    def _last_words(self) -> str:
        from evalrun.secrets import scrub

        lines = log_tail(self.command.log_path, _LOG_LINES)
        return f"; its log ends: {scrub(' | '.join(lines))}" if lines else ""


def log_tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log that hold anything; none where there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()][-lines:]


def _read_output(pipe: IO[bytes], found: list[dict[str, Any]]) -> None:
    """Take the announcement from the child's output; read on, so that it never blocks on a full pipe."""
    with contextlib.suppress(OSError, ValueError):  # the pipe is closed by stop
        for line in pipe:
            if not found and line.startswith(b"{"):
                with contextlib.suppress(orjson.JSONDecodeError):
                    value = orjson.loads(line)
                    if isinstance(value.get("port"), int):
                        found.append(value)


def exit_reason(code: int) -> str:
    """An exit code in words: the name of the signal where one ended the process."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        elif process.poll() is None:
            process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_STOP_PATIENCE_S)


def watch_parent(parent_pid: int) -> None:
    """In the child: end when the parent does. Call it first.

    Everywhere a thread waits for the end of standard input, whose other end only the parent holds; on Linux
    the kernel is asked as well.
    """
    end_with_parent(parent_pid)
    threading.Thread(target=_exit_at_end_of_input, daemon=True).start()


def end_with_parent(parent_pid: int) -> None:
    """In the child, on Linux: have the kernel send it SIGKILL at the parent's death."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent_pid:  # it died before the call
            os._exit(1)


def _exit_at_end_of_input() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os._exit(0)
