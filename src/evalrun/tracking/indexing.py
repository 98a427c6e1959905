"""Entering a finished sweep into the catalog by a child process, while this one writes the report.

The database layer takes about as long to import as a report takes to write. A sweep that is not entered is
not lost: its folder is complete, and the next question to the catalog enters what it lacks.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from evalrun.errors import UserError
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

TIMEOUT_S = 60


def begin_index(store: Store, folder: SweepFolder, *, beside: bool) -> Callable[[], str | None]:
    """Begin to enter `folder`, as it is now, into the store's catalog.

    The result waits for the end and gives the reason why it could not be done, or None. `beside` says that
    there is other work to do meanwhile; without it, or where the database layer is imported already, a
    process of its own would only cost time.
    """
    if not beside or "sqlalchemy" in sys.modules:
        return lambda: _index(store, folder)
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "evalrun.tracking.indexing", str(store.root), str(folder.path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )

    def wait() -> str | None:
        try:
            _, errors = child.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            return f"the catalog took longer than {TIMEOUT_S} s"
        if child.returncode == 0:
            return None
        return errors.decode("utf-8", "replace").strip() or f"it ended with status {child.returncode}"

    return wait


def main(root: str, folder: str) -> int:
    """Enter one sweep. The reason of a failure goes to stderr."""
    fault = _index(Store(Path(root)), SweepFolder(Path(folder)))
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
