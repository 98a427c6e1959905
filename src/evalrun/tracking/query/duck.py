"""Queries over the samples of a run, compiled to DuckDB SQL with bound values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

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
    did_you_mean_name,
    fault,
)

Kind: TypeAlias = Literal["number", "text", "bool"]

_SQL_OPERATORS: Mapping[str, str] = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_WORDS: Mapping[Kind, str] = {"number": "number", "text": "text", "bool": "truth value (True or False)"}
_GROUPS = ("score", "reason", "vars", "sensitive")


@dataclass(frozen=True, slots=True)
class _Term:
    kind: Kind
    sql: str


@dataclass(slots=True)
class SampleCompiler:
    """Compiles a query over columns given as name to kind. `values` are bound in the order of the text.

    A comparison with a value that a sample does not have is false, and `not` of it true.
    """

    columns: Mapping[str, Kind]
    text: str = ""
    values: list[Value] = field(default_factory=list)

    def condition(self, query: Query) -> str:
        """The text behind WHERE. Raises UserError that points at an unknown name or a wrong type."""
        self.text = query.text
        return "true" if query.node is None else self._node(query.node)

    def order(self, text: str, name: Name, downwards: bool) -> str:
        """The text behind ORDER BY; what is missing comes last."""
        self.text = text
        return f"{self._name(name).sql} {'DESC' if downwards else 'ASC'} NULLS LAST"

    def _node(self, node: Node) -> str:
        match node:
            case Several(op, nodes):
                return "(" + f" {op.upper()} ".join(self._node(each) for each in nodes) + ")"
            case Not(inner):
                return f"(NOT {self._node(inner)})"
            case Holds(name):
                return self._compare(self._name(name), "==", Literal_(True, name.place), node)
            case Contains(needle, haystack):
                term = self._operand(haystack)
                if term.kind != "text":
                    raise fault(self.text, haystack.place, f"this is a {_WORDS[term.kind]}, not a text")
                self.values.append(needle.value)
                return f"coalesce(contains({term.sql}, ?), false)"
            case OneOf(operand, values):
                return self._one_of(self._operand(operand), values, node)
            case Compare():
                return self._comparison(node)

    def _comparison(self, node: Compare) -> str:
        left = self._operand(node.left)
        if not isinstance(node.right, Literal_):
            right = self._operand(node.right)
            if left.kind != right.kind:
                what = f"a {_WORDS[left.kind]} is compared with a {_WORDS[right.kind]}"
                raise fault(self.text, node.place, what)
            return f"coalesce({left.sql} {_SQL_OPERATORS[node.op]} {right.sql}, false)"
        if node.right.value is not None:
            return self._compare(left, node.op, node.right, node)
        if node.op not in ("==", "!="):
            raise fault(self.text, node.place, "None can only be compared with == and !=")
        return f"({left.sql} IS {'NOT ' if node.op == '!=' else ''}NULL)"

    def _compare(self, term: _Term, op: str, literal: Literal_, node: Compare | OneOf | Holds) -> str:
        wanted = _kind_of(literal.value)
        if term.kind != wanted:
            raise fault(
                self.text,
                node.place,
                f"a {_WORDS[term.kind]} is compared with a {_WORDS[wanted]}",
                "Text goes in quotes, numbers stand without." if "bool" not in (term.kind, wanted) else "",
            )
        if wanted == "bool" and op not in ("==", "!="):
            raise fault(self.text, node.place, "True and False can only be compared with == and !=")
        self.values.append(literal.value)
        return f"coalesce({term.sql} {_SQL_OPERATORS[op]} ?, false)"

    def _one_of(self, term: _Term, values: Sequence[Literal_], node: OneOf) -> str:
        for each in values:
            self._compare(term, "==", each, node)  # raises where the types do not fit, and binds the value
        return f"coalesce({term.sql} IN ({', '.join('?' for _ in values)}), false)"

    def _operand(self, operand: Operand) -> _Term:
        if isinstance(operand, Literal_):
            raise AssertionError("the parser puts the name first")
        if isinstance(operand, Name):
            return self._name(operand)
        return self._call(operand)

    def _call(self, call: Call) -> _Term:
        term = self._name(call.argument)
        if term.kind != "text":
            raise fault(self.text, call.place, f"{call.function}() is for texts")
        kind: Kind = "number" if call.function == "len" else "text"
        return _Term(kind, f"{'length' if kind == 'number' else 'lower'}({term.sql})")

    def _name(self, name: Name) -> _Term:
        if name.keywords or name.part:
            raise fault(self.text, name.place, "samples have no slices or parts")
        column = str(name)
        if column not in self.columns:
            hint = did_you_mean_name(column, list(self.columns))
            for group in _GROUPS:
                if f"{group}.{column}" in self.columns:
                    hint = f"Did you mean '{group}.{column}'?"
            raise fault(self.text, name.place, f"samples have no '{column}'", hint)
        return _Term(self.columns[column], quoted(column))


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def kinds_of(columns: Sequence[tuple[str, Any]]) -> dict[str, Kind]:
    """Columns of a Parquet file, given as name and Arrow type, to the kinds of the query language."""
    return {name: _kind_of_type(str(kind)) for name, kind in columns}


def _kind_of_type(kind: str) -> Kind:
    if kind == "bool":
        return "bool"
    return "number" if kind.startswith(("int", "uint", "float", "double", "halffloat")) else "text"


def _kind_of(value: Value) -> Kind:
    if isinstance(value, bool):
        return "bool"
    return "text" if isinstance(value, str) else "number"
