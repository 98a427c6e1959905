"""Rows from files: JSON Lines, JSON, CSV and Parquet."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import IO, Any

import orjson

from evalrun.canonical import exact_json
from evalrun.datasets.source import FileSource, Findings, Record, json_row
from evalrun.errors import UserError
from evalrun.types import JSON

BOM = b"\xef\xbb\xbf"


class JsonLines(FileSource):
    """A JSONL file. A byte order mark and blank lines are passed over."""

    format = "jsonl"

    def __init__(self, path: Path, shown: str) -> None:
        super().__init__(path, shown)
        with path.open("rb") as file:
            self._compressed = file.read(2) == b"\x1f\x8b"
        self.seekable = not self._compressed
        self._first = True

    def records(self, findings: Findings) -> Iterator[Record]:
        offset = number = 0
        first, self._first = self._first, False
        try:
            with self._open() as file:
                for number, line in enumerate(file, 1):
                    start, offset = offset, offset + len(line)
                    row = self._row(line, number, findings, first)
                    if row is not None:
                        yield number, start, row
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(
                f"the compressed file is torn or damaged after this line: {error}",
                where=self.place(number),
                remedy="Fetch or write the file again.",
            ) from error

    def read_at(self, offsets: Iterator[int]) -> Iterator[dict[str, JSON]]:
        findings = Findings()
        with self.path.open("rb") as file:
            for offset in offsets:
                file.seek(offset)
                row = self._row(file.readline(), 0, findings)
                if row is not None:
                    yield row

    def _open(self) -> IO[bytes]:
        if self._compressed:
            return gzip.open(self.path, "rb")  # type: ignore[return-value]
        return self.path.open("rb")

    def _row(
        self, line: bytes, number: int, findings: Findings, first: bool = False
    ) -> dict[str, JSON] | None:
        """The row of a line. Where it is read the first time, its keys are looked at too."""
        texts = 0
        try:
            row = _loads(line)
            if first or (type(row) is dict and not _DEEP.isdisjoint(map(type, row.values()))):
                texts, wide = _look(row)
                if wide:
                    row = exact_json(line)
        except orjson.JSONDecodeError as error:
            if number <= 1 and line.startswith(BOM):
                return self._row(line.removeprefix(BOM), number, findings, first)
            if findings.full:
                findings.count()
            elif line.strip():
                findings.add(explain(line, error), self.place(number), _remedy(line, number))
            return None
        except ValueError as error:
            findings.add(f"a number that cannot be read: {error}", self.place(number))
            return None
        if type(row) is dict:
            if first and line.count(b'"') != 2 * texts and (key := repeated_key(line, row)) is not None:
                findings.add(f"the key '{key}' stands twice in one object", self.place(number), _ONE_KEY)
                return None
            return row
        findings.add(
            f"the line holds {_name(row)}, not an object",
            self.place(number),
            "A file that is one JSON array needs format: json." if isinstance(row, list) else "",
        )
        return None


_ONE_KEY = "Only the last of its values would count: leave one, or give the other a name of its own."


class _Repeated(Exception):
    """A key that stands twice in one object."""


def repeated_key(text: bytes, value: JSON) -> str | None:
    """The first key that stands twice in one object of a JSON text, of which `value` was read; or None.

    Where the text has as many quotes as the texts of the value there is none, which costs microseconds.
    """
    if text.count(b'"') == 2 * _look(value)[0]:
        return None
    try:
        json.loads(text, object_pairs_hook=_unique)
    except _Repeated as repeated:
        return str(repeated)
    return None


def _loads(line: bytes) -> JSON:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if "infinity" not in error.msg:
            raise
        return exact_json(line)  # a whole number beyond every float


def _look(value: JSON) -> tuple[int, bool]:
    """How many texts a value holds, keys among them, and whether it holds a number that may have been a whole
    one beyond 64 bits. Where a key stood twice, the JSON text has more quotes than that."""
    items = value.values() if type(value) is dict else value if type(value) is list else (value,)
    kinds = list(map(type, items))
    texts, wide = kinds.count(str) + (len(kinds) if type(value) is dict else 0), False
    if not _DEEP.isdisjoint(kinds):
        for item in items:
            if type(item) is float:
                wide = wide or not -_GREAT < item < _GREAT
            elif type(item) is dict or type(item) is list:
                inner, inner_wide = _look(item)
                texts, wide = texts + inner, wide or inner_wide
    return texts, wide


_GREAT = 2.0**62
_DEEP = frozenset({float, dict, list})


def _unique(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _Repeated(next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1))
    return made


def _line_of_repeat(text: bytes, key: str) -> int:
    """The line of the second place where a key stands twice in one object, as far as its text tells."""
    places = [match.start() for match in re.finditer(re.escape(json.dumps(key)).encode() + rb"\s*:", text)]
    for first, second in pairwise(places):
        steps = [1 if bracket == b"{" else -1 for bracket in re.findall(rb"[{}]", text[first:second])]
        if not sum(steps) and min(accumulate(steps), default=0) >= 0:
            return text.count(b"\n", 0, second) + 1
    return 1


def explain(text: bytes, error: orjson.JSONDecodeError) -> str:
    """Why some bytes are no JSON: bad UTF-8, a constant such as NaN, a torn value, or the parser's words."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError as bad:
        line_start = text.rfind(b"\n", 0, bad.start) + 1
        return f"byte {bad.start - line_start + 1} of the line is not UTF-8 (0x{text[bad.start]:02x})"
    try:
        json.loads(decoded, parse_constant=_refuse_constant)
    except _NotFinite as constant:
        return f"{constant} is not a JSON value"
    except (ValueError, RecursionError):
        pass
    if error.pos >= len(decoded.rstrip()):
        return "the JSON is torn: it ends in the middle of a value"
    return f"this is not JSON (column {error.colno}): {error.msg.split(':')[0]}"


