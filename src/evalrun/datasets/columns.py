"""Checks on columns: one type in each, and which columns every row has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from evalrun.datasets.findings import Findings
from evalrun.types import JSON, Row

_KINDS: Final[Mapping[type, str]] = {
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}
_REMEMBERED = 4096


class TypeCheck:
    """Sees every source row and reports each column that mixes types. Null fits every type, and whole
    numbers fit fractions; lists and mappings are not looked into."""

    def __init__(self, findings: Findings, place: Callable[[int], str]) -> None:
        self._findings = findings
        self._place = place
        self._first: dict[str, tuple[str, int]] = {}
        self._reported: set[str] = set()
        self._known: set[tuple[object, ...]] = set()

    def see(self, number: int, row: Row) -> None:
        """Check one row. Rows with the same columns and types as one before cost next to nothing."""
        signature = (*row, *map(type, row.values()))
        if signature not in self._known:
            self._look(number, row)
            if len(self._known) < _REMEMBERED:
                self._known.add(signature)

    def _look(self, number: int, row: Row) -> None:
        for column, value in row.items():
            kind = _KINDS.get(type(value))
            if kind is None:
                continue
            first_kind, first_number = self._first.setdefault(column, (kind, number))
            if kind == first_kind or column in self._reported:
                continue
            self._reported.add(column)
            place = self._place(first_number)
            self._findings.add(
                f"column '{column}' mixes types: {kind} here, {first_kind} at {place}",
                self._place(number),
                "Write the column's values in one type.",
            )


class Presence:
    """Which columns all selected rows have, and where the others are missing first."""

    def __init__(self) -> None:
        self.columns: tuple[str, ...] = ()
        self.partial: dict[str, int] = {}
        self._first = 0
        self._known: set[tuple[str, ...]] = set()

    def see(self, number: int, row: Mapping[str, JSON]) -> None:
        """Take one selected row into account."""
        names = tuple(row)
        if names in self._known:
            return
        if not self._known:
            self.columns, self._first = names, number
        absent = [name for name in self.columns if name not in row]
        new = [name for name in names if name not in self.columns]
        self.partial |= dict.fromkeys(absent, number)
        self.partial |= {name: self._first for name in new if name not in self.partial}
        self.columns = tuple(name for name in self.columns if name in row)
        if len(self._known) < _REMEMBERED:
            self._known.add(names)
