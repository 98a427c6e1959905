"""The first reading of a dataset: every row checked, named and counted, nothing kept but numbers.

What a row costs in memory: an entry in one set of 64-bit integers; when shuffled, 56 bytes more (rank, place,
line and digest). Rows themselves are never kept.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import tempfile
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from evalrun.canonical import canonical_json, derived_seed
from evalrun.datasets.shape import BadRow, Shape
from evalrun.datasets.source import Findings, Source
from evalrun.errors import ExitCode, Problem, UserError
from evalrun.frozen import frozen
from evalrun.registry import nearest
from evalrun.templates import holds_bytes, reference
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
                f"the rows cannot be stored: {error.strerror}",
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


ID_DIGITS = 16


@frozen
class Selection:
    """Which rows to take: the first `limit` of the file, or of a shuffle by `seed`."""

    limit: int | None
    shuffle: bool
    seed: int


_DIGEST = 32
"""Bytes of a row's digest."""


@dataclass(slots=True)
class Chosen:
    """The outcome: how to find the selected rows again, in order.

    `numbers` are line or row numbers and `places` byte offsets or spool numbers, both in order of selection;
    empty where the source is simply read again. `occurrences` has the rows that repeat an earlier one.
    """

    count: int = 0
    digest: str = ""
    numbers: array[int] = field(default_factory=lambda: array("Q"))
    places: array[int] = field(default_factory=lambda: array("Q"))
    occurrences: dict[int, int] = field(default_factory=dict)
    spool: Spool | None = None


