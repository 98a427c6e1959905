"""Samples at hand as the table that analysis reads: through a journal and Parquet, as a run leaves them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import orjson

from evalrun.analysis.samples import SampleTable
from evalrun.tracking.parquet import journal_to_parquet
from evalrun.types import SampleRecord

_folder = tempfile.TemporaryDirectory(prefix="evalrun-tables-")
_numbers = count()


def sample_table(records: Iterable[SampleRecord]) -> SampleTable:
    """The table of these samples."""
    path = Path(_folder.name) / str(next(_numbers))
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    journal_to_parquet(path, path.with_suffix(".parquet"))
    path.unlink()
    return SampleTable.from_parquet(path.with_suffix(".parquet"))
