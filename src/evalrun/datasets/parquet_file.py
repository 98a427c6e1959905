"""Rows from a Parquet file, read in batches so that memory stays flat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from evalrun.datasets.findings import Findings
from evalrun.datasets.source import FileSource, Record
from evalrun.datasets.values import json_row
from evalrun.errors import UserError

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
