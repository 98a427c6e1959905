"""Standard output and error whose readers have gone away, or never read: neither ends a sweep, nor hides how
it ended."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from evalrun.atomic import NO_ROOM

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PATIENCE_S = 2.0
"""So long is a reader of standard error waited for whose pipe is full; then what is said is dropped."""
_AT_ONCE = 4096 if not hasattr(select, "PIPE_BUF") else select.PIPE_BUF
"""So many bytes fit into a pipe that is said to be writable."""


_STANDARD_ERROR = 2


class _Spare(io.RawIOBase):
    """A descriptor that takes what is written where somebody reads it, and drops it elsewhere."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._patience_s = _PATIENCE_S
        self._gone = False

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Never: those are left alone."""
        return False

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Buffer, /) -> int:
        """All of the data, or nothing of the rest once nobody reads."""
        view = memoryview(data).cast("B")
        at = 0
        while at < len(view) and not self._gone:
            try:
                if not select.select([], [self._descriptor], [], self._patience_s)[1]:
                    self._patience_s = 0.0
                    break
                at += os.write(self._descriptor, view[at : at + _AT_ONCE])
                self._patience_s = _PATIENCE_S
            except (OSError, ValueError):
                self._gone = True
        return len(view)


def spare_streams() -> None:
    """Standard error is dropped where nobody reads it; closed streams become ones that drop everything.

    For the program alone: it changes the streams of the process.
    """
    _occupy_closed_descriptors()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", closefd=False))
    stream = sys.stderr
    with contextlib.suppress(OSError, ValueError, AttributeError):  # one of a test, or of a notebook
        if stream.isatty():
            return
        spare = io.TextIOWrapper(
            io.BufferedWriter(_Spare(stream.fileno())),
            encoding=stream.encoding, errors="backslashreplace", write_through=True, line_buffering=True,
        )  # fmt: skip
        stream.flush()
        sys.stderr = spare


def _occupy_closed_descriptors() -> None:
    """Where 0, 1 or 2 are closed, the next file opened would be one of them: a sweep's samples could take
    what a library prints, and libuv ends a program (SIGABRT) that closes one of the three."""
    opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free
    while opened <= _STANDARD_ERROR:
        os.set_inheritable(opened, True)  # a child would be where this program was
        opened = os.open(os.devnull, os.O_RDWR)
    os.close(opened)


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Around what is printed after the work is done: a reader that goes away (`| head`) ends the printing and
    not the command, whose exit code still says how it ended; and so does a full disk that takes the output,
    which is said."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or error.errno not in (*NO_ROOM, errno.EPIPE):
            raise
        give_up_output()
        if error.errno != errno.EPIPE:
            click.echo("warning: there is no room left where the results are printed to", err=True)


def give_up_output() -> None:
    """Let what is left to print go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
