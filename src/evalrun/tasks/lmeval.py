"""The child process that holds lm_eval, from evalrun's side, and the index of the names that it knows."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evalrun.atomic import write_private
from evalrun.errors import ExitCode, Problem, UserError
from evalrun.paths import cache_dir
from evalrun.registry import nearest

PYTHON_VARIABLE = "EVALRUN_LMEVAL_PYTHON"
CHILD = Path(__file__).with_name("lm_eval_child")
LEAST, BELOW = (0, 4, 12), (0, 5)
"""The versions of lm_eval whose task objects this knows."""
INSTALL = (
    f"Run: pip install 'lm_eval[api]>=0.4.12,<0.5', or set {PYTHON_VARIABLE} to an interpreter that has it."
)
_SHOWN_LINES = 5


def interpreter() -> str:
    """The interpreter that has lm_eval. Raises UserError where there is none."""
    named = os.environ.get(PYTHON_VARIABLE, "").strip()
    if named:
        program = shutil.which(named)
        if program is None:
            raise UserError(
                f"{PYTHON_VARIABLE} names no program that can be run: {named}",
                remedy="Give the path of a Python interpreter in which lm_eval is installed.",
            )
        return program
    if find_spec("lm_eval") is None:
        raise UserError("tasks need lm_eval, which is not installed beside evalrun", remedy=INSTALL)
    return sys.executable


class LmEval:
    """lm_eval in a process of its own: jobs go in, answers come out, one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        runner = json.dumps([sys.executable, "-m", "evalrun.tasks.code_runner"])
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "EVALRUN_CODE_RUNNER": runner}
        self._process = subprocess.Popen(
            [interpreter(), str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )
        try:
            said = self.ask("version")
        except UserError:
            self.close()
            raise
        self.version, self.folder = str(said["version"]), str(said["folder"])
        numbers = tuple(int(part) for part in self.version.split(".")[:3] if part.isdecimal())
        if not LEAST <= numbers < BELOW or "dev" in self.version:
            self.close()
            raise UserError(
                f"lm_eval {self.version} is installed, and tasks need 0.4.12 or later, below 0.5",
                remedy="Run: pip install 'lm_eval[api]>=0.4.12,<0.5'",
            )

    def ask(self, op: str, **job: Any) -> dict[str, Any]:
        """The answer to a job. Raises UserError for what the user got wrong, and where the child broke."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            try:
                self._process.stdin.write(json.dumps({"op": op, **job}).encode() + b"\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except OSError:
                line = b""
        if not line:
            raise UserError(
                f"lm_eval's process ended: {self._last_lines() or 'it said nothing'}",
                remedy=INSTALL if op == "version" else "",
                exit_code=ExitCode.USAGE if op == "version" else ExitCode.INCOMPLETE,
            )
        answer = json.loads(line)
        if "fault" in answer:
            fault = answer["fault"]
            raise UserError([Problem(fault["what"], job.get("where", ""), fault["remedy"])])
        ok: dict[str, Any] = answer["ok"]
        return ok

    def _last_lines(self) -> str:
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 4000))
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return " / ".join(lines[-_SHOWN_LINES:])[-500:]

    def close(self) -> None:
        """End the process. Safe at any time."""
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@dataclass(frozen=True, slots=True)
class Name:
    """What the index knows of a name: a task, a group of tasks, or a tag that several carry."""

    name: str
    kind: str
    path: str | None
    output_type: str | None
    dataset: str | None
    members: tuple[str, ...]
    unsafe: bool = False

    def document(self) -> dict[str, Any]:
        """As `tasks list` prints it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "output_type": self.output_type,
            "dataset": self.dataset,
            **({"members": len(self.members)} if self.members else {}),
        }


class Names:
    """All names of lm_eval's registry, and of further folders."""

    def __init__(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        self._names = {
            name: Name(
                name,
                each["kind"],
                each["path"],
                each["output_type"],
                each["dataset"],
                tuple(each["members"]),
                each["unsafe"],
            )
            for name, each in entries.items()
        }

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def get(self, name: str) -> Name:
        """The entry of a name. Raises UserError with the nearest names."""
        if name in self._names:
            return self._names[name]
        raise UserError(f"lm_eval has no task '{name}'", remedy=self._remedy(name))

    def _remedy(self, name: str) -> str:
        import difflib

        near = difflib.get_close_matches(name, list(self._names), n=3, cutoff=0.6)
        lower = {known.lower(): known for known in self._names}
        if not near and (found := nearest(name.lower(), lower)):
            near = [lower[found]]
        said = f"Did you mean {', '.join(repr(each) for each in near)}? " if near else ""
        return said + "`evalrun tasks list PATTERN` lists the names."

    def matching(self, pattern: str) -> list[Name]:
        """The names that a pattern matches, sorted; one without * and ? is looked for within names."""
        if not any(c in pattern for c in "*?["):
            pattern = f"*{pattern}*"
        return [self._names[name] for name in sorted(self._names) if fnmatchcase(name, pattern)]

    def chosen(self, pattern: str) -> list[str]:
        """The names that a pattern stands for in a suite: of a group, not its members again."""
        found = [name for name in sorted(self._names) if fnmatchcase(name, pattern)]
        if not found:
            raise UserError(
                f"no task of lm_eval matches '{pattern}'", remedy=self._remedy(pattern.strip("*"))
            )
        within = {member for name in found for member in self._below(name, set())}
        return [name for name in found if name not in within and self._names[name].kind != "tag"]

    def _below(self, name: str, seen: set[str]) -> set[str]:
        for member in self._names[name].members if name in self._names else ():
            if member not in seen:
                seen.add(member)
                self._below(member, seen)
        return seen

    def folders(self, names: Iterable[str]) -> list[str]:
        """The folders that hold the YAML of these names and of all below them, none within another."""
        wanted: set[Path] = set()
        for name in names:
            for each in (name, *self._below(name, set())):
                path = self._names[each].path if each in self._names else None
                if path is not None:
                    wanted.add(Path(path).parent)
        return sorted(str(folder) for folder in wanted if not wanted & set(folder.parents))

    def unsafe(self, names: Iterable[str]) -> list[str]:
        """Those of the tasks that these names stand for that run what models wrote."""
        every = {each for name in names for each in (name, *self._below(name, set()))}
        return sorted(name for name in every if name in self._names and self._names[name].unsafe)


def known_names(lm_eval: LmEval) -> Names:
    """The index of lm_eval's registry: made once for each installed version, and kept in the cache folder."""
    stamp = hashlib.sha256(
        f"{lm_eval.version} {lm_eval.folder} {_newest(lm_eval.folder)}".encode()
    ).hexdigest()
    kept = cache_dir() / "tasks" / f"names-{lm_eval.version}-{stamp[:12]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        return Names(json.loads(kept.read_bytes())["entries"])
    made = lm_eval.ask("index", folders=[], defaults=True)
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(kept, json.dumps(made).encode())
    return Names(made["entries"])


def _newest(folder: str) -> int:
    """When the folder or one directly in it was last changed: a task that was added or taken away."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        times = [entry.stat().st_mtime_ns for entry in entries if entry.is_dir()]
        return max([Path(folder).stat().st_mtime_ns, *times])
    return 0
