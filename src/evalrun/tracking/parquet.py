"""`samples.parquet` and `system.parquet`: written from journals in two passes, read in batches.

The first pass over a journal learns the columns and which line stands for each sample (the last one); the
second fetches those lines in the dataset's order and writes row groups. Memory is a row group and a few
dozen bytes a line.

Each file is durable, and its name with the document (`run.json`, `answered.json`) that is always written into
the folder after it: without that document nothing reads it.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from evalrun.atomic import open_private, private_folder, replacing
from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.lines import read_record
from evalrun.registry import nearest
from evalrun.secrets import scrub_json
from evalrun.tracking import parts
from evalrun.tracking.columns import LONG_TEXTS, Shape, kind_of_values, transposed
from evalrun.tracking.parts import files_of

SCHEMA_VERSION = "1"
ROW_GROUP = 8192
_PARSED = 256
"""Records held as Python objects at a time: they take ten times the room of their text."""
_PARSED_BYTES = 4 << 20
_ROW_GROUP_BYTES = 32 << 20
_REWRITTEN = 2048
"""Rows whose columns are made anew at a time."""


def journal_to_parquet(journal: Path, out: Path) -> int:
    """Write the samples of a journal to `out` (zstd, 0600, whole or not at all); returns their number.

    Rows are in the order of `position`, then `repeat`. Where a sample occurs more than once, its last line
    counts. A torn last line, and lines that are damaged, are passed over, as the runner's reader does.
    Raises UserError (exit 3) when the disk is full, and for a record that no version wrote.
    """
    try:
        return _journal_to_parquet(journal, out)
    except (TypeError, AttributeError, LookupError, ValueError, OverflowError) as error:
        raise UserError(
            f"a line is no record of a sample: {error}",
            where=str(journal),
            remedy="Somebody else wrote it. Remove the file: its samples are asked again.",
        ) from error


def _journal_to_parquet(journal: Path, out: Path) -> int:
    with journal.open("rb", buffering=1 << 20) as file:
        index = _index(file)
        columns = index.shape.columns()
        with _writing(out, _schema(columns, "samples"), len(index.offsets)) as writer:
            for records, size in index.records(file):
                writer.add(_arrays(index.shape.values(records), columns), size)
    return len(index.offsets)


def system_to_parquet(jsonl: Path, out: Path) -> int:
    """Write the resource readings of a run (JSON lines of scalars) to `out`; returns their number."""
    with jsonl.open("rb") as file:
        rows = list(_objects(file))
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = transposed(rows, names)
    columns = [(name, kind_of_values(each)) for name, each in zip(names, values, strict=True)]
    with replacing(out, named=False) as temporary, _Writer(temporary, _schema(columns, "system")) as writer:
        if rows:
            writer.add(_arrays(values, columns), 0)
    return len(rows)


def write_rows(
    out: Path, columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]], content: str
) -> None:
    """Write rows, given by column name, to `out`, whole or not at all. `columns` are names to kinds."""
    every, iterator = list(columns.items()), iter(rows)
    with replacing(out, named=False) as temporary, _Writer(temporary, _schema(every, content)) as writer:
        while some := list(islice(iterator, _REWRITTEN)):
            writer.add(_arrays([[row[name] for row in some] for name in columns], every), 0)


def rewrite_batches(source: Path, out: Path, change: Callable[[Any, int], Any]) -> int:
    """Write a Parquet file anew with each record batch changed; returns the rows written. `change` is given
    the batch and the number of its first row, and keeps the schema. A folder of parts keeps its parts."""
    written = read = 0
    if source.is_dir():
        private_folder(out)
    for part in files_of(source):
        target = out / part.name if source.is_dir() else out
        with (
            reading(part) as file,
            replacing(target) as temporary,
            _Writer(temporary, file.schema_arrow) as writer,
        ):
            for batch in file.iter_batches(batch_size=_REWRITTEN, use_threads=False):
                made = change(batch, read)
                read += batch.num_rows
                if made.num_rows:
                    writer.add(made.columns, made.nbytes)
                    written += made.num_rows
    return written


def rewrite_columns(
    source: Path,
    out: Path,
    made: Mapping[str, str],
    rows: Iterable[Mapping[str, Any]],
    dropped: Collection[str] = (),
) -> int:
    """Write the rows of `source` to `out` with some columns made anew; returns their number.

    `made` has the columns as name to kind (`tracking.columns`), `rows` their values by name, one mapping for
    each row of the source in its order; a name that is missing is null. Scores and reasons are put before the
    sensitive columns, any other column stays where it is or comes last. Columns that are neither made nor
    dropped keep their values, types and metadata. The file is written whole or not at all, and may be the
    source itself. Raises UserError where the source cannot be read or the disk is full.
    """
    from evalrun.tracking.arrow import arrow_array, arrow_schema

    fields = arrow_schema(list(made.items()), {})
    values, written = iter(rows), 0
    with reading(source) as file:
        schema = _with_made(file.schema_arrow, fields, dropped)
        with _writing(out, schema, file.metadata.num_rows) as writer:
            for batch in file.iter_batches(batch_size=_REWRITTEN, use_threads=False):
                some = list(islice(values, batch.num_rows))
                if len(some) != batch.num_rows:
                    raise ValueError(f"{source} has more rows than were given values")
                arrays = [
                    arrow_array([row.get(name) for row in some], made[name])
                    if name in made
                    else batch.column(name)
                    for name in schema.names
                ]
                writer.add(arrays, batch.nbytes)
                written += batch.num_rows
    return written


def _with_made(old: Any, made: Any, dropped: Collection[str]) -> Any:
    """The schema of a file whose columns are rewritten; its metadata stays."""
    import pyarrow as pa

    moved = [field for field in made if field.name.startswith(("score.", "reason."))]
    gone = {*dropped, *(field.name for field in moved)}
    placed = {field.name: field for field in made if field.name not in gone}
    fields = [placed.pop(field.name, field) for field in old if field.name not in gone]
    at = next((at for at, field in enumerate(fields) if field.name.startswith("sensitive.")), len(fields))
    fields[at:at] = moved
    return pa.schema([*fields, *placed.values()], metadata=old.metadata)


def iter_samples(
    path: Path, batch_size: int = 1000, columns: Sequence[str] | None = None, decode: bool = False
) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file as flat dicts, a batch in memory at a time.

    With `decode`, columns that hold JSON text (`messages`, `answer_json`, nested `vars.…`) come as values.
    Raises UserError where the file is not there, is no Parquet, or lacks a column.
    """
    from evalrun.tracking.arrow import ENCODING

    with reading(path) as file:
        wanted = None if columns is None else _present(file.schema_arrow.names, columns, path)
        json_columns = [
            field.name
            for field in file.schema_arrow
            if decode
            and (field.metadata or {}).get(ENCODING) == b"json"
            and (not wanted or field.name in wanted)
        ]
        for batch in file.iter_batches(batch_size=batch_size, columns=wanted, use_threads=False):
            for row in batch.to_pylist():
                for name in json_columns:
                    if row[name] is not None:
                        row[name] = orjson.loads(row[name])
                yield row


