"""Large files are read by several processes at once, each of which takes the traces of its own.

A trace belongs to a part by the CRC of its id, so that its last generation, and what is written twice, are
seen by one process. Each reads all lines and looks at its own spans alone. Taking the smallest hashes of what
each part took is taking the smallest of all.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.errors import UserError

if TYPE_CHECKING:
    from evalrun.traffic.calls import Tally
    from evalrun.traffic.main import Wanted
    from evalrun.traffic.sample import Sampling

LARGE = 64 << 20
"""Below so many bytes one process reads them sooner."""
MOST = 2
"""Each process holds the traces of its part and as many rows as are asked for: with more of them memory
grows."""


@dataclass(frozen=True)
class Part:
    """What one process saw: its tally, what it would take, rows that are taken in any case, and whether
    records say what share of their like was kept."""

    tally: Tally
    sampling: Sampling
    rows: list[dict[str, Any]]
    weighed: bool


def parts_of(n: int | None, source: str, files: Sequence[Path]) -> int:
    """In how many parts files are read: one, unless they are large, traces, and a number of rows is asked
    for."""
    large = sum(file.stat().st_size for file in files) >= LARGE
    if n is None or source not in ("auto", "otlp") or not large:
        return 1
    return max(1, min(MOST, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1))


def read_parts(wanted: Wanted, files: Sequence[Path], count: int) -> list[Part]:
    """Read files in so many processes. Raises UserError as reading them here does."""
    command = [sys.executable, "-P", "-m", "evalrun.traffic.parts"]
    begun = []
    for at in range(count):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(pickle.dumps((wanted, list(files), at, count)))
        process.stdin.close()
        begun.append(process)
    made: list[Part] = []
    for process in begun:
        assert process.stdout is not None
        answer = process.stdout.read()
        if process.wait() != 0 or not answer:
            raise UserError("a process that reads records was ended from outside", where=str(files[0]))
        found: Any = pickle.loads(answer)
        if isinstance(found, list):
            raise UserError(found)
        made.append(found)
    return made


def main() -> None:
    """Read one part; the outcome, or what is wrong, goes to stdout."""
    from evalrun.traffic.main import part_of

    wanted, files, at, count = pickle.loads(sys.stdin.buffer.read())
    try:
        answer: object = part_of(wanted, files, at, count)
    except UserError as error:
        answer = list(error.problems)
    sys.stdout.buffer.write(pickle.dumps(answer))


if __name__ == "__main__":
    main()
