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


def begin_index(store: Store, folder: SweepFolder) -> Callable[[], str | None]:
    """Begin to enter `folder`, as it is now, into the store's catalog.

    The result waits for the end and gives the reason why it could not be done, or None.
    """
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
    try:
        Store(Path(root)).index(SweepFolder(Path(folder)))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
