"""Rows from a CSV file with a header. Every value is text, exactly as it stands in the file.

Nothing is guessed: `007` stays `007`, an empty cell is an empty text. A number is made where it is needed,
by a template: `{{ age|int }}`.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from typing import IO

from evalrun.datasets.findings import Findings
from evalrun.datasets.source import FileSource, Record
from evalrun.errors import UserError


class _BadText(Exception):
    """A line that is not UTF-8."""

    def __init__(self, what: str, number: int) -> None:
        self.number = number
        super().__init__(what)


class CsvFile(FileSource):
    """A CSV file: comma-separated, quoted by double quotes, in UTF-8. A header cell that is empty is named
    `column_<n>`."""

    format = "csv"

    def records(self, findings: Findings) -> Iterator[Record]:
        with self.path.open("rb") as file:
            reader = csv.reader(self._lines(file), strict=True)
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
            "A cell that holds a comma or a line break must stand in double quotes.",
        )
