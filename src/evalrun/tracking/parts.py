"""Tables of a great many rows: `samples.parquet` is a folder of files then, each a Parquet file of its own.

One file of ten million rows has a footer that every reader reads whole, and is unwieldy to copy. DuckDB,
pandas and pyarrow read such a folder as one table.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evalrun.atomic import disk_errors, make_private, private_folder, sync

MOST_ROWS = 1_000_000
"""Rows of a table that is one file, and of each part of one that is not."""


def files_of(path: Path) -> list[Path]:
    """The files of a table: itself, or its parts in their order."""
    return sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]


def part(number: int) -> str:
    """The name of a part."""
    return f"part-{number:05}.parquet"


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` to write parts into; at the end it takes the place of what lies there.

    On any error it is removed and `path` stays as it was. Raises UserError (exit 3) when the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    old = temporary.with_suffix(".old")
    with disk_errors(path.parent):
        try:
            private_folder(temporary)
            yield temporary
            for file in temporary.iterdir():
                sync(file)
            sync(temporary)
            if path.is_dir():
                path.rename(old)
            else:
                path.unlink(missing_ok=True)
            temporary.rename(path)
            sync(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)


def copy_table(source: Path, target: Path) -> None:
    """Copy a table into a store."""
    if not source.is_dir():
        shutil.copyfile(source, target)
        make_private(target)
        return
    private_folder(target)
    for file in files_of(source):
        copy_table(file, target / file.name)


class Parts:
    """The parts of a table as one `pyarrow.parquet.ParquetFile`: what readers use of it."""

    def __init__(self, files: Sequence[Any]) -> None:
        self._files = files
        self.schema_arrow = files[0].schema_arrow

    @property
    def metadata(self) -> Any:
        """Has `num_rows`."""
        return self

    @property
    def num_rows(self) -> int:
        """The rows of all parts."""
        return sum(file.metadata.num_rows for file in self._files)

    def iter_batches(self, *sized: int, **named: Any) -> Iterator[Any]:
        """The record batches of one part after the other."""
        for file in self._files:
            yield from file.iter_batches(*sized, **named)

    def read(self, **named: Any) -> Any:
        """All rows as one table."""
        import pyarrow as pa

        return pa.concat_tables([file.read(**named) for file in self._files])
