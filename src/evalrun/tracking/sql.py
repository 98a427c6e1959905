"""Questions in SQL over runs, metrics and samples, which can read nothing else and write nothing."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from evalrun.errors import UserError
from evalrun.tracking.columns import BOOLEAN, INTEGER, NUMBER, STRING
from evalrun.tracking.folder import SAMPLES, SweepFolder
from evalrun.tracking.parquet import damage
from evalrun.tracking.parts import files_of
from evalrun.tracking.running import running_files
from evalrun.tracking.samples import duck
from evalrun.tracking.store import Store
from evalrun.tracking.tables import RUN_COLUMNS, run, run_metric, run_param, runs_joined, sweep

_log = logging.getLogger(__name__)

VIEWS = ("runs", "metrics", "samples")

_NOT_SHOWN = ("spec_digest", "note", "run_status")
_RUNS = {name: column for name, column in RUN_COLUMNS.items() if name not in _NOT_SHOWN}
_METRICS: Mapping[str, sa.Column[Any]] = {
    "sweep": run.c.sweep,
    "run": run.c.run,
    **{column.name: column for column in run_metric.c if column.name != "run_id"},
}


@dataclass(frozen=True, slots=True)
class SqlResult:
    """What a question was answered with: the columns' names, and rows of plain values."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def ask(store: Store, sql: str, sweeps: Sequence[SweepFolder] | None = None) -> SqlResult:
    """Answer one SELECT over the views `runs`, `metrics` and `samples`.

    `runs` has one row a run with its parameters as a JSON text, `metrics` one a run, metric and slice,
    `samples` one a sample of the given sweeps (all by default) with `sweep` and `run` before its columns.
    Raises UserError for what is no single SELECT and for what the database says is wrong in it.
    """
    import duckdb

    with duck() as database, contextlib.ExitStack() as stack:
        try:
            statements = duckdb.extract_statements(sql)
        except duckdb.Error as error:
            raise _wrong(error) from error
        allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
        if len(statements) != 1 or statements[0].type not in allowed:
            raise UserError(
                "only one SELECT can be asked: the store is read, never changed, by SQL",
                remedy='For example: evalrun sql "select model, avg(value) from runs join metrics '
                "using (sweep, run) where metrics.name = 'exact_match' group by model\"",
            )
        wanted = _wanted(sql)
        for name, columns in (("runs", _RUNS), ("metrics", _METRICS)):
            if name in wanted:
                _load(store, database, name, columns)
        files: list[str] = []
        if "samples" in wanted:
            folders = store.folders() if sweeps is None else sweeps
            files = _files(folders) + [str(path) for path in stack.enter_context(running_files(folders))]
        try:
            _view(database, files)
        except duckdb.Error as error:
            raise UserError(
                f"the samples cannot be read: {str(error).splitlines()[0]}",
                where=str(store.root),
                remedy="`evalrun audit verify` names what was altered; --sweep asks over other sweeps.",
            ) from error
        _lock(database, files)
        try:
            found = database.execute(statements[0])
            names = tuple(each[0] for each in found.description or ())
            return SqlResult(names, tuple(found.fetchall()))
        except duckdb.Error as error:
            raise _wrong(error) from error


def _wanted(sql: str) -> set[str]:
    """The views that the question may speak of; all when it names none (`show tables`)."""
    words = set(re.findall(r"\w+", sql.lower()))
    return words.intersection(VIEWS) or set(VIEWS)


def _load(store: Store, database: Any, name: str, columns: Mapping[str, sa.Column[Any]]) -> None:
    import pyarrow as pa

    from evalrun.tracking.arrow import arrow_array, arrow_schema

    source = runs_joined()
    if name == "metrics":
        source = source.join(run_metric, run_metric.c.run_id == run.c.id)
    query = sa.select(*(column.label(label) for label, column in columns.items()), run.c.id.label("_run"))
    query = query.select_from(source)

    def read(connection: sa.Connection) -> tuple[list[tuple[Any, ...]], dict[int, dict[str, Any]]]:
        rows = [tuple(row) for row in connection.execute(query)]
        return rows, _params(connection) if name == "runs" else {}

    rows, params = store.read(read)
    values: list[Sequence[Any]] = [[row[i] for row in rows] for i in range(len(columns))]
    shape = [(label, _kind(column)) for label, column in columns.items()]
    if name == "runs":
        import orjson

        shape.append(("params", STRING))
        values.append([orjson.dumps(params.get(row[-1], {})).decode() for row in rows])
    arrays = [arrow_array(list(each), kind) for each, (_, kind) in zip(values, shape, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=arrow_schema(shape, {}))
    database.register("_loading", table)
    database.execute(f"CREATE TABLE {name} AS SELECT * FROM _loading")
    database.unregister("_loading")


def _kind(column: sa.Column[Any]) -> str:
    if isinstance(column.type, sa.Integer):
        return BOOLEAN if column is sweep.c.archived else INTEGER
    return NUMBER if isinstance(column.type, sa.Float) else STRING


def _params(connection: sa.Connection) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for row in connection.execute(sa.select(run_param)):
        value = row.num if row.type == "number" else row.text == "true" if row.type == "bool" else row.text
        found.setdefault(row.run_id, {})[row.key] = value
    return found


def _files(folders: Sequence[SweepFolder]) -> list[str]:
    found = [
        file
        for folder in folders
        if (folder.path / "runs").is_dir()
        for file in sorted((folder.path / "runs").glob(f"*/{SAMPLES}"))
    ]
    whole = []
    for file in found:
        if (why := damage(file)) is None:
            whole += [str(part.resolve()) for part in files_of(Path(file))]
        else:
            _log.warning("the samples in %s are left out: %s", file, why)
    return whole


def _view(database: Any, files: Sequence[str]) -> None:
    """Sweep and run are the names of the folders that a file lies in. A glob in a name stays a name."""
    if not files:
        database.execute("CREATE VIEW samples AS SELECT '' AS sweep, '' AS run WHERE false")
        return
    listed = ", ".join("'" + _escaped(file).replace("'", "''") + "'" for file in files)
    database.execute(
        "CREATE VIEW samples AS SELECT left(split_part(table_of, '/', -4), 26) AS sweep, "
        "split_part(table_of, '/', -2) AS run, * EXCLUDE (filename, table_of) "
        rf"FROM (SELECT regexp_replace(filename, '/part-\d+\.parquet$', '') AS table_of, * "
        f"FROM read_parquet([{listed}], union_by_name = true, filename = true))"
    )


def _escaped(path: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", path)


def _lock(database: Any, files: Sequence[str]) -> None:
    """From here on nothing but these files can be read, nothing written, and no setting changed."""
    listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    database.execute(f"SET allowed_paths = [{listed}]")
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")


def _wrong(error: Exception) -> UserError:
    text = "\n".join(line for line in str(error).splitlines() if line.strip())
    return UserError(f"the question cannot be answered: {text[:2000]}")
