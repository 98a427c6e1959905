"""Queries compiled to SQL text with bound values: what runs and samples have in common.

A comparison with what a row does not have is false, and `not` of it true.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from evalrun.frozen import frozen
from evalrun.tracking.query import (
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
    fault,
)

Kind: TypeAlias = Literal["number", "text", "bool", "any"]

_OPERATORS: Mapping[str, str] = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_WORDS: Mapping[Kind, str] = {
    "number": "number", "text": "text", "bool": "truth value (True or False)", "any": "parameter",
}  # fmt: skip


@frozen
class Term:
    """A name as SQL. Of kind "any" are those whose type is only known row by row: `sql` is then the value as
    a number, `text` as a text, and `type` says which of them counts. A text may also be meant as a number:
    `num` is that, null where it is none."""

    kind: Kind
    sql: str
    type: str = ""
    text: str = ""
    num: str = ""

    def meant(self, kind: Kind) -> Term:
        """The term as it is meant beside a value of this kind."""
        return Term("number", self.num) if self.num and kind == "number" else self

    def of(self, kind: Kind) -> str:
        """The value as one of this kind."""
        if self.type and kind == "text":
            return f"CASE WHEN {self.type} = 'text' THEN {self.text} END"
        return self.sql


@dataclass
class Compiler(ABC):
    """Compiles one query, and what its results are sorted by. `values` are bound by name."""

    text: str = ""
    values: dict[str, Value] = field(default_factory=dict)

    MARK: ClassVar[str] = ":"
    """What stands before the name of a bound value."""

    def condition(self, query: Query) -> str:
        """The text behind WHERE. Raises UserError that points at an unknown name or a wrong type."""
        self.text = query.text
        return "true" if query.node is None else self._node(query.node)

    def term(self, text: str, name: Name) -> Term:
        """One name, to sort by."""
        self.text = text
        return self._name(name)

    @abstractmethod
    def _name(self, name: Name) -> Term:
        """What a name means. Raises UserError that points at it where it means nothing."""

    def _position(self) -> str:
        """The function that finds a text in a text: not LIKE, which takes % and _ for patterns."""
        return "instr"

    def _bound(self, value: Value) -> str:
        key = f"v{len(self.values)}"
        self.values[key] = value
        return self.MARK + key

    def _node(self, node: Node) -> str:
        match node:
            case Several(op, nodes):
                return "(" + f" {op.upper()} ".join(self._node(part) for part in nodes) + ")"
            case Not(inner):
                return f"(NOT {self._node(inner)})"
            case Holds(name):
                return self._compare(self._name(name), "==", Literal_(True, name.place), node)
            case Contains(needle, haystack):
                term = self._operand(haystack)
                self._check_text(term, f"this is a {_WORDS[term.kind]}, not a text", haystack)
                return _certain(f"{self._position()}({term.of('text')}, {self._bound(needle.value)}) > 0")
            case OneOf(operand, values):
                return self._one_of(self._operand(operand), values, node)
            case Compare(_, left, Literal_() as right):
                return self._compare(self._operand(left), node.op, right, node)
            case Compare(_, left, right):
                return self._both(self._operand(left), self._operand(right), node)

    def _compare(self, term: Term, op: str, literal: Literal_, node: Compare | Holds) -> str:
        if literal.value is None:
            if op not in ("==", "!="):
                raise fault(self.text, node.place, "None can only be compared with == and !=")
            return f"({term.type or term.sql} IS {'NOT ' if op == '!=' else ''}NULL)"
        term = term.meant(_kind_of(literal.value))
        wanted = self._checked(term, op, literal, node)
        if term.kind != "any":
            return _certain(f"{term.sql} {_OPERATORS[op]} {self._bound(literal.value)}")
        # A parameter is equal only to values of its own type, and different from all others.
        if op == "!=":
            return f"({term.type} IS NOT NULL AND NOT {self._compare(term, '==', literal, node)})"
        column = term.text if wanted == "text" else term.sql
        compared = f"{column} {_OPERATORS[op]} {self._bound(literal.value)}"
        return _certain(f"{term.type} = '{wanted}' AND {compared}")

    def _checked(self, term: Term, op: str, literal: Literal_, node: Compare | OneOf | Holds) -> Kind:
        """The kind of a value that a term can be compared with."""
        wanted = _kind_of(literal.value)
        if wanted == "bool" and op not in ("==", "!="):
            raise fault(self.text, node.place, "True and False can only be compared with == and !=")
        if term.kind not in ("any", wanted):
            raise fault(
                self.text,
                node.place,
                f"a {_WORDS[term.kind]} is compared with a {_WORDS[wanted]}",
                "Text goes in quotes, numbers stand without." if "bool" not in (term.kind, wanted) else "",
            )
        return wanted

    def _one_of(self, term: Term, values: Sequence[Literal_], node: OneOf) -> str:
        """One IN for the values of each type: databases nest ORs, and limit how deep."""
        kinds: dict[Kind, list[str]] = {}
        for literal in values:
            meant = term.meant(_kind_of(literal.value))
            kinds.setdefault(self._checked(meant, "==", literal, node), []).append(self._bound(literal.value))
        parts = []
        for kind, bound in kinds.items():
            column = term.text if term.kind == "any" and kind == "text" else term.meant(kind).sql
            same = f"{term.type} = '{kind}' AND " if term.kind == "any" else ""
            parts.append(f"({same}{column} IN ({', '.join(bound)}))")
        return _certain(" OR ".join(parts))

    def _both(self, left: Term, right: Term, node: Compare) -> str:
        op = _OPERATORS[node.op]
        left, right = left.meant(right.kind), right.meant(left.kind)
        kinds = {left.kind, right.kind} - {"any"}
        if len(kinds) > 1:
            what = f"a {_WORDS[left.kind]} is compared with a {_WORDS[right.kind]}"
            raise fault(self.text, node.place, what)
        if kinds:
            (kind,) = kinds
            same = "".join(f"{term.type} = '{kind}' AND " for term in (left, right) if term.type)
            return _certain(f"{same}{left.of(kind)} {op} {right.of(kind)}")
        numbers = f"({left.type} = 'number' AND {left.sql} {op} {right.sql})"
        texts = f"({left.type} <> 'number' AND {left.text} {op} {right.text})"
        return _certain(f"{left.type} = {right.type} AND ({numbers} OR {texts})")

    def _operand(self, operand: Operand) -> Term:
        if isinstance(operand, Literal_):
            raise AssertionError("the parser puts the name first")
        if isinstance(operand, Name):
            return self._name(operand)
        term = self._name(operand.argument)
        self._check_text(term, f"{operand.function}() is for texts", operand)
        if operand.function == "len":
            return Term("number", f"length({term.of('text')})")
        return Term("text", f"lower({term.of('text')})")

    def _check_text(self, term: Term, what: str, operand: Name | Call) -> None:
        if term.kind not in ("text", "any"):
            raise fault(self.text, operand.place, what)


def _certain(condition: str) -> str:
    return f"coalesce({condition}, false)"


def _kind_of(value: Value) -> Kind:
    if isinstance(value, bool):
        return "bool"
    return "text" if isinstance(value, str) else "number"
