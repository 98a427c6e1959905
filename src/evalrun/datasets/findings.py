"""Problems found while reading rows: the first few in full, the rest counted."""

from __future__ import annotations

from evalrun.errors import Problem, UserError

SHOWN = 10


class Findings:
    """Collects problems, so that one pass over a file reports all that is wrong with it."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    @property
    def full(self) -> bool:
        """Whether further problems are only counted, so that no message needs to be made."""
        return len(self._problems) >= SHOWN

    def add(self, what: str, where: str, remedy: str = "") -> None:
        """Note one problem."""
        self._count += 1
        if not self.full:
            self._problems.append(Problem(what, where, remedy))

    def count(self) -> None:
        """Note a problem beyond the shown ones."""
        self._count += 1

    def raise_if_any(self) -> None:
        """Raises UserError with the problems noted so far."""
        if not self._count:
            return
        hidden = self._count - len(self._problems)
        more = [Problem(f"and {hidden:,} more like these")] if hidden else []
        raise UserError([*self._problems, *more])
