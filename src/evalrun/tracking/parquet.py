"""`samples.parquet` and `system.parquet`: written from journals in two passes, read in batches.

The first pass over a journal learns the columns and which line stands for each sample (the last one); the
second fetches those lines in the dataset's order and writes row groups. Memory is a row group and a few
dozen bytes a line.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from evalrun.atomic import replacing
from evalrun.errors import UserError
from evalrun.registry import nearest
from evalrun.tracking.columns import LONG_TEXTS, Shape, kind_of_values, transposed

SCHEMA_VERSION = "1"
ROW_GROUP = 8192
_PARSED = 256
"""Records held as Python objects at a time: they take ten times the room of their text."""
_PARSED_BYTES = 4 << 20
_ROW_GROUP_BYTES = 32 << 20


def journal_to_parquet(journal: Path, out: Path) -> int:
    """Write the samples of a journal to `out` (zstd, 0600, whole or not at all); returns their number.

    Rows are in the order of `position`, then `repeat`. Where a sample occurs more than once, its last line
    counts. A torn last line, and lines that are not JSON, are passed over, as the runner's reader does.
    Raises UserError (exit 3) when the disk is full.
    """
    with journal.open("rb", buffering=1 << 20) as file:
        index = _index(file)
        with replacing(out) as temporary, _Writer(temporary, index.shape.columns(), "samples") as writer:
            for records, size in index.records(file):
                writer.add(index.shape.values(records), size)
    return len(index.offsets)


def system_to_parquet(jsonl: Path, out: Path) -> int:
    """Write the resource readings of a run (JSON lines of scalars) to `out`; returns their number."""
    with jsonl.open("rb") as file:
        rows = [row for _, row in _lines(file)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = transposed(rows, names)
    columns = [(name, kind_of_values(each)) for name, each in zip(names, values, strict=True)]
    with replacing(out) as temporary, _Writer(temporary, columns, "system") as writer:
        if rows:
            writer.add(values, 0)
    return len(rows)


def iter_samples(
    path: Path, batch_size: int = 1000, columns: Sequence[str] | None = None, decode: bool = False
) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file as flat dicts, a batch in memory at a time.

    With `decode`, columns that hold JSON text (`messages`, `answer_json`, nested `vars.…`) come as values.
    Raises UserError where the file is not there, is no Parquet, or lacks a column.
    """
    from evalrun.tracking.arrow import ENCODING

    with _reading(path) as file:
        wanted = None if columns is None else _present(file.schema_arrow.names, columns, path)
        json_columns = [
            field.name
            for field in file.schema_arrow
            if decode
            and (field.metadata or {}).get(ENCODING) == b"json"
            and (not wanted or field.name in wanted)
        ]
        for batch in file.iter_batches(batch_size=batch_size, columns=wanted):
            for row in batch.to_pylist():
                for name in json_columns:
                    if row[name] is not None:
                        row[name] = orjson.loads(row[name])
                yield row


def read_columns(path: Path, names: Sequence[str]) -> Any:
    """Some columns of a Parquet file as a `pyarrow.Table`. Raises UserError for one that is not there."""
    with _reading(path) as file:
        return file.read(columns=_present(file.schema_arrow.names, names, path))


def column_names(path: Path) -> list[str]:
    """The names of a Parquet file's columns."""
    with _reading(path) as file:
        return list(file.schema_arrow.names)


@dataclass(frozen=True, slots=True)
class _Index:
    """Which lines of a journal count, in the order of the output: where they begin and how long they are."""

    shape: Shape
    offsets: Any
    lengths: Any

    def records(self, file: BinaryIO) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """The records in small batches, each with the bytes of its text."""
        descriptor, loads = file.fileno(), orjson.loads
        for start in range(0, len(self.offsets), _PARSED):
            offsets, lengths = self.offsets[start : start + _PARSED], self.lengths[start : start + _PARSED]
            first, size = int(offsets.min()), int(lengths.sum())
            span = int((offsets + lengths).max()) - first
            if span <= 2 * size <= _PARSED_BYTES:
                # Lines that lie together are read at once. (Mapping the file would count as our memory.)
                text = memoryview(os.pread(descriptor, span, first))
                begins = (offsets - first).tolist()
                ends = (offsets - first + lengths).tolist()
                yield [loads(text[begin:end]) for begin, end in zip(begins, ends, strict=True)], size
            else:
                yield from self._scattered(descriptor, offsets.tolist(), lengths.tolist())

    @staticmethod
    def _scattered(
        descriptor: int, offsets: list[int], lengths: list[int]
    ) -> Iterator[tuple[list[dict[str, Any]], int]]:
        batch: list[dict[str, Any]] = []
        size = 0
        for offset, length in zip(offsets, lengths, strict=True):
            batch.append(orjson.loads(os.pread(descriptor, length, offset)))
            size += length
            if size >= _PARSED_BYTES:
                yield batch, size
                batch, size = [], 0
        if batch:
            yield batch, size


