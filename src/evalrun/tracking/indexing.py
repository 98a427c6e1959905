"""Entering a finished sweep into the catalog by a child process, while this one writes the report.

The database layer takes longer to import than a report takes to write. So the child is started with the
sweep, imports it while the requests are waited for, and waits itself until the sweep is announced. A sweep
that is not entered is not lost: its folder is complete, and the next question to the catalog enters what it
lacks.
"""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from evalrun.errors import UserError
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

TIMEOUT_S = 60
_NICENESS = 19
"""The child's imports leave the cores to what is measured meanwhile."""


class Indexing:
    """A context in which a sweep is run. `begin` it at the end of the sweep, then ask for the `fault`."""

    def __init__(self, store: Store, *, beside: bool) -> None:
        """`beside` says that there will be other work to do meanwhile; without it, or where the database
        layer is imported already, a process of its own would only cost time."""
        self._store = store
        self._folder: SweepFolder | None = None
        self._child: subprocess.Popen[bytes] | None = None
        if beside and "sqlalchemy" not in sys.modules:
            # A session of its own: Ctrl-C is not for it, and it is no part of what a run uses.
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "evalrun.tracking.indexing", str(store.root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None and self._child.returncode is None:
            self._child.communicate()  # the end of its input is the end of it

    def begin(self, folder: SweepFolder) -> None:
        """Begin to enter `folder`, as it is now."""
        self._folder = folder
        if self._child is not None and self._child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.write(os.fsencode(folder.path.resolve()))
                self._child.stdin.close()
            self._child.stdin = None

    def fault(self) -> str | None:
        """Wait for its end: the reason why the sweep could not be entered, or None."""
        assert self._folder is not None, "begin it first"
        if self._child is None:
            return _index(self._store, self._folder)
        try:
            _, errors = self._child.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.communicate()
            return f"the catalog took longer than {TIMEOUT_S} s"
        if self._child.returncode == 0:
            return None
        return errors.decode("utf-8", "replace").strip() or f"it ended with status {self._child.returncode}"


def main(root: str) -> int:
    """Enter the sweep whose folder comes by standard input, if one does. The reason of a failure goes to
    stderr."""
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    gc.disable()  # it imports, writes some rows and ends
    store = Store(Path(root))
    store.imported()
    folder = sys.stdin.buffer.read()
    if not folder:
        return 0
    fault = _index(store, SweepFolder(Path(os.fsdecode(folder))))
    if fault is not None:
        sys.stderr.write(f"{fault}\n")
    return 0 if fault is None else 1


def _index(store: Store, folder: SweepFolder) -> str | None:
    try:
        store.index(folder)
    except UserError as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
