"""Finding runs in the catalog: a query, an order, a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from evalrun.tracking.query.parse import parse, parse_name
from evalrun.tracking.query.runs import METRIC_PARTS, Compiler
from evalrun.tracking.query.tree import Query
from evalrun.tracking.rows import Found, RunRow
from evalrun.tracking.tables import event, project, run, run_metric, run_param, sweep, sweep_tag

_CHUNK = 500
"""Keys looked up at once: databases limit the values of a statement."""


@dataclass(frozen=True, slots=True)
class Search:
    """What to find: a query, the names to sort by (`-` in front: downwards), metrics to show, how many."""

    query: Query
    sort: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    limit: int | None = 50
    archived: bool = False

    @classmethod
    def of(
        cls,
        text: str = "",
        *,
        sort: Sequence[str] = (),
        metrics: Sequence[str] = (),
        limit: int | None = 50,
        archived: bool = False,
    ) -> Search:
        """Read the query's text. Raises UserError with a caret under what is wrong in it."""
        return cls(parse(text), tuple(sort), tuple(metrics), limit, archived)


def find(connection: sa.Connection, search: Search) -> Found:
    """Run a search. Without an order, the newest sweeps come first; what has no value comes last."""
    compiler = Compiler(connection)
    condition = compiler.condition(search.query)
    order = [each for text in search.sort for each in _order(compiler, text)]
    for name in search.metrics:
        compiler.metric(name)
    if not search.archived and "archived" not in compiler.names:
        condition = sa.and_(condition, sweep.c.archived == 0)
    order += [run.c.sweep.desc(), run.c.run]
    if search.limit is None:
        rows = _wide(connection, compiler, condition, order)
        return Found(len(rows), tuple(_rows(connection, rows, _labels(compiler))))
    # Counting all that fit means to keep them all for a moment: their keys, not their thirty columns.
    page = (
        sa.select(run.c.id, sa.func.count().over().label("total"))
        .select_from(compiler.source)
        .where(condition)
        .order_by(*order)
        .limit(search.limit)
    )
    found = list(connection.execute(page))
    ids = [row.id for row in found]
    known = {
        row["id"]: row
        for start in range(0, len(ids), _CHUNK)
        for row in _wide(connection, compiler, run.c.id.in_(ids[start : start + _CHUNK]))
    }
    # Whoever is entering a sweep anew at this moment has given its runs other keys.
    rows = [known[key] for key in ids if key in known]
    return Found(found[0].total if found else 0, tuple(_rows(connection, rows, _labels(compiler))))


def _wide(
    connection: sa.Connection,
    compiler: Compiler,
    condition: sa.ColumnElement[bool],
    order: Sequence[sa.ColumnElement[Any]] = (),
) -> list[Mapping[str, Any]]:
    """All that is shown of the runs for which the condition holds."""
    query = (
        sa.select(
            run,
            sweep.c.name.label("sweep_name"),
            sweep.c.started_at.label("sweep_started_at"),
            sweep.c.status.label("sweep_status"),
            project.c.name.label("project"),
            *(
                metric.table.c[part].label(f"metric_{at}_{part}")
                for at, metric in enumerate(compiler.metrics.values())
                for part in METRIC_PARTS
            ),
        )
        .select_from(compiler.source)
        .where(condition)
        .order_by(*order)
    )
    return [dict(row._mapping) for row in connection.execute(query)]


def folder_named(connection: sa.Connection, name: str) -> str | None:
    """The folder of the newest sweep of that name."""
    query = sa.select(sweep.c.folder).where(sweep.c.name == name).order_by(sweep.c.ulid.desc()).limit(1)
    return connection.scalar(query)


def events_of(connection: sa.Connection, actions: Sequence[str]) -> list[dict[str, Any]]:
    """The events of these kinds with their project, the oldest first; `detail` as JSON text."""
    query = (
        sa.select(event, project.c.name.label("project"))
        .join_from(event, sweep, event.c.sweep == sweep.c.ulid)
        .join(project, sweep.c.project_id == project.c.id)
        .where(event.c.action.in_(actions))
        .order_by(event.c.ts, event.c.sweep, event.c.seq)
    )
    return [dict(row._mapping) for row in connection.execute(query)]


def _order(compiler: Compiler, text: str) -> list[sa.ColumnElement[Any]]:
    downwards = text.startswith("-")
    term = compiler.term(*parse_name(text.removeprefix("-")))
    keys = [term.sql] if term.text is None else [term.sql, term.text]
    return [(key.desc() if downwards else key.asc()).nulls_last() for key in keys]


def _labels(compiler: Compiler) -> list[str]:
    return [_label(metric.name, metric.slice) for metric in compiler.metrics.values()]


def _label(name: str, slice_: str) -> str:
    groups = orjson.loads(slice_)
    return f"{name}[{','.join(f'{key}={value}' for key, value in groups.items())}]" if groups else name


def _rows(
    connection: sa.Connection, rows: Sequence[Mapping[str, Any]], labels: Sequence[str]
) -> list[RunRow]:
    ids = [row["id"] for row in rows]
    params, tags = _params(connection, ids), _tags(connection, {row["sweep"] for row in rows})
    costs = _costs(connection, ids)
    same = ("sweep", "run", "project", "model", "prompt", "dataset", "samples", "failed", "wall_s")
    return [
        RunRow(
            **{key: row[key] for key in same},
            name=row["sweep_name"],
            started_at=row["sweep_started_at"],
            status=row["sweep_status"],
            cost_usd=costs.get(row["id"]),
            params=params.get(row["id"], {}),
            tags=tags.get(row["sweep"], {}),
            metrics={label: _metric(row, at) for at, label in enumerate(labels)},
        )
        for row in rows
    ]


def _metric(row: Mapping[str, Any], at: int) -> dict[str, Any] | None:
    values = {part: row[f"metric_{at}_{part}"] for part in METRIC_PARTS}
    return values if values["n"] is not None else None


def _params(connection: sa.Connection, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for row in _looked_up(connection, run_param, run_param.c.run_id, ids):
        text = row["text"]
        found.setdefault(row["run_id"], {})[row["key"]] = text if row["type"] == "text" else _value(text)
    return found


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text  # one that was cut for the catalog


def _tags(connection: sa.Connection, sweeps: set[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for row in _looked_up(connection, sweep_tag, sweep_tag.c.sweep, sorted(sweeps)):
        found.setdefault(row["sweep"], {})[row["key"]] = row["value"]
    return found


def _costs(connection: sa.Connection, ids: Sequence[int]) -> dict[int, float]:
    of_cost = sa.and_(run_metric.c.name == "cost.usd", run_metric.c.slice == "{}")
    rows = _looked_up(connection, run_metric, run_metric.c.run_id, ids, of_cost)
    return {row["run_id"]: row["value"] for row in rows}


def _looked_up(
    connection: sa.Connection,
    table: sa.Table,
    key: sa.Column[Any],
    values: Sequence[Any],
    also: sa.ColumnElement[bool] | None = None,
) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    for start in range(0, len(values), _CHUNK):
        query = sa.select(table).where(key.in_(values[start : start + _CHUNK]))
        rows += [
            dict(row._mapping) for row in connection.execute(query if also is None else query.where(also))
        ]
    return rows
