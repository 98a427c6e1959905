"""The options of multiple choice in a table, and how its target names one of them: `evalrun init --data`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from evalrun.sweep.tables import Table
from evalrun.templates import reference
from evalrun.types import JSON

How: TypeAlias = Literal["letter", "text", "from 0", "from 1"]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTERED = re.compile(r"(?:(?:option|choice|answer|antwort|opt)[\s_.-]?)?\(?([A-J])\)?\Z", re.IGNORECASE)
_NUMBERED = re.compile(
    r"(?:option|choice|answer|antwort|opt|ending|sol)[\s_.-]?\(?([1-9])\)?\Z", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Choices:
    """The columns of options A, B, C, …, or the one column (`listed`) of their lists; `how` the target names
    the right one: by letter, by its text, or by its place."""

    columns: Sequence[str]
    how: How
    listed: bool = False

    @property
    def why(self) -> str:
        """What was understood, for people."""
        where = f"the list {self.columns[0]!r}" if self.listed else ", ".join(map(repr, self.columns))
        how = {
            "letter": "letters,",
            "text": "each one",
            "from 0": "places, from 0,",
            "from 1": "places, from 1,",
        }
        return f"the targets are {how[self.how]} of the options in {where}"

    def target(self, column: str) -> str:
        """A template that makes the right letter of a row's target."""
        value = reference(column)
        if self.how == "letter":
            return f"{{{{ {value} | string | trim | upper }}}}"
        if self.how == "text":
            options = (
                reference(self.columns[0]) if self.listed else f"[{', '.join(map(reference, self.columns))}]"
            )
            at = f"({options} | map('string') | map('trim') | list).index({value} | string | trim)"
        else:
            at = f"({value} | int)" + (" - 1" if self.how == "from 1" else "")
        return f"{{{{ '{LETTERS}'[{at}] }}}}"


def choices(table: Table, target: str) -> Choices | None:
    """The options, where there are any and the target of every row names one of them."""
    for columns, listed in _candidates(table, target):
        rows = [(row[target], _texts(row[columns[0]]) if listed else _texts([row[c] for c in columns]))
                for row in table.rows if row[target] is not None and str(row[target]).strip()]  # fmt: skip
        how = _how(rows, 0 if listed else 1)
        if how is not None:
            return Choices(columns, how, listed)
    return None


def _candidates(table: Table, target: str) -> Iterator[tuple[Sequence[str], bool]]:
    """Columns called by letters or numbers in turn, then columns of lists."""
    for pattern, signs in ((_LETTERED, LETTERS[:10]), (_NUMBERED, "123456789")):
        known: dict[str, str] = {}
        for name in table.columns:
            if name != target and (match := pattern.match(name.strip())):
                known.setdefault(match[1].upper(), name)
        there = next((at for at, sign in enumerate(signs) if sign not in known), len(signs))
        if there > 1:
            yield [known[sign] for sign in signs[:there]], False
    for name in table.columns:
        cells = [row[name] for row in table.rows]
        if name != target and all(
            isinstance(cell, list) and 2 <= len(cell) <= len(LETTERS) for cell in cells
        ):
            yield [name], True


def _texts(cells: JSON) -> list[str]:
    assert isinstance(cells, list)
    return [str(cell).strip() for cell in cells]


def _how(rows: Sequence[tuple[JSON, list[str]]], first: int) -> How | None:
    """How targets name options; `first` is the place of the first one where no row shows it."""
    values = [str(value).strip() for value, _ in rows]
    sizes = [len(texts) for _, texts in rows]
    if not values:
        return None
    if all(value.upper() in list(LETTERS[:size]) for value, size in zip(values, sizes, strict=True)):
        return "letter"
    if all(value in texts for value, (_, texts) in zip(values, rows, strict=True)):
        return "text"
    if not all(re.fullmatch(r"\d{1,2}", value) for value in values):
        return None
    places = [*zip(map(int, values), sizes, strict=True)]
    from_0 = all(place < size for place, size in places)
    from_1 = all(1 <= place <= size for place, size in places)
    if from_0 and from_1:
        return "from 1" if first else "from 0"
    return "from 0" if from_0 else "from 1" if from_1 else None
