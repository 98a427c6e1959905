"""Queries over the runs of a store, compiled to SQLAlchemy over the catalog.

A metric, parameter or tag that a query names becomes one outer join on the primary key, so that a search
costs one look-up a run and name. A comparison with what a run does not have is false, and `not` of it true.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import sqlalchemy as sa

from evalrun.canonical import canonical_json
from evalrun.tracking.query.tree import (
    Call,
    Compare,
    Contains,
    Holds,
    Literal_,
    Name,
    Node,
    Not,
    OneOf,
    Operand,
    Query,
    Several,
    Value,
    did_you_mean,
    did_you_mean_name,
    fault,
)
from evalrun.tracking.tables import dataset_version, project, run, run_metric, run_param, sweep, sweep_tag

Kind: TypeAlias = Literal["number", "text", "bool", "any"]
Condition: TypeAlias = sa.ColumnElement[bool]

_COLUMNS: Mapping[str, tuple[sa.ColumnElement[Any], Kind]] = {
    "sweep": (sweep.c.ulid, "text"),
    "name": (sweep.c.name, "text"),
    "project": (project.c.name, "text"),
    "status": (sweep.c.status, "text"),
    "started_at": (sweep.c.started_at, "text"),
    "finished_at": (sweep.c.finished_at, "text"),
    "exit_code": (sweep.c.exit_code, "number"),
    "user": (sweep.c.user_name, "text"),
    "git_commit": (sweep.c.git_commit, "text"),
    "spec_digest": (sweep.c.spec_digest, "text"),
    "archived": (sweep.c.archived, "bool"),
    "note": (sweep.c.note, "text"),
    "run": (run.c.run, "text"),
    "model": (run.c.model, "text"),
    "prompt": (run.c.prompt, "text"),
    "prompt_digest": (run.c.prompt_digest, "text"),
    "dataset": (run.c.dataset, "text"),
    "dataset_digest": (dataset_version.c.digest, "text"),
    "run_status": (run.c.status, "text"),
    "repeats": (run.c.repeats, "number"),
    "samples": (run.c.samples, "number"),
    "scored": (run.c.scored, "number"),
    "unparsed": (run.c.unparsed, "number"),
    "refused": (run.c.refused, "number"),
    "failed": (run.c.failed, "number"),
    "cached": (run.c.cached, "number"),
    "retried": (run.c.retried, "number"),
    "wall_s": (run.c.wall_s, "number"),
}
_ALIASES: Mapping[str, tuple[str, ...]] = {"cost": ("metric", "cost.usd")}
_GROUPS = ("metric", "param", "tag")
METRIC_PARTS = ("value", "n", "se", "ci_low", "ci_high")
_MOST_JOINS = 40
"""SQLite joins 64 tables at most; without any metric, parameter or tag there are four."""

FIELDS: tuple[str, ...] = (*_COLUMNS, *_ALIASES, *(f"{group}.<name>" for group in _GROUPS))
"""What a query over runs can speak of."""

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Term:
    """A name as SQL. Of kind "any" (parameters) are those whose type is only known row by row."""

    kind: Kind
    sql: sa.ColumnElement[Any]
    type: sa.ColumnElement[str] | None = None
    text: sa.ColumnElement[str] | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """A metric that a query names: shown with its results."""

    name: str
    slice: str
    table: Any


@dataclass(slots=True)
class Compiler:
    """Compiles one query, and what its results are sorted by. `source` is FROM with all joins, and `names`
    are the columns that were spoken of."""

    connection: sa.Connection
    text: str = ""
    source: sa.FromClause = field(
        default_factory=lambda: (
            run.join(sweep, run.c.sweep == sweep.c.ulid)
            .join(project, sweep.c.project_id == project.c.id)
            .outerjoin(dataset_version, run.c.dataset_version_id == dataset_version.c.id)
        )
    )
    metrics: dict[tuple[str, str], Named] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    _terms: dict[tuple[str, ...], Any] = field(default_factory=dict)

    def condition(self, query: Query) -> Condition:
        """The WHERE of a query. Raises UserError that points at an unknown name or a wrong type."""
        self.text = query.text
        return sa.true() if query.node is None else self._node(query.node)

    def term(self, text: str, name: Name) -> Term:
        """One name, to sort by."""
        self.text = text
        return self._name(name)

    def metric(self, name: str) -> None:
        """A metric to show beside the results."""
        self.text = f"metric.{name}"
        self._metric(Name(("metric", name), place=_whole(self.text)))

    # Conditions

    def _node(self, node: Node) -> Condition:
        match node:
            case Several(op, nodes):
                parts = [self._node(each) for each in nodes]
                return sa.and_(*parts) if op == "and" else sa.or_(*parts)
            case Not(inner):
                return sa.not_(self._node(inner))
            case Holds(name):
                return self._certain(self._compare(self._name(name), "==", Literal_(True, name.place), node))
            case Contains(needle, haystack):
                return self._contains(needle, haystack)
            case OneOf(operand, values):
                return self._one_of(self._operand(operand), values, node)
            case Compare():
                return self._comparison(node)

    def _comparison(self, node: Compare) -> Condition:
        left = self._operand(node.left)
        if isinstance(node.right, Literal_):
            if node.right.value is None:
                return self._missing(left, node)
            return self._certain(self._compare(left, node.op, node.right, node))
        right = self._operand(node.right)
        return self._certain(self._both(left, right, node))

    def _missing(self, term: Term, node: Compare) -> Condition:
        if node.op not in ("==", "!="):
            raise fault(self.text, node.place, "None can only be compared with == and !=")
        known = term.sql if term.type is None else term.type
        return known.is_(None) if node.op == "==" else known.is_not(None)

    def _compare(self, term: Term, op: str, literal: Literal_, node: Compare | OneOf | Holds) -> Condition:
        value, compare = literal.value, _OPERATORS[op]
        wanted = _kind_of(value)
        if wanted == "bool" and op not in ("==", "!="):
            raise fault(self.text, node.place, "True and False can only be compared with == and !=")
        if term.kind == "any":
            return self._compare_any(term, op, value, wanted)
        if term.kind != wanted:
            raise fault(
                self.text,
                node.place,
                f"a {_WORDS[term.kind]} is compared with a {_WORDS[wanted]}",
                "Text goes in quotes, numbers stand without." if "bool" not in (term.kind, wanted) else "",
            )
        return _as_condition(compare(term.sql, _bound(value)))

    def _one_of(self, term: Term, values: Sequence[Literal_], node: OneOf) -> Condition:
        """One IN for the values of each type: databases nest ORs, and limit how deep."""
        for each in values:
            self._compare(term, "==", each, node)  # raises where the types do not fit
        kinds: dict[Kind, list[Any]] = {}
        for each in values:
            kinds.setdefault(_kind_of(each.value), []).append(_bound(each.value))
        if term.type is None or term.text is None:
            (listed,) = kinds.values()
            return self._certain(term.sql.in_(listed))
        columns = {kind: term.text if kind == "text" else term.sql for kind in kinds}
        parts = [sa.and_(term.type == kind, columns[kind].in_(listed)) for kind, listed in kinds.items()]
        return self._certain(sa.or_(*parts))

    def _compare_any(self, term: Term, op: str, value: Value, wanted: Kind) -> Condition:
        """A parameter: equal only to values of its own type, and different from all others."""
        if term.type is None or term.text is None:
            raise AssertionError("a term of any kind has its type and text")
        column = term.text if wanted == "text" else term.sql
        if op == "!=":
            return sa.and_(term.type.is_not(None), sa.not_(self._compare_any(term, "==", value, wanted)))
        compared = _as_condition(_OPERATORS[op](column, _bound(value)))
        return self._certain(sa.and_(term.type == wanted, compared))

    def _both(self, left: Term, right: Term, node: Compare) -> Condition:
        compare = _OPERATORS[node.op]
        kinds = {left.kind, right.kind} - {"any"}
        if len(kinds) > 1:
            what = f"a {_WORDS[left.kind]} is compared with a {_WORDS[right.kind]}"
            raise fault(self.text, node.place, what)
        if kinds:
            (kind,) = kinds
            column = _text_of if kind == "text" else _number_of
            same = [term.type == kind for term in (left, right) if term.type is not None]
            return sa.and_(*same, _as_condition(compare(column(left), column(right))))
        if left.type is None or right.type is None:
            raise AssertionError("a term of any kind has its type")
        numbers = sa.and_(left.type == "number", compare(left.sql, right.sql))
        texts = sa.and_(left.type != "number", compare(left.text, right.text))
        return sa.and_(left.type == right.type, sa.or_(numbers, texts))

    def _contains(self, needle: Literal_, haystack: Name | Call) -> Condition:
        term = self._operand(haystack)
        if term.kind not in ("text", "any"):
            raise fault(self.text, haystack.place, f"this is a {_WORDS[term.kind]}, not a text")
        # Not LIKE: it would take % and _ for patterns, and SQLite's ignores case.
        place = sa.func.strpos if self._postgres else sa.func.instr
        return self._certain(place(_text_of(term), needle.value) > 0)

    @property
    def _postgres(self) -> bool:
        return self.connection.dialect.name == "postgresql"

    @staticmethod
    def _certain(condition: Condition) -> Condition:
        return sa.func.coalesce(condition, sa.false())

    # Names

    def _operand(self, operand: Operand) -> Term:
        if isinstance(operand, Literal_):
            raise AssertionError("the parser puts the name first")
        if isinstance(operand, Name):
            return self._name(operand)
        term = self._name(operand.argument)
        if term.kind not in ("text", "any"):
            raise fault(self.text, operand.place, f"{operand.function}() is for texts")
        made = (sa.func.length if operand.function == "len" else sa.func.lower)(_text_of(term))
        return Term("number" if operand.function == "len" else "text", made)

    def _name(self, name: Name) -> Term:
        if str(name) in _ALIASES:
            name = Name(_ALIASES[str(name)], name.place)
        if name.root == "metric" and name.rest:
            return self._metric(name)
        if name.keywords or name.part:
            raise fault(self.text, name.place, "only metric(…) has slices and parts")
        if name.root == "param" and name.rest:
            return self._param(name)
        if name.root == "tag" and name.rest:
            return self._tag(name)
        if str(name) not in _COLUMNS:
            known = [*_COLUMNS, *_ALIASES, *(f"{each}.…" for each in _GROUPS)]
            hint = did_you_mean_name(str(name), known)
            raise fault(self.text, name.place, f"there is no '{name}'", hint)
        self.names.add(str(name))
        sql, kind = _COLUMNS[str(name)]
        return Term(kind, sql)

    def _metric(self, name: Name) -> Term:
        part = name.part or "value"
        if part not in METRIC_PARTS:
            raise fault(
                self.text, name.place, f"a metric has no '{part}'", did_you_mean(part, [*METRIC_PARTS])
            )
        slice_ = canonical_json(dict(name.keywords)).decode()
        key = (name.rest, slice_)
        if key not in self.metrics:
            self._check_known(run_metric.c.name, name, "metric")
            self._check_joins(name)
            table = run_metric.alias(f"m{len(self.metrics)}")
            on = sa.and_(table.c.run_id == run.c.id, table.c.name == name.rest, table.c.slice == slice_)
            self.source = self.source.outerjoin(table, on)
            self.metrics[key] = Named(name.rest, slice_, table)
        return Term("number", self.metrics[key].table.c[part])

    def _param(self, name: Name) -> Term:
        table = self._joined(run_param, run_param.c.key, name, "run_id", run.c.id)
        return Term("any", table.c.num, table.c.type, table.c.text)

    def _tag(self, name: Name) -> Term:
        return Term("text", self._joined(sweep_tag, sweep_tag.c.key, name, "sweep", sweep.c.ulid).c.value)

    def _joined(
        self, table: sa.Table, key: sa.Column[Any], name: Name, link: str, to: sa.ColumnElement[Any]
    ) -> Any:
        where = (name.root, name.rest)
        if where not in self._terms:
            self._check_known(key, name, name.root)
            self._check_joins(name)
            joined = table.alias(f"t{len(self._terms)}")
            on = sa.and_(joined.c[link] == to, joined.c.key == name.rest)
            self.source = self.source.outerjoin(joined, on)
            self._terms[where] = joined
        return self._terms[where]

    def _check_joins(self, name: Name) -> None:
        if len(self.metrics) + len(self._terms) >= _MOST_JOINS:
            what = f"a query speaks of at most {_MOST_JOINS} metrics, parameters and tags"
            raise fault(self.text, name.place, what)

    def _check_known(self, column: sa.Column[Any], name: Name, what: str) -> None:
        """A name that no run has is a slip of the pen, unless there are no runs."""
        if self.connection.scalar(sa.select(sa.literal(1)).where(column == name.rest).limit(1)):
            return
        known = [str(each) for each in self.connection.scalars(sa.select(column).distinct())]
        if known:
            words = did_you_mean(name.rest, known)
            raise fault(self.text, name.place, f"no run has a {what} '{name.rest}'", words)


_WORDS: Mapping[Kind, str] = {
    "number": "number", "text": "text", "bool": "truth value (True or False)", "any": "parameter",
}  # fmt: skip


def _kind_of(value: Value) -> Kind:
    if isinstance(value, bool):
        return "bool"
    return "text" if isinstance(value, str) else "number"


def _bound(value: Value) -> Any:
    """Numbers go over as doubles: a whole one may be too large for the column it is compared with."""
    return float(value) if isinstance(value, int | float) else value


def _text_of(term: Term) -> sa.ColumnElement[Any]:
    if term.type is None or term.text is None:
        return term.sql
    is_text: sa.ColumnElement[bool] = term.type == "text"
    text: sa.ColumnElement[Any] = sa.case((is_text, term.text))
    return text


def _number_of(term: Term) -> sa.ColumnElement[Any]:
    return term.sql


def _as_condition(sql: Any) -> Condition:
    condition: Condition = sql
    return condition


def _whole(text: str) -> Any:
    from evalrun.tracking.query.tree import Place

    return Place(0, len(text))
