"""An inference engine as a child process of ours: started, watched, logged, stopped, never left behind; and
what engines say of themselves on /metrics.

The child announces itself by one JSON line on its standard output, `{"port": 12345, ...}`; everything else
it says goes to a log file. It ends with us whatever happens: its standard input is a pipe that closes when
this process dies (`watch_parent` in the child exits then), and on Linux the kernel kills it as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import IO, Any, NamedTuple

import orjson

from evalrun.atomic import open_private, private_folder
from evalrun.errors import ExitCode, UserError

_POLL_S = 0.02
_STOP_PATIENCE_S = 5.0
_LOG_LINES = 5
_LOG_LINES_LOOKED_AT = 500
_MOST_ERRORS = 2
_OF_AN_ERROR = re.compile(r"\berror\b|\w+Error:|\bfatal\b|out of memory", re.IGNORECASE)
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
        private_folder(command.log_path.parent)
        command.log_path.unlink(missing_ok=True)  # it may be another user's
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(open_private(command.log_path, flags), "wb") as log:
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
        announced: list[dict[str, Any]] = []
        threading.Thread(target=_read_output, args=(process.stdout, announced), daemon=True).start()
        while not announced:
            if process.poll() is not None:
                raise self._not_started(f"ended while starting ({exit_reason(process.returncode)})")
            self._check(deadline)
            await asyncio.sleep(_POLL_S)
        return announced[0]

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
        """The end of the log, and before it the last lines that speak of an error: an engine that goes down
        says much after it."""
        from evalrun.secrets import scrub

        written = log_tail(self.command.log_path, _LOG_LINES_LOOKED_AT)
        errors = [line for line in written[:-_LOG_LINES] if _OF_AN_ERROR.search(line)]
        lines = [*errors[-_MOST_ERRORS:], *written[-_LOG_LINES:]]
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


def _read_output(pipe: IO[bytes], announced: list[dict[str, Any]]) -> None:
    """Take the announcement from the child's output; read on, so that it never blocks on a full pipe."""
    with contextlib.suppress(OSError, ValueError):  # the pipe is closed by stop
        for line in pipe:
            if not announced and line.startswith(b"{"):
                with contextlib.suppress(orjson.JSONDecodeError):
                    value = orjson.loads(line)
                    if isinstance(value.get("port"), int):
                        announced.append(value)


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


class MetricSample(NamedTuple):
    """One line of the format: name, labels, value."""

    name: str
    labels: Mapping[str, str]
    value: float


FIGURES: Mapping[str, tuple[str, ...]] = {
    "kv_cache_usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    "requests_running": ("vllm:num_requests_running",),
    "requests_waiting": ("vllm:num_requests_waiting",),
    "preemptions": ("vllm:num_preemptions_total", "vllm:num_preemptions"),
    "prefix_cache_queries": (
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_queries",
        "vllm:gpu_prefix_cache_queries_total",
    ),
    "prefix_cache_hits": (
        "vllm:prefix_cache_hits_total",
        "vllm:prefix_cache_hits",
        "vllm:gpu_prefix_cache_hits_total",
    ),
    "prompt_tokens": ("vllm:prompt_tokens_total",),
    "generation_tokens": ("vllm:generation_tokens_total",),
}
"""The figures we keep, and the names that they have had in versions of vLLM. `kv_cache_usage` is a fraction
of 1 and, with running and waiting, a state; the others count since the start of the engine, the prefix cache
in tokens looked up and found."""

_LABELS = frozenset({"model_name", "engine"})
_CACHE_CONFIG = "vllm:cache_config_info"
_WANTED = frozenset({_CACHE_CONFIG, *(name for names in FIGURES.values() for name in names)})
_LINE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+-?\d+)?\s*"
)
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
_ESCAPE = re.compile(r"\\(.)")


def parse_metrics(text: str, names: Collection[str] | None = None) -> list[MetricSample]:
    """The samples of a text in the Prometheus format (0.0.4), of these names or of all.

    Comments and lines that are not of the format are left out. A page of vLLM has hundreds of lines, most
    of them of histograms: what is not wanted costs one look at its name.
    """
    samples = []
    for line in text.splitlines():
        name = _NAME.match(line)
        if name is None or (names is not None and name[0] not in names):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        try:
            value = float(match[3])  # also NaN, +Inf, -Inf
        except ValueError:
            continue
        samples.append(MetricSample(match[1], _labels(match[2] or ""), value))
    return samples


def vllm_figures(text: str) -> dict[str, float]:
    """The figures of `FIGURES` that the text holds, and `kv_cache_tokens`, the KV cache's size in tokens.

    A figure that the text does not hold is left out, never guessed.
    """
    by_name: dict[str, list[MetricSample]] = {}
    for sample in parse_metrics(text, _WANTED):
        by_name.setdefault(sample.name, []).append(sample)
    figures: dict[str, float] = {}
    for key, names in FIGURES.items():
        for name in names:
            # Several engines report one line each.
            values = [sample.value for sample in by_name.get(name, ()) if sample.labels.keys() <= _LABELS]
            if values:
                figures[key] = sum(values) / (len(values) if key == "kv_cache_usage" else 1)
                break
    capacity = _cache_tokens(by_name.get(_CACHE_CONFIG, ()))
    if capacity is not None:
        figures["kv_cache_tokens"] = capacity
    return figures


def _labels(text: str) -> dict[str, str]:
    return {name: _ESCAPE.sub(_unescaped, value) for name, value in _LABEL.findall(text)}


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


def _cache_tokens(samples: Iterable[MetricSample]) -> float | None:
    total = None
    for sample in samples:
        blocks = sample.labels.get("num_gpu_blocks", "") or ""
        size = sample.labels.get("block_size", "")
        if blocks.isdigit() and size.isdigit():
            total = (total or 0.0) + float(int(blocks) * int(size))
    return total


_LLAMACPP_NAMES = {
    "llamacpp:requests_processing": "requests_running",
    "llamacpp:requests_deferred": "requests_waiting",
    "llamacpp:prompt_tokens_total": "prompt_tokens",
    "llamacpp:prompt_tokens_cached_total": "prefix_cache_hits",
    "llamacpp:tokens_predicted_total": "generation_tokens",
}


def llamacpp_figures(text: str) -> dict[str, float]:
    """The figures that the text holds (see `vllm_metrics.FIGURES`); the others are left out.

    llama.cpp counts the prompt tokens that it computed and those that it found in its cache apart: together
    they are what was looked up.
    """
    figures = {_LLAMACPP_NAMES[sample.name]: sample.value for sample in parse_metrics(text, _LLAMACPP_NAMES)}
    if "prompt_tokens" in figures and "prefix_cache_hits" in figures:
        figures["prefix_cache_queries"] = figures["prompt_tokens"] + figures["prefix_cache_hits"]
    return figures
