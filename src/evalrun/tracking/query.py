"""The query language: small Python expressions become a tree of nodes, which is compiled to SQL, never run.

Python's own parser reads the text; everything that is not one of these nodes is refused.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import field
from typing import Literal, TypeAlias

from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.registry import nearest

Operator: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">="]
Value: TypeAlias = str | int | float | bool | None

_SHOWN = 90
"""Characters of a query that a message shows around the place it speaks of."""


@frozen
class Place:
    """Where in the text something stands, in characters."""

    start: int
    end: int


@frozen
class Literal_:
    """A value that was written down."""

    value: Value
    place: Place


@frozen
class Name:
    """A name: `model`, `tag.team`, `metric("exact_match", dialect="aave").ci_low`.

    `path` are its words (the first is the root). `keywords` are what was written in the call's brackets,
    and `part` is what stood behind it.
    """

    path: tuple[str, ...]
    place: Place
    keywords: Mapping[str, str] = field(default_factory=dict)
    part: str = ""

    @property
    def root(self) -> str:
        """The first word."""
        return self.path[0]

    @property
    def rest(self) -> str:
        """The words after the first, joined by dots."""
        return ".".join(self.path[1:])

    def __str__(self) -> str:
        return ".".join(self.path)


@frozen
class Call:
    """`len(x)` or `lower(x)`."""

    function: Literal["len", "lower"]
    argument: Name
    place: Place


Operand: TypeAlias = Literal_ | Name | Call


@frozen
class Compare:
    """Two operands, not both literals."""

    op: Operator
    left: Operand
    right: Operand
    place: Place


@frozen
class Contains:
    """`"needle" in haystack`."""

    needle: Literal_
    haystack: Name | Call
    place: Place


@frozen
class OneOf:
    """`operand in (…, …)`; never empty."""

    operand: Name | Call
    values: tuple[Literal_, ...]
    place: Place


@frozen
class Holds:
    """A name on its own, which must be true or false."""

    name: Name
    place: Place


@frozen
class Not:
    """The opposite."""

    node: Node


@frozen
class Several:
    """All of them (`and`) or any (`or`)."""

    op: Literal["and", "or"]
    nodes: tuple[Node, ...]


Node: TypeAlias = Compare | Contains | OneOf | Holds | Not | Several


@frozen
class Query:
    """A query as text and as tree; the tree is None where the text is empty, which finds everything."""

    text: str
    node: Node | None


def fault(text: str, place: Place, what: str, remedy: str = "") -> UserError:
    """The error that shows the text with a caret under the place."""
    start = max(0, min(place.start, len(text)) - _SHOWN // 2)
    shown = text[start : start + _SHOWN]
    before, after = ("… " if start else ""), (" …" if start + _SHOWN < len(text) else "")
    width = max(1, min(place.end, start + _SHOWN) - place.start)
    caret = " " * (len(before) + min(place.start, len(text)) - start) + "^" * width
    printable = "".join(char if char.isprintable() else "?" for char in shown)
    lines = [f"  {before}{printable}{after}", f"    {caret}"]
    return UserError(what, remedy="\n".join([*lines, f"  {remedy}"] if remedy else lines))


def did_you_mean_name(word: str, known: list[str]) -> str:
    """The same for a name that may have been meant as a text."""
    quotes = "" if nearest(word, known) else f'A text goes in quotes: "{word}". '
    return quotes + did_you_mean(word, known)


def spelled(name: str) -> str:
    """A name as a query takes it: `vars.text`, but `vars["Message text"]`."""
    root, dot, rest = name.partition(".")
    plain = all(part.isidentifier() for part in name.split("."))
    return name if plain or not dot or not root.isidentifier() else f"{root}[{json.dumps(rest)}]"


def did_you_mean(word: str, known: list[str]) -> str:
    """A sentence that helps with an unknown name."""
    near = nearest(word, known)
    if near:
        return f"Did you mean '{spelled(near)}'?"
    shown = ", ".join(map(spelled, sorted(known)[:30]))
    return f"There are: {shown}{', …' if len(known) > 30 else ''}." if known else "There are none yet."


MAX_LENGTH = 10_000
MAX_DEPTH = 50
MAX_COMPARISONS = 300
"""Databases limit how deep a condition is nested, and to them `a or b or c` is nested."""

_OPERATORS: Mapping[type[ast.cmpop], Operator] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
    ast.Is: "==", ast.IsNot: "!=",
}  # fmt: skip
_MIRRORED: Mapping[Operator, Operator] = {
    "<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!=",
}  # fmt: skip
_EXAMPLE = "For example: metric.exact_match > 0.8 and (\"llama\" in model or tag.team == 'nlp')"
_BRACKETS = (
    'Names that are not plain words go in brackets: metric("my-score"), tag["team name"]; of samples '
    'vars["Message text"].'
)
_SLIPS = (
    (re.compile(r"=(?!=)"), "To compare is ==."),
    (re.compile(r"<?>|like\b", re.IGNORECASE), '"Not equal" is !=, and a part of a text: "llama" in model.'),
    (
        re.compile(r"and\b|or\b|not\b|&|\|", re.IGNORECASE),
        "Conditions are joined by and, or, not, in small letters.",
    ),
)
"""What people write who come from SQL or C, where the parser stumbles over it, and what to write."""

_FUNCTIONS: Mapping[str, Literal["len", "lower"]] = {"len": "len", "lower": "lower"}


def parse(text: str) -> Query:
    """Read a query. Raises UserError that points at what is wrong."""
    if len(text) > MAX_LENGTH:
        raise UserError(f"the query is {len(text):,} characters long; {MAX_LENGTH:,} are allowed")
    text = text.replace("\r", " ").replace("\n", " ").replace("\t", " ").strip()
    if not text:
        return Query(text, None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in strings: they mean what they mean
            tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        raise _syntax_fault(text, error) from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise UserError(
            "the query cannot be read: it is nested too deeply or holds a character that none may",
            remedy=_EXAMPLE,
        ) from error
    return Query(text, _Reader(text).node(tree.body, 0))


def parse_name(text: str) -> tuple[str, Name]:
    """Read one name, as `--sort` takes it. Returns the text as read, for messages, and the name."""
    query = parse(text)
    if not isinstance(query.node, Holds):
        raise UserError(
            f"'{text[:80]}' is not the name of one thing", remedy="For example: metric.exact_match"
        )
    return query.text, query.node.name


def _syntax_fault(text: str, error: SyntaxError) -> UserError:
    # Where the text ends too soon, Python's parser gives no place, or one behind the end.
    at = min(error.offset - 1, len(text) - 1) if error.offset else len(text) - 1
    end = min((error.end_offset or 0) - 1, len(text))
    what = error.msg if "comma" not in error.msg else "invalid syntax"
    hint = next((words for form, words in _SLIPS if form.match(text[at:])), _BRACKETS)
    return fault(text, Place(at, max(end, at + 1)), f"the query cannot be read: {what}", f"{hint} {_EXAMPLE}")


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._ascii = text.isascii()
        self._bytes = text.encode("utf-8", "surrogatepass")
        self._comparisons = 0

    def node(self, tree: ast.expr, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self._fault(tree, f"nested more than {MAX_DEPTH} deep")
        if not isinstance(tree, ast.BoolOp | ast.UnaryOp):
            self._comparisons += len(tree.ops) if isinstance(tree, ast.Compare) else 1
        if self._comparisons > MAX_COMPARISONS:
            remedy = 'Many values of one name go into a list: model in ("a", "b").'
            raise self._fault(tree, f"a query has at most {MAX_COMPARISONS} comparisons", remedy)
        if isinstance(tree, ast.BoolOp):
            nodes = tuple(self.node(value, depth + 1) for value in tree.values)
            return Several("and" if isinstance(tree.op, ast.And) else "or", nodes)
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
            return Not(self.node(tree.operand, depth + 1))
        if isinstance(tree, ast.Compare):
            return self._comparison(tree)
        if isinstance(tree, ast.Name | ast.Attribute | ast.Subscript | ast.Call):
            operand = self._operand(tree)
            if isinstance(operand, Name):
                return Holds(operand, operand.place)
        raise self._fault(
            tree, "this is not a condition", "Compare it with something, as in " + _EXAMPLE[13:]
        )

    def _comparison(self, tree: ast.Compare) -> Node:
        """`a < b < c` means `a < b and b < c`, as in Python."""
        terms = [tree.left, *tree.comparators]
        nodes = [
            self._pair(op, left, right) for op, left, right in zip(tree.ops, terms, terms[1:], strict=False)
        ]
        return nodes[0] if len(nodes) == 1 else Several("and", tuple(nodes))

    def _pair(self, op: ast.cmpop, left: ast.expr, right: ast.expr) -> Node:
        place = Place(self._place(left).start, self._place(right).end)
        if isinstance(op, ast.In | ast.NotIn):
            node = self._membership(left, right, place)
            return Not(node) if isinstance(op, ast.NotIn) else node
        first, second = self._operand(left), self._operand(right)
        operator = _OPERATORS[type(op)]
        if isinstance(first, Literal_) and isinstance(second, Literal_):
            raise self._fault(left, "both sides are fixed values", "Compare a name with a value.", place)
        if isinstance(op, ast.Is | ast.IsNot) and not (
            isinstance(second, Literal_) and (second.value is None or isinstance(second.value, bool))
        ):
            raise self._fault(right, "'is' compares with None, True or False only", "Write == instead.")
        if isinstance(first, Literal_):
            return Compare(_MIRRORED[operator], second, first, place)
        return Compare(operator, first, second, place)

    def _membership(self, left: ast.expr, right: ast.expr, place: Place) -> Node:
        if isinstance(right, ast.Tuple | ast.List | ast.Set):
            operand = self._operand(left)
            if isinstance(operand, Literal_):
                raise self._fault(left, "a name must stand before 'in (…)'")
            values = [self._literal(elt) for elt in right.elts]
            if not values or any(value.value is None for value in values):
                raise self._fault(right, "the list needs values, and None is none")
            return OneOf(operand, tuple(values), place)
        needle = self._literal(left)
        if not isinstance(needle.value, str):
            raise self._fault(left, "only a text can be in a text")
        haystack = self._operand(right)
        if isinstance(haystack, Literal_):
            raise self._fault(right, "'in' needs a name or a list here", 'As in "llama" in model.')
        return Contains(needle, haystack, place)

    def _literal(self, tree: ast.expr) -> Literal_:
        operand = self._operand(tree)
        if not isinstance(operand, Literal_):
            raise self._fault(tree, "a fixed value must stand here: a text or a number")
        return operand

    def _operand(self, tree: ast.expr) -> Operand:
        place = self._place(tree)
        if isinstance(tree, ast.Constant):
            if tree.value is None or isinstance(tree.value, str | bool | int | float):
                return Literal_(self._checked(tree, tree.value), place)
            raise self._fault(tree, "only texts, numbers, True, False and None can be compared")
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub | ast.UAdd):
            value = tree.operand.value if isinstance(tree.operand, ast.Constant) else None
            if isinstance(value, int | float) and not isinstance(value, bool):
                sign = -1 if isinstance(tree.op, ast.USub) else 1
                return Literal_(self._checked(tree, sign * value), place)
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id in _FUNCTIONS:
            if len(tree.args) != 1 or tree.keywords:
                raise self._fault(tree, f"{tree.func.id}() takes one name")
            return Call(_FUNCTIONS[tree.func.id], self._only_name(tree.args[0]), place)
        return self._only_name(tree)

    def _checked(self, tree: ast.expr, value: Value) -> Value:
        if isinstance(value, str) and ("\x00" in value or not _encodable(value)):
            raise self._fault(tree, "a text with a character that no database can hold")
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            return float(value) if abs(value) < 10**300 else float("inf") * (1 if value > 0 else -1)
        return value

    def _only_name(self, tree: ast.expr) -> Name:
        name = self._name(tree)
        if name is None:
            hint = f"{_BRACKETS} {_EXAMPLE}" if isinstance(tree, ast.BinOp) else _EXAMPLE
            raise self._fault(tree, "this cannot stand in a query", hint)
        return name

    def _name(self, tree: ast.expr) -> Name | None:
        place = self._place(tree)
        if isinstance(tree, ast.Name):
            return Name((tree.id,), place)
        if isinstance(tree, ast.Attribute):
            inner = self._name(tree.value)
            if inner is None:
                return None
            if isinstance(tree.value, ast.Call):
                return Name(inner.path, place, inner.keywords, tree.attr)
            return Name((*inner.path, tree.attr), place, inner.keywords)
        if isinstance(tree, ast.Subscript):
            inner, key = self._name(tree.value), _text(tree.slice)
            return Name((*inner.path, key), place, inner.keywords) if inner and key is not None else None
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
            texts = [_text(each) for each in tree.args]
            slices = {keyword.arg: _text(keyword.value) for keyword in tree.keywords}
            if (
                len(texts) == 1
                and texts[0] is not None
                and None not in slices.values()
                and None not in slices
            ):
                keywords = {str(key): str(value) for key, value in slices.items()}
                return Name((tree.func.id, texts[0]), place, keywords)
        return None

    def _place(self, tree: ast.expr) -> Place:
        return Place(self._column(tree.col_offset), self._column(tree.end_col_offset or tree.col_offset + 1))

    def _column(self, offset: int) -> int:
        """Python counts bytes of UTF-8; people count characters."""
        return offset if self._ascii else len(self._bytes[:offset].decode("utf-8", "ignore"))

    def _fault(self, tree: ast.expr, what: str, remedy: str = "", place: Place | None = None) -> UserError:
        return fault(self._text, place or self._place(tree), what, remedy)


def _text(tree: ast.expr) -> str | None:
    return tree.value if isinstance(tree, ast.Constant) and isinstance(tree.value, str) else None


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
