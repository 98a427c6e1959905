"""How far a download is, on standard error: a bar in a terminal, a line every tenth elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def download_progress(label: str, stream: TextIO | None = None) -> Iterator[Callable[[int, int], None]]:
    """A function to be told (bytes so far, bytes in all). Nothing is shown until it is called first."""
    stream = stream or sys.stderr
    shown: Bar | Lines = Bar(label, stream) if stream.isatty() else Lines(label, stream)
    try:
        yield shown
    finally:
        shown.close()


class Lines:
    """One line for every tenth of the whole: for logs."""

    def __init__(self, label: str, stream: TextIO) -> None:
        self._label = label
        self._stream = stream
        self._next = 0

    def __call__(self, done: int, total: int) -> None:
        share = 10 * done // total if total else 0
        if share >= self._next:
            self._next = share + 1
            print(f"{self._label}: {10 * share} % of {total / 1e6:.0f} MB", file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing to put back."""


class Bar:
    """A bar with size, rate and time left."""

    def __init__(self, label: str, stream: TextIO) -> None:
        self._label = label
        self._stream = stream
        self._progress: Progress | None = None

    def __call__(self, done: int, total: int) -> None:
        if self._progress is None:
            self._progress = self._made()
            self._task = self._progress.add_task(self._label, total=total)
            self._progress.start()
        self._progress.update(self._task, completed=done, total=total)

    def _made(self) -> Progress:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        return Progress("{task.description}", *columns, console=Console(file=self._stream))

    def close(self) -> None:
        """Leave the bar as it stands and give the terminal back."""
        if self._progress is not None:
            self._progress.stop()