def _index(file: BinaryIO) -> _Index:
    """The first pass: 40 bytes a line."""
    import numpy as np

    shape = Shape()
    keys, repeats, positions = array("q"), array("q"), array("q")
    offsets, lengths = array("q"), array("q")
    for (offset, length), record in _lines(file):
        if "sample_id" not in record:
            continue
        shape.learn(record)
        keys.append(hash(record["sample_id"]))
        repeats.append(record.get("repeat") or 0)
        positions.append(record.get("position") or 0)
        offsets.append(offset)
        lengths.append(length)
    key, repeat, position = (np.frombuffer(each, np.int64) for each in (keys, repeats, positions))
    if not len(key):
        return _Index(shape, np.empty(0, np.int64), np.empty(0, np.int64))
    # Stable, so that the lines of one sample stay in the order they were written, the last one last.
    order = np.lexsort((repeat, key))
    last = np.ones(len(order), np.bool_)
    last[:-1] = (np.diff(key[order]) != 0) | (np.diff(repeat[order]) != 0)
    kept = np.sort(order[last])
    kept = kept[np.lexsort((repeat[kept], position[kept]))]
    return _Index(shape, np.frombuffer(offsets, np.int64)[kept], np.frombuffer(lengths, np.int64)[kept])


def _lines(file: BinaryIO) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
    """Whole lines that are JSON objects, each with its place (offset, length)."""
    offset = 0
    for line in file:
        length = len(line)
        if line[-1:] != b"\n":
            return
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            record = None
        if type(record) is dict:
            yield (offset, length), record
        offset += length


class _Writer:
    """Gathers batches and writes a row group whenever there is enough."""

    def __init__(self, path: Path, columns: Sequence[tuple[str, str]], content: str) -> None:
        from evalrun.tracking.arrow import arrow_schema

        self._path = path
        self._kinds = [kind for _, kind in columns]
        metadata = {"evalrun.schema_version": SCHEMA_VERSION, "evalrun.content": content}
        self._schema = arrow_schema(columns, metadata)
        self._batches: list[Any] = []
        self._rows = 0
        self._bytes = 0

    def __enter__(self) -> _Writer:
        import pyarrow.parquet as pq

        short = [name for name in self._schema.names if name not in LONG_TEXTS]
        self._writer = pq.ParquetWriter(
            self._path, self._schema, compression="zstd", use_dictionary=short, write_statistics=short
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._writer.close()

    def add(self, values: Sequence[Sequence[Any]], size: int) -> None:
        """Add rows, given as one sequence of values for each column, whose text took `size` bytes."""
        import pyarrow as pa

        from evalrun.tracking.arrow import arrow_array

        arrays = [arrow_array(each, kind) for each, kind in zip(values, self._kinds, strict=True)]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._rows += len(arrays[0])
        self._bytes += size
        if self._rows >= ROW_GROUP or self._bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._batches:
            table = pa.Table.from_batches(self._batches, self._schema)
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._batches, self._rows, self._bytes = [], 0, 0


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """The open Parquet file. What is wrong with it, now or while it is read, becomes a UserError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    except pa.ArrowException as error:
        raise UserError(f"is not a whole Parquet file: {error}", where=str(path)) from error


def _present(known: Sequence[str], names: Sequence[str], path: Path) -> list[str]:
    for name in names:
        if name not in known:
            near = nearest(name, known)
            raise UserError(
                f"there is no column '{name}'",
                where=str(path),
                remedy=f"Did you mean '{near}'?" if near else f"There are: {', '.join(known)}.",
            )
    return list(names)
