"""Rows that are written in the suite itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from evalrun.datasets.findings import Findings
from evalrun.datasets.source import Record, Source
from evalrun.datasets.values import json_row
from evalrun.types import JSON


class Inline(Source):
    """The `rows:` of a dataset."""

    def __init__(self, rows: Sequence[Mapping[str, JSON]], dataset: str) -> None:
        self._rows = rows
        self._dataset = dataset

    def records(self, findings: Findings) -> Iterator[Record]:
        for number, row in enumerate(self._rows, 1):
            try:
                yield number, -1, json_row(row)
            except ValueError as error:
                findings.add(str(error), self.place(number))

    def place(self, number: int) -> str:
        return f"dataset {self._dataset}, row {number}"

    def describe(self) -> dict[str, JSON]:
        return {"kind": "rows"}
