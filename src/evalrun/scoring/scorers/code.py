"""Whether the code that a model wrote passes the tests of its row, run in a locked-down child process.

What is locked down, and how, stands in `code_child`. The child has an empty environment, a temporary folder
that is removed afterwards, and a session of its own that is killed as a whole when the time is up.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from evalrun.errors import Problem, UserError
from evalrun.scoring.base import Scorer, ScorerOptions, ScoringInput, as_text
from evalrun.scoring.functions import scorer
from evalrun.templates import Compiled, TemplateFailure, compile_value, is_template
from evalrun.types import JSON, Score

CHILD = Path(__file__).with_name("code_child.py")
KEPT_OUTPUT = 65_536
"""So many bytes of what a program prints are kept; the rest is read and thrown away."""

_FIRST_UID, _UIDS = 1_600_000_000, itertools.count()
_STARTUP_S = 20.0
"""A loaded machine may take so long to start an interpreter; the program's own time begins after that."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use. Times in seconds, sizes in bytes."""

    timeout_s: float
    memory_bytes: int
    file_bytes: int = 16_000_000


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a program. `passed`: it came to its end without an exception, in time.

    `reason` says in a few words what happened; `output` is the end of what it printed. `in_force` and
    `missing` name the protections; both are empty where the child did not get as far as that.
    """

    passed: bool
    reason: str
    output: str
    seconds: float
    in_force: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class Running:
    """The programs that run now, in any thread, so that all of them can be ended at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    @contextlib.contextmanager
    def having(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Count a process as running."""
        with self._lock:
            self._processes.add(process)
            if self._ended:
                _kill(process)
        try:
            yield
        finally:
            with self._lock:
                self._processes.discard(process)

    def end(self) -> None:
        """Kill them all, and whatever begins from now on."""
        with self._lock:
            self._ended = True
            for process in self._processes:
                _kill(process)


def run_locked(program: str, limits: Limits, running: Running | None = None) -> Ran:
    """Run a Python program to its end, or until it breaks a limit. Blocks; threads may call it side by side.

    `running` can end it before that. Never raises for what the program does. Raises OSError where no child
    process can be started.
    """
    folder = Path(tempfile.mkdtemp(prefix="evalrun-code-")).resolve()
    try:
        return _Child(folder, limits).run(program, running or Running())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def cannot_run() -> str:
    """Why no program can be run here, or ""."""
    if os.name != "posix":
        return "it needs Linux or macOS"
    try:
        ran = run_locked("pass", Limits(10.0, 512_000_000))
    except OSError as error:
        return f"no child process can be started: {error}"
    return "" if ran.passed else ran.reason


class _Child:
    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._uid = _free_uid()
        if self._uid is not None:
            os.chown(folder, self._uid, self._uid)
        self._printed, self._reported = bytearray(), bytearray()

    def run(self, program: str, running: Running) -> Ran:
        token = secrets.token_hex(16)
        reading, writing = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-X", "utf8", str(CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={},
                pass_fds=(writing,),
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        try:
            with running.having(process):
                seconds, in_time = self._follow(process, reading, self._order(program, token, writing))
        finally:
            _end(process)
            os.close(reading)
        return self._verdict(process.returncode, token, seconds, in_time)

    def _order(self, program: str, token: str, report: int) -> bytes:
        return json.dumps(
            {
                "program": program,
                "token": token,
                "report": report,
                "memory_bytes": self._limits.memory_bytes,
                "cpu_s": max(1, int(self._limits.timeout_s) + 1),
                "file_bytes": self._limits.file_bytes,
                "uid": self._uid,
                "readable": _readable(),
            }
        ).encode("utf-8", "surrogatepass")

    def _follow(self, process: subprocess.Popen[bytes], reading: int, order: bytes) -> tuple[float, bool]:
        """Give the order, collect what comes until the end or the deadline: (seconds run, in time or not)."""
        assert process.stdin is not None and process.stdout is not None
        began = time.monotonic()
        deadline = began + _STARTUP_S
        started = None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ, self._printed)
            selector.register(reading, selectors.EVENT_READ, self._reported)
            try:
                process.stdin.write(order)
                process.stdin.close()
            except OSError:  # it died early; what it printed says why
                pass
            while selector.get_map():
                now = time.monotonic()
                if now >= deadline:
                    return now - (started or began), False
                for key, _ in selector.select(deadline - now):
                    data = os.read(key.fd, 65_536)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif len(key.data) < KEPT_OUTPUT:
                        key.data.extend(data[: KEPT_OUTPUT - len(key.data)])
                if started is None and b"\n" in self._reported:
                    started = time.monotonic()
                    deadline = started + self._limits.timeout_s
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return time.monotonic() - (started or began), False
        return time.monotonic() - (started or began), True

    def _verdict(self, code: int, token: str, seconds: float, in_time: bool) -> Ran:
        reports = [_document(line) for line in bytes(self._reported).split(b"\n") if line]
        first = reports[0] if reports else {}
        output = self._printed.decode("utf-8", "replace").strip()
        finished = any(report.get("token") == token for report in reports[1:])
        if not reports:
            reason = "the child process did not start: " + (output[-200:] or f"exit code {code}")
        elif finished and code == 0:
            reason = "the tests passed"
        elif not in_time:
            reason = f"stopped after {self._limits.timeout_s:g} s"
        elif code == -signal.SIGXCPU or (code == -signal.SIGKILL and seconds >= self._limits.timeout_s):
            reason = f"stopped after {self._limits.timeout_s:g} s of CPU time"
        elif "MemoryError" in output[-400:]:
            reason = f"more than {self._limits.memory_bytes // 1_000_000} MB of memory"
        elif code < 0:
            reason = f"ended by signal {-code}"
        else:
            reason = _last_line(output) or f"it ended early, with exit code {code}"
        return Ran(
            finished and code == 0,
            reason,
            output[-4000:],
            seconds,
            _texts(first.get("in_force")),
            _texts(first.get("missing")),
        )


def _document(line: bytes) -> Mapping[str, object]:
    try:
        document = json.loads(line)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the session, and wait for it."""
    _kill(process)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _free_uid() -> int | None:
    """A user id of its own for each child, where we are root and such a user can read the interpreter."""
    if os.name != "posix" or os.getuid() != 0 or not _open_to_all():
        return None
    return _FIRST_UID + (os.getpid() * 1000 + next(_UIDS) % 1000) % 400_000_000


@cache
def _open_to_all() -> bool:
    places = {Path(os.__file__), Path(sys.executable), Path(sysconfig.get_path("purelib"))}
    places |= {place.resolve() for place in places} | {CHILD}
    return all(_others_may(each) for place in places for each in (place, *place.parents))


def _others_may(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return bool(mode & (stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH))


@cache
def _readable() -> tuple[str, ...]:
    """The folders that a Python program needs to read: the interpreter, its libraries and packages."""
    places = {sys.prefix, sys.base_prefix, sys.exec_prefix, "/usr", "/lib", "/lib64", "/etc/ld.so.cache"}
    places |= {"/etc/localtime", sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")}
    places |= {str(Path(place).resolve()) for place in places}
    return tuple(sorted(place for place in places if Path(place).exists()))


class CodeOptions(ScorerOptions):
    """Options of the scorer `code`."""

    tests: str = Field(
        min_length=1,
        description="The tests: a column of the row (text, or a list of lines), or a template where it holds "
        "{{ }} or {% %}. They run after the answer, in the same module; an exception fails the sample.",
    )
    before: str | None = Field(
        default=None,
        description="What stands before the answer: a column, or a template. For models that go on writing "
        "where the prompt ended, such as {{ prompt }}.",
    )
    language: Literal["python"] = Field(default="python", description="The language of answer and tests.")
    timeout_s: float = Field(default=10, gt=0, le=600, description="Seconds that one program may take.")
    memory_mb: int = Field(default=512, ge=64, description="Megabytes that one program may use.")

    @field_validator("tests", "before")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None and is_template(value):
            try:
                compile_value(value, "a template")
            except UserError as error:
                raise ValueError(error.problems[0].what) from None
        return value


@scorer(
    "code",
    summary="The answer's tests are run, in a locked-down child process. The suite must say "
    "`allow: [code_execution]`. With repeats, pass@k is among the metrics.",
    metric="Share of answers whose tests pass: the program of answer and tests runs to its end without "
    "an exception, within its time and memory. With repeats the mean over a sample's answers "
    "first, which is pass@1.",
)
class Code(Scorer[CodeOptions]):
    """1 where the program of answer and tests runs to its end without an exception, else 0."""

    shorthand = "tests"
    late = True
    runs_code = True

    def __init__(self, options: CodeOptions) -> None:
        super().__init__(options)
        self._running = Running()
        self._tests = _Source(options.tests)
        self._before = None if options.before is None else _Source(options.before)

    def check(self, columns: Sequence[str], where: str) -> list[Problem]:
        """Columns that are not there, and machines on which nothing can be locked down."""
        problems = [
            Problem(f"the scorer {self.name} reads '{name}', which is no column of the data", where)
            for source in (self._tests, self._before)
            if source is not None
            for name in source.missing(columns)
        ]
        reason = cannot_run()
        if reason:
            problems.append(Problem(f"the scorer {self.name} cannot run code here: {reason}", where))
        return problems

    def abandon(self) -> None:
        """Kill the programs that are running; no other begins."""
        self._running.end()

    def score(self, sample: ScoringInput) -> Score:
        """Run the program. It takes as long as that runs, so it is called in threads, when a run is over."""
        try:
            before = "" if self._before is None else self._before.text(sample.row) + "\n"
            tests = self._tests.text(sample.row)
        except TemplateFailure as failure:
            return Score(None, f"the tests cannot be made: {failure}")
        options = self.options
        if self._before is not None:
            before = before[:-1]  # the answer goes on where the text ended
        program = f"{before}{as_text(sample.answer)}\n\n{tests}\n"
        limits = Limits(options.timeout_s, options.memory_mb * 1_000_000)
        ran = run_locked(program, limits, self._running)
        said = f"in force: {', '.join(ran.in_force) or 'nothing'}"
        if ran.missing:
            said += f"; not to be had: {', '.join(ran.missing)}"
        return Score(float(ran.passed), f"{ran.reason} ({ran.seconds:.2f} s; {said})")


class _Source:
    """A column, or a template over the row."""

    def __init__(self, source: str) -> None:
        self._template: Compiled | None = compile_value(source, "code") if is_template(source) else None
        self._column = source

    def missing(self, columns: Sequence[str]) -> list[str]:
        if self._template is not None:
            return list(self._template.variables.missing(frozenset(columns)))
        return [] if self._column in columns else [self._column]

    def text(self, row: JSON) -> str:
        """Raises TemplateFailure where the row lacks what is needed."""
        if self._template is not None:
            value = self._template.evaluate({"row": row, **row})
        elif self._column in row:
            value = row[self._column]
        else:
            raise TemplateFailure(f"there is no column '{self._column}'")
        return "\n".join(map(as_text, value)) if isinstance(value, list) else as_text(value)