_MAGIC = b"PAR1"


def damage(path: Path) -> str | None:
    """Why a Parquet file cannot be read, as far as its two ends tell; None where nothing is wrong with them.

    A look of some microseconds: pyarrow is not imported.
    """
    if path.is_dir():
        files = files_of(path)
        return next((why for file in files if (why := damage(file))), None) if files else "it has no parts"
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < 3 * len(_MAGIC):
                return "it was cut off"
            file.seek(-2 * len(_MAGIC), os.SEEK_END)
            footer, last = int.from_bytes(file.read(4), "little"), file.read(4)
            file.seek(0)
            if file.read(4) != _MAGIC:
                return "it is no Parquet file"
            return None if last == _MAGIC and footer + 12 <= size else "it was cut off"
    except FileNotFoundError:
        return "it is not there"
    except OSError as error:
        return error.strerror or str(error)


def changed(path: Path, digests: Mapping[str, str]) -> str | None:
    """What is wrong with a table that is no longer what its run was finished with (the `digests` of its
    `run.json`); None where it is that, or where nothing is known of it."""
    from evalrun.tracking.folder import file_sha256

    sha256 = digests.get(f"{path.stem}_sha256")
    if not sha256 or file_sha256(path) == sha256:
        return None
    rows = 0
    try:
        for batch in iter_batches(path, ROW_GROUP):
            rows += batch.num_rows
    except UserError as error:
        return f"it is damaged from row {rows + 1:,} on ({error.problems[0].what})"
    return "it was changed, or damaged, after the run was finished"


def iter_batches(path: Path, size: int, without: Collection[str] = ()) -> Iterator[Any]:
    """The rows as Arrow record batches of `size` rows, without some columns. Raises UserError where the file
    cannot be read on."""
    with reading(path) as file:
        columns = [name for name in file.schema_arrow.names if name not in without] if without else None
        # One thread: of a small file the others only cost time.
        yield from file.iter_batches(batch_size=size, columns=columns, use_threads=False)


def without_secrets(rows: Any) -> Any:
    """An Arrow table or record batch whose texts have their secrets taken out, to be shown elsewhere."""
    import pyarrow as pa

    columns = [
        column
        if pa.types.is_primitive(column.type) or pa.types.is_null(column.type)
        else pa.array([scrub_json(value) for value in column.to_pylist()], column.type)
        for column in rows.columns
    ]
    return type(rows).from_arrays(columns, schema=rows.schema)


