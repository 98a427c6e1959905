"""Rows from a JSONL file, plain or gzipped: one JSON object a line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import orjson

from evalrun.datasets.findings import Findings
from evalrun.datasets.source import FileSource, Record
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

    def records(self, findings: Findings) -> Iterator[Record]:
        offset = number = 0
        try:
            with self._open() as file:
                for number, line in enumerate(file, 1):
                    start, offset = offset, offset + len(line)
                    row = self._row(line, number, findings)
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

    def _row(self, line: bytes, number: int, findings: Findings) -> dict[str, JSON] | None:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            if number <= 1 and line.startswith(BOM):
                return self._row(line.removeprefix(BOM), number, findings)
            if findings.full:
                findings.count()
            elif line.strip():
                findings.add(explain(line, error), self.place(number), _remedy(line, number))
            return None
        if type(row) is dict:
            return row
        findings.add(
            f"the line holds {_name(row)}, not an object",
            self.place(number),
            "A file that is one JSON array needs format: json." if isinstance(row, list) else "",
        )
        return None


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