class Survey:
    """One first reading."""

    def __init__(self, name: str, source: Source, shape: Shape, selection: Selection) -> None:
        self.findings = Findings()
        self.presence = Presence()
        self.warnings: list[str] = []
        self.nulls: dict[str, tuple[int, int]] = {}
        self.binary: dict[str, set[str]] = {}
        self._name, self._source, self._shape, self._selection = name, source, shape, selection
        self._types = TypeCheck(self.findings, source.place)
        self._layouts: dict[tuple[str, ...], bool] = {}
        self._absent: set[str] = set()
        self._seen: set[int] = set()
        self._times: dict[str, int] = {}
        self._repeated_keys: set[str] = set()
        self._read = 0
        self._chosen = Chosen()
        indirect = not source.repeatable or (selection.shuffle and not source.seekable)
        self._chosen.spool = Spool() if indirect else None
        self._remember = indirect or selection.shuffle
        self._ranks = array("Q")
        self._digests = bytearray()
        self._inside = bytearray()
        """Of each rank, whether its row is in the part that is used."""
        self._kept = 0

    def run(self) -> Chosen:
        """Read the source. Raises UserError with everything that is wrong with the rows."""
        hasher = hashlib.sha256()
        stop_at = None if self._selection.shuffle else self._selection.limit
        for number, place, row in self._source.records(self.findings):
            self._read += 1
            self._types.see(number, row)
            if not self._fits(number, row):
                continue
            try:
                entry = self._take(number, place, row)
            except BadRow as error:
                self._note(str(error), number)
                continue
            if entry is None:
                continue
            if self._selection.shuffle:
                # One for each rank: of rows of another part there is none without a limit.
                self._digests += entry or bytes(_DIGEST if self._selection.limit else 0)
            else:
                hasher.update(entry)
            self._chosen.count += bool(entry)
            self._kept += 1
            if self._kept == stop_at:
                break
        return self._finish(hasher)

    def _finish(self, hasher: hashlib._Hash) -> Chosen:
        if self._repeated_keys:
            self._report_keys()
        self._refuse_nothing()
        self.findings.raise_if_any()
        self._seen.clear()  # its memory is wanted for sorting
        if self._selection.shuffle:
            hasher = self._shuffled()
        if repeats := len(self._chosen.occurrences):
            first = self._source.place(next(iter(self._chosen.occurrences)))
            self.warnings.append(
                f"{repeats:,} rows repeat an earlier one (the first at {first}); their ids end in -2, -3, …"
            )
        self._chosen.digest = hasher.hexdigest()
        return self._chosen

    def _fits(self, number: int, row: dict[str, JSON]) -> bool:
        """Whether a row has the columns that the settings need; what is missing is reported once."""
        layout = tuple(row)
        known = self._layouts.get(layout)
        if known is not None:
            return known
        absent = self._shape.missing(row)
        for column, setting in absent:
            if column not in self._absent:
                self._absent.add(column)
                near = nearest(column, row)
                what = "there is no column" if self._read == 1 else "the row has no column"
                self.findings.add(
                    f"{what} '{column}', which {setting} of dataset {self._name} needs",
                    self._source.place(number),
                    _proposal(near) if near else f"Columns: {', '.join(row)}.",
                )
        if len(self._layouts) < 4096:
            self._layouts[layout] = not absent
        return not absent

    def _take(self, number: int, place: int, row: dict[str, JSON]) -> bytes | None:
        """Name one row and note where it stands. Gives its digest; None where the filter drops it, no byte
        where it is in another part (and counts towards the limit all the same)."""
        full = self._shape.complete(row)
        if not self._shape.keeps(full):
            return None
        selection, inside = self._selection, self._shape.in_part(full, row)
        if not inside and not (selection.shuffle and selection.limit):
            return b""
        canonical = _canonical(row)
        hasher = hashlib.sha256(canonical)
        key = self._shape.key_of(full)
        if key is None:
            sample_id = self._by_content(number, hasher.hexdigest()[:ID_DIGITS])
        else:
            sample_id = self._by_key(key)
        if selection.shuffle:
            self._ranks.append(rank(selection.seed, sample_id))
            self._inside.append(inside)
        if not inside:
            self._chosen.numbers.append(number)
            self._chosen.places.append(0)
            return b""
        hasher.update(b"\n" + _canonical(self._shape.target_of(full)))
        self.presence.see(number, full)
        if None in full.values():
            for column in [column for column, value in full.items() if value is None]:
                count, first = self.nulls.get(column, (0, number))
                self.nulls[column] = count + 1, first
        if b"bytes, sha256 " in canonical:
            self._note_binary(full)
        if self._remember:
            self._chosen.numbers.append(number)
            self._chosen.places.append(self._chosen.spool.add(row) if self._chosen.spool else place)
        return hasher.digest()

    def _note_binary(self, row: Row) -> None:
        """Which columns, and which of their keys, hold bytes."""
        for column, value in row.items():
            inner = value if isinstance(value, dict) else {"": value}
            keys = {str(key) for key, item in inner.items() if holds_bytes(item)}
            if keys:
                self.binary.setdefault(column, set()).update(keys)

    def _by_content(self, number: int, digits: str) -> str:
        seen = int(digits, 16)
        if seen not in self._seen:
            self._seen.add(seen)
            return digits
        occurrence = self._times[digits] = self._times.get(digits, 1) + 1
        self._chosen.occurrences[number] = occurrence
        return f"{digits}-{occurrence}"

    def _by_key(self, key: str) -> str:
        marker = hash(key)
        if marker in self._seen:
            self._repeated_keys.add(key)
        self._seen.add(marker)
        return key

    def _note(self, what: str, number: int) -> None:
        if self.findings.full:
            self.findings.count()
        else:
            self.findings.add(what, self._source.place(number))

    def _report_keys(self) -> None:
        """A second reading, to name both places of each key that seems to stand twice."""
        places: dict[str, int] = {}
        for number, key in self._keys():
            if key not in self._repeated_keys:
                continue
            first = places.setdefault(key, number)
            if first != number and not self.findings.full:
                self.findings.add(
                    f"the key '{key}' stands twice, first at {self._source.place(first)}",
                    self._source.place(number),
                    "A key names one row; choose another column, or leave 'key' out.",
                )
            elif first != number:
                self.findings.count()

    def _keys(self) -> Iterator[tuple[int, str]]:
        for number, _, row in self._source.records(Findings()):
            if self._shape.missing(row):
                continue
            try:
                full = self._shape.complete(row)
                key = self._shape.key_of(full) if self._shape.keeps(full) else None
            except BadRow:
                continue
            if key is not None:
                yield number, key

    def _refuse_nothing(self) -> None:
        if self._chosen.count or self.findings:
            return
        if self._kept:
            what = f"of its {self._kept:,} rows none is in this part"
            raise UserError(what, where=f"dataset {self._name}, part", remedy="Take another share or seed.")
        if self._read:
            what = f"the filter keeps none of the {self._read:,} rows"
            raise UserError([Problem(what, f"dataset {self._name}, where", "Correct 'where'.")])
        place = self._source.place(1)
        raise UserError([Problem("there are no rows", place, f"Dataset {self._name} needs at least one.")])

    def _shuffled(self) -> hashlib._Hash:
        """Puts the chosen rows in the order of their ranks and cuts at the limit."""
        ranks, chosen = self._ranks, self._chosen
        order = sorted(range(len(ranks)), key=ranks.__getitem__)[: self._selection.limit]
        order = [index for index in order if self._inside[index]]
        chosen.numbers = array("Q", [chosen.numbers[index] for index in order])
        chosen.places = array("Q", [chosen.places[index] for index in order])
        chosen.count = len(order)
        hasher = hashlib.sha256()
        for index in order:
            hasher.update(self._digests[_DIGEST * index : _DIGEST * (index + 1)])
        self._ranks, self._digests, self._inside = array("Q"), bytearray(), bytearray()
        return hasher


def rank(seed: int, sample_id: str) -> int:
    """Where a sample stands in the shuffle of a seed: it depends on nothing else, so limits give prefixes."""
    return derived_seed(seed, sample_id)


def _canonical(value: JSON) -> bytes:
    try:
        return canonical_json(value)
    except ValueError as error:
        raise BadRow(str(error)) from error


def _proposal(column: str) -> str:
    """The column that may have been meant; one whose name is no identifier also as a template has it."""
    named = reference(column)
    return f"Did you mean '{column}'?" + ("" if named == column else f" In a template: {named}.")
