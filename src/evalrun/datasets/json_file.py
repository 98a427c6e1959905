"""Rows from a JSON file: an array of objects, or an object with one list of objects in it.

The file is parsed as a whole, so it takes memory in proportion to its size: JSONL or Parquet is the format
for many rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import orjson

from evalrun.datasets.findings import Findings
from evalrun.datasets.jsonl import BOM, explain
from evalrun.datasets.source import FileSource, Record
from evalrun.errors import UserError
from evalrun.types import JSON


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
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise self._unreadable(text, error) from error
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
