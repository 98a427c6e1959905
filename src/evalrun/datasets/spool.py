"""A temporary file of rows, for sources that can be neither sought in nor read twice."""

from __future__ import annotations

import marshal
import os
import tempfile
from array import array
from collections.abc import Iterator

from evalrun.errors import ExitCode, UserError
from evalrun.types import JSON


class Spool:
    """Rows by number (from 0), in a file without a name that vanishes with this object.

    In memory it holds 8 bytes a row. `marshal` is Python's own fast format for such values: it gives back
    exactly what went in, and nobody else reads or writes this file.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the dataset)
        self._starts = array("Q", [0])

    def add(self, row: dict[str, JSON]) -> int:
        """Append a row; gives its number."""
        data = marshal.dumps(row)
        try:
            self._file.write(data)
        except OSError as error:
            raise UserError(
                f"the rows cannot be set aside: {error.strerror}",
                where=tempfile.gettempdir(),
                remedy="Free some space, or set TMPDIR to a folder that has it.",
                exit_code=ExitCode.INCOMPLETE,
            ) from error
        self._starts.append(self._starts[-1] + len(data))
        return len(self._starts) - 2

    def read(self, numbers: Iterator[int]) -> Iterator[dict[str, JSON]]:
        """The rows with these numbers, in the order given. Several readers do not disturb each other."""
        self._file.flush()
        descriptor, starts = self._file.fileno(), self._starts
        for number in numbers:
            start = starts[number]
            yield marshal.loads(os.pread(descriptor, starts[number + 1] - start, start))