def read_columns(path: Path, names: Sequence[str], *, coded: bool = False) -> Any:
    """Some columns of a Parquet file as a `pyarrow.Table`; texts as codes and labels where `coded`. Raises
    UserError for one that is not there."""
    with reading(path, dictionary=names if coded else ()) as file:
        return file.read(columns=_present(file.schema_arrow.names, names, path))


def read_head(path: Path, names: Sequence[str], rows: int) -> Any:
    """The first rows of some columns, without reading the rest."""
    import pyarrow as pa

    with reading(path) as file:
        columns = _present(file.schema_arrow.names, names, path)
        first = next(file.iter_batches(rows, columns=columns), None)
        return pa.Table.from_batches([first]) if first is not None else file.read(columns=columns)


def column_names(path: Path) -> list[str]:
    """The names of a Parquet file's columns."""
    with reading(path) as file:
        return list(file.schema_arrow.names)


@frozen
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
    for (offset, length), record in _records(file):
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


def _records(file: BinaryIO) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
    """The records of a journal's whole and undamaged lines, each with its place (offset, length)."""
    offset = 0
    for line in file:
        record = read_record(line)
        if record is not None:
            yield (offset, len(line)), record
        offset += len(line)


def _objects(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Whole lines that are JSON objects."""
    for line in file:
        with contextlib.suppress(orjson.JSONDecodeError):
            if line[-1:] == b"\n" and type(record := orjson.loads(line)) is dict:
                yield record


def _schema(columns: Sequence[tuple[str, str]], content: str) -> Any:
    from evalrun.tracking.arrow import arrow_schema

    metadata = {"evalrun.schema_version": SCHEMA_VERSION, "evalrun.content": content}
    return arrow_schema(columns, metadata)


def _arrays(values: Sequence[Sequence[Any]], columns: Sequence[tuple[str, str]]) -> list[Any]:
    from evalrun.tracking.arrow import arrow_array

    return [arrow_array(column, kind) for column, (_, kind) in zip(values, columns, strict=True)]


@contextlib.contextmanager
def _writing(out: Path, schema: Any, rows: int) -> Iterator[_Writer]:
    """What writes so many rows to `out`: one file, or a folder of parts."""
    if rows <= parts.MOST_ROWS and not out.is_dir():
        with replacing(out, named=False) as temporary, _Writer(temporary, schema) as writer:
            yield writer
        return
    with parts.replacing_folder(out) as folder, _Writer(folder / parts.part(0), schema, folder) as writer:
        yield writer


class _Writer:
    """Gathers batches and writes a row group whenever there is enough, and a new part in `folder` whenever
    one has its rows."""

    def __init__(self, path: Path, schema: Any, folder: Path | None = None) -> None:
        self._schema = schema
        self._writer = self._opened(path)
        self._folder, self._parts, self._in_part = folder, 1, 0
        self._batches: list[Any] = []
        self._rows = 0
        self._bytes = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._writer.close()

    def _opened(self, path: Path) -> Any:
        import pyarrow.parquet as pq

        os.close(open_private(path, os.O_WRONLY | os.O_CREAT))
        short = [name for name in self._schema.names if name not in LONG_TEXTS]
        return pq.ParquetWriter(
            path,
            self._schema,
            compression="zstd",
            use_dictionary=short,
            write_statistics=short,
            write_page_checksum=True,
        )

    def add(self, arrays: Sequence[Any], size: int) -> None:
        """Add rows, given as one Arrow array for each column, whose text took `size` bytes."""
        import pyarrow as pa

        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._rows += len(arrays[0])
        self._bytes += size
        if self._rows >= ROW_GROUP or self._bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._batches:
            table = pa.Table.from_batches(self._batches, self._schema)
            if self._folder is not None and self._in_part and self._in_part + self._rows > parts.MOST_ROWS:
                self._writer.close()
                self._writer = self._opened(self._folder / parts.part(self._parts))
                self._parts, self._in_part = self._parts + 1, 0
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))
            self._in_part += table.num_rows
        self._batches, self._rows, self._bytes = [], 0, 0


@contextlib.contextmanager
def reading(path: Path, dictionary: Sequence[str] = (), like: Any = None) -> Iterator[Any]:
    """The open `pyarrow.parquet.ParquetFile`, or what stands for it over a folder of parts. What is wrong
    with it, now or while it is read (its pages have checksums), becomes a UserError.

    Columns of `dictionary` are read as codes and labels. `like` is the file opened before, whose footer need
    not be read again. There is no read-ahead, which keeps memory flat.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = None if like is None or path.is_dir() else like.metadata
    try:
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(
                    pq.ParquetFile(
                        file,
                        read_dictionary=list(dictionary),
                        metadata=known,
                        pre_buffer=False,
                        page_checksum_verification=True,
                    )
                )
                for file in files_of(path)
            ]
            if not files:
                raise UserError("is a folder without parts of a table", where=str(path))
            yield files[0] if len(files) == 1 else parts.Parts(files)
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
