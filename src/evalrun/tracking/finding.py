"""Finding runs in the catalog: a query, an order, a page.

A metric, parameter or tag that a query names becomes one outer join on the primary key, so that a search
costs one look-up a run and name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import sqlalchemy as sa

from evalrun.canonical import canonical_json
from evalrun.tracking.compile import Compiler, Kind, Term
from evalrun.tracking.query import (
    Name,
    Place,
    Query,
    Value,
    did_you_mean,
    did_you_mean_name,
    fault,
    parse,
    parse_name,
)
from evalrun.tracking.tables import (
    RUN_COLUMNS,
    event,
    project,
    run,
    run_metric,
    run_param,
    runs_joined,
    sweep,
    sweep_tag,
    training,
    training_metric_last,
)

METRIC_PARTS = ("value", "n", "se", "ci_low", "ci_high", "incomplete", "bound_low", "bound_high")
_OF_INCOMPLETE = ("incomplete", "bound_low", "bound_high")
_ALIASES: Mapping[str, tuple[str, ...]] = {"cost": ("metric", "cost.usd")}
_GROUPS = ("metric", "param", "tag", "training")
_MOST_JOINS = 40
"""SQLite joins 64 tables at most; without any metric, parameter or tag there are four."""
_CHUNK = 500
"""Keys looked up at once: databases limit the values of a statement."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run that a query found. `metrics` holds those that the query names, by name and slice
    ("exact_match", "exact_match[dialect=aave]"), each with value, n, se and interval,
    incomplete ones with their bounds; None where it has none.
    """

    sweep: str
    run: str
    project: str
    name: str
    model: str
    prompt: str
    dataset: str
    status: str
    started_at: str
    samples: int
    failed: int
    cost_usd: float | None
    wall_s: float | None
    training: str | None
    step: int | None
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    metrics: Mapping[str, Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Found:
    """The runs that a query found: `total` in all, of which `rows` are shown."""

    total: int
    rows: tuple[RunRow, ...]


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


@dataclass(frozen=True, slots=True)
class _Metric:
    """A metric that a query names: shown with its results."""

    name: str
    slice: str
    table: Any


@dataclass
class _RunCompiler(Compiler):
    """Compiles queries over runs. `source` is FROM with all joins, and `names` are the columns spoken of."""

    connection: sa.Connection = field(kw_only=True)
    source: sa.FromClause = field(default_factory=runs_joined)
    metrics: dict[tuple[str, str], _Metric] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    _joined: dict[tuple[str, ...], Any] = field(default_factory=dict)

    def _position(self) -> str:
        return "strpos" if self.connection.dialect.name == "postgresql" else "instr"

    def where(self, query: Query) -> sa.ColumnElement[bool]:
        """The condition with its values."""
        text = sa.text(f"({self.condition(query)})")
        return sa.and_(sa.true(), text.bindparams(**self.values))

    def metric(self, name: str) -> None:
        """A metric to show beside the results."""
        self.text = f"metric.{name}"
        self._metric(Name(("metric", name), Place(0, len(self.text))))

    def _bound(self, value: Value) -> str:
        """Numbers go over as doubles: a whole one may be too large for the column it is compared with."""
        if isinstance(value, str):
            return super()._bound(value.replace("\0", "\ufffd"))  # as `tables.Text` keeps it
        return super()._bound(None if value is None else float(value))

    def _name(self, name: Name) -> Term:
        if str(name) in _ALIASES:
            name = Name(_ALIASES[str(name)], name.place)
        if name.root == "metric" and name.rest:
            return self._metric(name)
        if name.keywords or name.part:
            raise fault(self.text, name.place, "only metric(…) has slices and parts")
        if name.root == "param" and name.rest:
            table = self._join(run_param, run_param.c.key, name, "run_id", run.c.id)
            return Term("any", f"{table}.num", f"{table}.type", f"{table}.text")
        if name.root == "tag" and name.rest:
            table = self._join(sweep_tag, sweep_tag.c.key, name, "sweep", sweep.c.ulid)
            return Term("text", f"{table}.value", num=f"{table}.num")
        if name.root == "training" and name.rest:
            return Term("number", f"{self._training(name)}.value")
        if str(name) not in RUN_COLUMNS:
            known = [*RUN_COLUMNS, *_ALIASES, *(f"{group}.…" for group in _GROUPS)]
            raise fault(self.text, name.place, f"there is no '{name}'", did_you_mean_name(str(name), known))
        self.names.add(str(name))
        column = RUN_COLUMNS[str(name)]
        kind: Kind = "number" if isinstance(column.type, sa.Integer | sa.Float) else "text"
        return Term("bool" if column is sweep.c.archived else kind, str(column))

    def _metric(self, name: Name) -> Term:
        part = name.part or "value"
        if part not in METRIC_PARTS:
            words = did_you_mean(part, [*METRIC_PARTS])
            raise fault(self.text, name.place, f"a metric has no '{part}'", words)
        slice_ = canonical_json(dict(name.keywords)).decode()
        key = (name.rest, slice_)
        if key not in self.metrics:
            table = self._alias(run_metric, run_metric.c.name, name)
            on = sa.and_(table.c.run_id == run.c.id, table.c.name == name.rest, table.c.slice == slice_)
            self.source = self.source.outerjoin(table, on)
            self.metrics[key] = _Metric(name.rest, slice_, table)
        kind: Kind = "bool" if part == "incomplete" else "number"
        return Term(kind, f"{self.metrics[key].table.name}.{part}")

    def _join(
        self, table: sa.Table, key: sa.Column[Any], name: Name, link: str, to: sa.ColumnElement[Any]
    ) -> str:
        """The name of the table that was joined for a parameter or a tag."""
        if name.path not in self._joined:
            joined = self._alias(table, key, name)
            on = sa.and_(joined.c[link] == to, joined.c.key == name.rest)
            self.source = self.source.outerjoin(joined, on)
            self._joined[name.path] = joined
        return str(self._joined[name.path].name)

    def _training(self, name: Name) -> str:
        """The name of what was joined for the last value of a metric of the run's training: of several
        trainings of its name that of the newest."""
        if name.path not in self._joined:
            alias = self._alias(training_metric_last, training_metric_last.c.name, name)
            newest = sa.select(sa.func.max(training.c.ulid)).group_by(training.c.name)
            last = (
                sa.select(training.c.name.label("training"), training_metric_last.c.value)
                .join(training, training.c.ulid == training_metric_last.c.training)
                .where(training_metric_last.c.name == name.rest, training.c.ulid.in_(newest))
                .subquery(alias.name)
            )
            self.source = self.source.outerjoin(last, last.c.training == run.c.training)
            self._joined[name.path] = last
        return str(self._joined[name.path].name)

    def _alias(self, table: sa.Table, column: sa.Column[Any], name: Name) -> Any:
        """One table more to join. A name that no run has is a slip of the pen, unless there are no runs."""
        if not self.connection.scalar(sa.select(sa.literal(1)).where(column == name.rest).limit(1)):
            known = [str(other) for other in self.connection.scalars(sa.select(column).distinct())]
            if known:
                words = did_you_mean(name.rest, known)
                raise fault(self.text, name.place, f"no run has a {name.root} '{name.rest}'", words)
        joins = len(self.metrics) + len(self._joined)
        if joins >= _MOST_JOINS:
            what = f"a query speaks of at most {_MOST_JOINS} metrics, parameters and tags"
            raise fault(self.text, name.place, what)
        return table.alias(f"t{joins}")


def find(connection: sa.Connection, search: Search) -> Found:
    """Run a search. Without an order, the newest sweeps come first; what has no value comes last."""
    compiler = _RunCompiler(connection=connection)
    condition = compiler.where(search.query)
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
    compiler: _RunCompiler,
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


def _order(compiler: _RunCompiler, text: str) -> list[sa.ColumnElement[Any]]:
    term = compiler.term(*parse_name(text.removeprefix("-")))
    keys: list[sa.ColumnElement[Any]] = [
        sa.literal_column(sql) for sql in (term.num, term.sql, term.text) if sql
    ]
    return [(key.desc() if text.startswith("-") else key.asc()).nulls_last() for key in keys]


def _labels(compiler: _RunCompiler) -> list[str]:
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
    same = (
        "sweep",
        "run",
        "project",
        "model",
        "prompt",
        "dataset",
        "samples",
        "failed",
        "wall_s",
        "training",
        "step",
    )
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
    if values["n"] is None:
        return None
    if not values["incomplete"]:
        return {part: value for part, value in values.items() if part not in _OF_INCOMPLETE}
    return values | {"incomplete": True}


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
