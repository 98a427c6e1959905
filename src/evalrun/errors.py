"""The one error class for everything a user can cause, and the exit codes of the command line.

A message says what is wrong, where it is wrong, and what to do about it. Code that finds several
problems collects them and raises once, so that a suite is fixed in one pass and not one line a try.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum

from evalrun.frozen import frozen


class ExitCode(IntEnum):
    """What the process returns (DESIGN: contracts, command line)."""

    OK = 0
    GATE_FAILED = 1
    USAGE = 2
    INCOMPLETE = 3
    INTERRUPTED = 130


@frozen
class Problem:
    """One thing that is wrong.

    `where` is a place a person can open (`suite.yaml:12`, `data/rows.jsonl:7`) or name
    (`dataset tickets`); `remedy` is what to do, as a full sentence. Both may be empty.
    """

    what: str
    where: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  {self.remedy}" if self.remedy else text


class UserError(Exception):
    """One or more problems that the user can fix. Shown without a traceback."""

    def __init__(
        self,
        what: str | Sequence[Problem],
        *,
        where: str = "",
        remedy: str = "",
        exit_code: ExitCode = ExitCode.USAGE,
    ) -> None:
        self.problems: tuple[Problem, ...] = (
            (Problem(what, where, remedy),) if isinstance(what, str) else tuple(what)
        )
        self.exit_code = exit_code
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.problems, self.exit_code))


def _rebuild(problems: tuple[Problem, ...], exit_code: ExitCode) -> UserError:
    return UserError(problems, exit_code=exit_code)


class Problems:
    """Collects the problems of several steps, so that they are reported together."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """What a UserError within says is collected; what comes after it within is not done."""
        try:
            yield
        except UserError as error:
            self.found.extend(error.problems)

    def raise_if_any(self) -> None:
        """Raise UserError with all that was collected, each once."""
        if self.found:
            raise UserError(list(dict.fromkeys(self.found)))