class _NotFinite(Exception):
    pass


def _refuse_constant(name: str) -> None:
    raise _NotFinite(name)


def _remedy(line: bytes, number: int) -> str:
    if number == 1 and line.strip() in (b"[", b"{"):
        return "A file that is one JSON value over several lines needs format: json."
    return "Each line must be one whole JSON object, in UTF-8."


def _name(value: JSON) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "text"
        case list():
            return "a list"
    return "a number"


class JsonFile(FileSource):
    """A JSON file. Rows are numbered from 1; `place` finds the line that a row begins on."""

    format = "json"

    def records(self, findings: Findings) -> Iterator[Record]:
        _, rows = self._load()
        for number, row in enumerate(rows, 1):
            if type(row) is dict:
                yield number, -1, row
            else:
                findings.add("the entry is not an object", self.place(number))

    def place(self, number: int) -> str:
        key, _ = self._load()
        text = self.path.read_bytes().removeprefix(BOM).decode()
        return f"{self.shown}:{_line_of_row(text, key, number)} (row {number})"

    def _load(self) -> tuple[str | None, list[JSON]]:
        """The rows, and the key under which they stand (None for an array at the top)."""
        text = self.path.read_bytes().removeprefix(BOM)
        try:
            value = exact_json(text)
        except orjson.JSONDecodeError as error:
            raise self._unreadable(text, error) from error
        except ValueError as error:
            raise UserError(f"a number that cannot be read: {error}", where=self.shown) from error
        if (repeated := repeated_key(text, value)) is not None:
            raise UserError(
                f"the key '{repeated}' stands twice in one object",
                where=f"{self.shown}:{_line_of_repeat(text, repeated)}",
                remedy=_ONE_KEY,
            )
        if isinstance(value, list):
            return None, value
        lists = [key for key, item in value.items() if _is_rows(item)] if isinstance(value, dict) else []
        lists = [key for key in lists if value[key]] or lists
        if len(lists) == 1:
            return lists[0], value[lists[0]]
        found = f" (found: {', '.join(lists)})" if lists else ""
        raise UserError(
            f"expected an array of objects, or an object with exactly one list of objects in it{found}",
            where=f"{self.shown}:1",
            remedy="A file with one object a line needs format: jsonl.",
        )

    def _unreadable(self, text: bytes, error: orjson.JSONDecodeError) -> UserError:
        try:
            text.decode()
            line = error.lineno
        except UnicodeDecodeError as bad:
            line = text.count(b"\n", 0, bad.start) + 1
        several = error.lineno == 2 and text.startswith(b"{")
        return UserError(
            explain(text, error),
            where=f"{self.shown}:{line}",
            remedy="A file with one object a line needs format: jsonl." if several else "",
        )


def _is_rows(value: JSON) -> bool:
    return isinstance(value, list) and all(type(item) is dict for item in value)


def _line_of_row(text: str, key: str | None, number: int) -> int:
    """The line on which the number-th entry of the array begins. `text` is known to be JSON."""
    decoder = json.JSONDecoder()
    at = text.index("[" if key is None else "{") + 1
    while key is not None:
        name, at = decoder.raw_decode(text, _next(text, at))
        at = _next(text, at)
        if name == key:
            at += 1
            break
        at = decoder.raw_decode(text, at)[1]
    at = _next(text, at)
    for _ in range(number - 1):
        at = _next(text, decoder.raw_decode(text, at)[1])
    return text.count("\n", 0, at) + 1


