"""`evalrun SUITE --watch`: run a suite again whenever what it is made of is saved.

Each run is a process of its own, so that edited code is imported anew. What did not change is answered from
the cache.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml

PAUSE_S = 0.5
SETTLE_S = 0.2
"""Editors write a file in several steps: a change counts once nothing changed for so long."""
MOST_CODE = 2000
_SKIPPED = frozenset({"node_modules", "site-packages", "__pycache__", "reports", "venv", "env"})

State: TypeAlias = Mapping[Path, tuple[int, int]]


def watch(
    suite: Path, arguments: Sequence[str], say: Callable[[str], None], pause_s: float = PAUSE_S
) -> None:
    """Run `evalrun ARGUMENTS`, and again after each change, until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        before: State = {}
        while True:
            before = state(suite, before)
            _run(arguments)
            say(f"watching {len(before)} file{'' if len(before) == 1 else 's'}; Ctrl-C ends")
            changed = _changed(suite, before, pause_s)
            say(f"changed: {', '.join(sorted(_shown(path) for path in changed))}")


def _run(arguments: Sequence[str]) -> None:
    process = subprocess.Popen([sys.executable, "-m", "evalrun", *arguments])
    try:
        process.wait()
    except KeyboardInterrupt:
        process.wait()  # it had the Ctrl-C too, and ends as it always does
        raise


def _changed(suite: Path, before: State, pause_s: float) -> set[Path]:
    """Wait until something is otherwise than before, and has settled; which files that is."""
    while (now := state(suite, before)) == before:
        time.sleep(pause_s)
    while True:
        time.sleep(SETTLE_S)
        if (later := state(suite, before)) == now:
            break
        now = later
    return {path for path in {*before, *now} if before.get(path) != now.get(path)}


def _shown(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def state(suite: Path, before: State) -> State:
    """Time and size of every file that the suite is made of, as far as they are there. A suite that cannot be
    read, half saved or with a typo, is made of what it was `before`."""
    found: dict[Path, tuple[int, int]] = {}
    files = files_of(suite)
    for path in {suite.resolve(), *(before if files is None else files)}:
        with contextlib.suppress(OSError):
            status = path.stat()
            found[path] = status.st_mtime_ns, status.st_size
    return found


def files_of(suite: Path) -> set[Path] | None:
    """The files that a suite names, what lies beside its prompts (they may include it), and the Python files
    of its folder (its own code, and what that imports). None where the suite cannot be read."""
    base = suite.resolve().parent
    try:
        document = yaml.safe_load(suite.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    named = {path for text in _texts(document) if (path := _file(base, text)) is not None}
    beside = {
        other
        for path in named
        if path.suffix in (".j2", ".jinja", ".jinja2", ".txt", ".md")
        for other in path.parent.glob(f"*{path.suffix}")
    }
    return {*named, *beside, *_code(base)}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _file(base: Path, text: str) -> Path | None:
    """The file that a text of the suite names, or the code in `file.py:function`."""
    if not text or len(text) > 500 or "\n" in text or "\0" in text:
        return None
    for name in (os.path.expandvars(text), text.partition(":")[0]):
        path = base / name
        with contextlib.suppress(OSError):
            if path.is_file():
                return path.resolve()
    return None


def _code(base: Path) -> Iterator[Path]:
    count = 0
    for folder, folders, files in os.walk(base):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED and not name.startswith("."))
        for name in files:
            if name.endswith(".py"):
                yield Path(folder, name)
                count += 1
        if count > MOST_CODE:
            return
