"""Finding samples: a query over one run's `samples.parquet`, answered by DuckDB."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.registry import nearest
from evalrun.tracking.compile import Compiler, Kind, Term
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.parts import files_of
from evalrun.tracking.query import Name, did_you_mean_name, fault, parse, parse_name, spelled


@frozen
class FoundSamples:
    """Samples as flat dicts (the columns of `samples.parquet`, JSON columns decoded), and how many in all."""

    total: int
    rows: tuple[dict[str, Any], ...]


@dataclass
class _SampleCompiler(Compiler):
    """Compiles queries over the columns of a Parquet file, given as name to kind."""

    columns: Mapping[str, Kind] = field(kw_only=True)

    MARK = "$"

    def _name(self, name: Name) -> Term:
        if name.keywords or name.part:
            raise fault(self.text, name.place, "samples have no slices or parts")
        column = str(name)
        if column not in self.columns:
            hint = did_you_mean_name(column, list(self.columns))
            for group in ("score", "reason", "vars", "sensitive"):
                if f"{group}.{column}" in self.columns:
                    hint = f"Did you mean '{spelled(f'{group}.{column}')}'?"
            raise fault(self.text, name.place, f"samples have no '{column}'", hint)
        return Term(self.columns[column], _quoted(column))


def _quoted(name: str) -> str:
    """A name as SQL takes it, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def _kind_of(arrow_type: str) -> Kind:
    if arrow_type == "bool":
        return "bool"
    return "number" if arrow_type.startswith(("int", "uint", "float", "double", "halffloat")) else "text"


def find_run(folder: SweepFolder, name: str) -> str:
    """A run of the sweep by its id, a beginning of it, or what it is called (`naming.pick_run`).

    Raises UserError with the nearest.
    """
    from evalrun.tracking.naming import axes, pick_run
    from evalrun.tracking.running import running_runs

    matches = pick_run(folder, name)
    if not matches and folder.unfinished_digest() is not None:
        running = [each.results.run for each in running_runs(folder)]
        matches = [each for each in running if each == name] or [e for e in running if e.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UserError(
            f"'{name}' fits {len(matches)} runs: {', '.join(matches[:10])}", where=str(folder.path)
        )
    ids = folder.run_ids()
    called = [each for run_id in ids for each in axes(folder.run(run_id))]
    near = nearest(name, [*ids, *dict.fromkeys(called)])
    remedy = f"Did you mean '{near}'?" if near else f"There are: {', '.join(ids[:20]) or 'none yet'}."
    raise UserError(f"there is no run '{name}'", where=str(folder.path), remedy=remedy)


def find_samples(
    path: Path, text: str = "", *, sort: Sequence[str] = (), limit: int | None = None
) -> FoundSamples:
    """The samples of a Parquet file that a query holds for, in the file's order unless sorted.

    Raises UserError that points at what is wrong in the query, or names the file that cannot be read.
    """
    schema = _schema(path)
    compiler = _SampleCompiler(columns={column.name: _kind_of(str(column.type)) for column in schema})
    where = compiler.condition(parse(text))
    order = []
    for name in sort:
        term = compiler.term(*parse_name(name.removeprefix("-")))
        order.append(f"{term.sql} {'DESC' if name.startswith('-') else 'ASC'} NULLS LAST")
    with duck(str(path)) as database:
        source = f"FROM read_parquet($path) WHERE {where}"
        values = {"path": [str(file) for file in files_of(path)], **compiler.values}
        count = database.execute(f"SELECT count(*) {source}", values).fetchone()
        query = f"SELECT {', '.join(_quoted(column.name) for column in schema)} {source}"
        query += f" ORDER BY {', '.join(order)}" if order else ""
        query += f" LIMIT {int(limit)}" if limit is not None else ""
        found = database.execute(query, values).fetchall()
    encoded = {
        i for i, each in enumerate(schema) if (each.metadata or {}).get(b"evalrun.encoding") == b"json"
    }
    rows = [
        {
            each.name: _decoded(value, i in encoded)
            for i, (each, value) in enumerate(zip(schema, row, strict=True))
        }
        for row in found
    ]
    return FoundSamples(int(count[0]) if count else 0, tuple(rows))


def _decoded(value: Any, encoded: bool) -> Any:
    if encoded and value is not None:
        return orjson.loads(value)
    return value


def _schema(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = files_of(path)
    if not files:
        raise UserError("cannot be read: it has no parts", where=str(path))
    try:
        return pq.read_schema(files[0])
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    except pa.ArrowException as error:
        raise UserError(f"is not a whole Parquet file: {error}", where=str(path)) from error


@contextmanager
def duck(where: str = "") -> Iterator[Any]:
    """A DuckDB in memory that loads nothing, keeps nothing, and sees no variables of ours; `where` is what it
    reads. Raises UserError where that cannot be read."""
    import duckdb

    database = duckdb.connect(":memory:")
    try:
        for setting in (
            "autoinstall_known_extensions = false",
            "autoload_known_extensions = false",
            "python_enable_replacements = false",
            "temp_directory = ''",
            "enable_progress_bar = false",
        ):
            database.execute(f"SET {setting}")
        yield database
    except duckdb.Error as error:
        if isinstance(error, duckdb.ProgrammingError) and not isinstance(error, duckdb.InvalidInputException):
            raise  # a query of ours is wrong
        # A file that is gone or damaged, whole pages of it or single bytes; too little memory.
        raise UserError(f"cannot be read: {_first_line(error)}", where=where) from error
    finally:
        database.close()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