def _next(text: str, at: int) -> int:
    """The place of the next thing that is neither blank nor a comma nor a colon."""
    while text[at] in " \t\r\n,:":
        at += 1
    return at


class _BadText(Exception):
    """A line that is not UTF-8."""

    def __init__(self, what: str, number: int) -> None:
        self.number = number
        super().__init__(what)


SEPARATORS = (",", ";", "\t", "|")
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_LONGEST_CELL = 1 << 30


def separator_of(header: str) -> str:
    """What separates the cells of a CSV file, by its header: the one of SEPARATORS that stands most often in
    it outside of quotes, the comma where none does."""
    plain = re.sub(r'"[^"]*"', "", header)
    return max(SEPARATORS, key=lambda separator: (plain.count(separator), separator == ","))


class CsvFile(FileSource):
    """A CSV file: cells quoted by double quotes, in UTF-8, separated by commas unless `separator` or the
    header says otherwise. A header cell that is empty is named `column_<n>`."""

    format = "csv"

    def __init__(self, path: Path, shown: str, separator: str | None = None) -> None:
        super().__init__(path, shown)
        self._named = separator is not None
        with path.open("rb") as file:
            self.separator = separator or separator_of(file.readline().decode("utf-8-sig", "replace"))

    @property
    def warnings(self) -> Sequence[str]:
        """That another separator than the comma was found."""
        if self._named or self.separator == ",":
            return ()
        name = _NAMES[self.separator]
        return (f"{self.shown} is read with a {name} between cells, as its header has it",)

    def describe(self) -> dict[str, JSON]:
        about = super().describe()
        return about if self.separator == "," else {**about, "separator": self.separator}

    def records(self, findings: Findings) -> Iterator[Record]:
        csv.field_size_limit(_LONGEST_CELL)
        with self.path.open("rb") as file:
            reader = csv.reader(self._lines(file), strict=True, delimiter=self.separator)
            try:
                columns = self._header(next(reader, []))
                number = reader.line_num + 1
                for cells in reader:
                    if len(cells) == len(columns):
                        yield number, -1, dict(zip(columns, cells, strict=True))
                    elif cells:
                        self._wrong_length(len(cells), len(columns), number, findings)
                    number = reader.line_num + 1
            except _BadText as error:
                findings.add(str(error), self.place(error.number), "Save the file as UTF-8.")
            except csv.Error as error:
                # The reader has lost the thread: what follows would be misread.
                findings.add(f"the CSV cannot be read: {error}", self.place(max(reader.line_num, 1)))

    def _lines(self, file: IO[bytes]) -> Iterator[str]:
        for number, line in enumerate(file, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                what = f"byte {error.start + 1} of the line is not UTF-8 (0x{line[error.start]:02x})"
                raise _BadText(what, number) from error

    def _header(self, cells: list[str]) -> list[str]:
        columns = [cell or f"column_{position}" for position, cell in enumerate(cells, 1)]
        repeated = [column for column, count in Counter(columns).items() if count > 1]
        if repeated:
            raise UserError(
                f"the header names column '{repeated[0]}' twice",
                where=self.place(1),
                remedy="Give each column a name of its own.",
            )
        return columns

    def _wrong_length(self, found: int, expected: int, number: int, findings: Findings) -> None:
        findings.add(
            f"the row has {found} cells where the header has {expected}",
            self.place(number),
            f"A cell that holds a {_NAMES.get(self.separator, 'separator')} or a line break must stand in "
            "double quotes. Where something else separates the cells, name it: separator: ';'.",
        )


_BATCH = 512


class ParquetFile(FileSource):
    """A Parquet file. Rows are numbered from 1: the format has no lines."""

    format = "parquet"

    def place(self, number: int) -> str:
        return f"{self.shown}: row {number}"

    def records(self, findings: Findings) -> Iterator[Record]:
        import pyarrow as pa

        number = 0
        try:
            for batch in self._batches():
                for row in batch.to_pylist():
                    number += 1
                    try:
                        yield number, -1, json_row(row)
                    except ValueError as error:
                        findings.add(str(error), self.place(number))
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"the Parquet file cannot be read: {str(error).splitlines()[0]}",
                where=self.place(number + 1) if number else self.shown,
                remedy="It may be torn: fetch or write it again.",
            ) from error

    def _batches(self) -> Iterator[Any]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            names = Counter(file.schema_arrow.names)
            repeated = [name for name, count in names.items() if count > 1]
            if repeated:
                raise UserError(f"the file has two columns named '{repeated[0]}'", where=self.shown)
            yield from file.iter_batches(batch_size=_BATCH)
