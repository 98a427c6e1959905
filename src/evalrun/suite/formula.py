"""The formulas of `derive`: what they may hold. Reading one evaluates nothing."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Bounds: TypeAlias = tuple[float | None, float | None]
"""The least and the greatest possible value; None where there is none."""

FUNCTIONS = frozenset({"min", "max", "abs"})
MAX_CHARACTERS = 1_000
MAX_NODES = 250
"""Enough for forty weighted scores, and far from the depth at which Python stops."""

_ALLOWED = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.Call,
    ast.Attribute,
    ast.Name,
    ast.Constant,
    ast.Load,
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.UAdd, ast.USub),
    *(ast.And, ast.Or, ast.Not, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)


class FormulaError(ValueError):
    """What is wrong with a formula."""

    def __init__(self, what: str, remedy: str = "") -> None:
        self.remedy = remedy
        super().__init__(what)


def parse_formula(text: str) -> ast.Expression:
    """The formula as a syntax tree of allowed nodes only. Raises FormulaError."""
    if len(text) > MAX_CHARACTERS:
        raise FormulaError(f"a formula has at most {MAX_CHARACTERS} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise FormulaError(
            f"'{text}' is not a formula", 'Write it like "0.7*exact_match + 0.3*rouge.rouge_l".'
        ) from None
    nodes = list(ast.walk(tree))
    if len(nodes) > MAX_NODES:
        raise FormulaError("the formula is too long", "Derive a part of it under a name of its own.")
    for node in nodes:
        _check(node)
    if not names_in(tree):
        raise FormulaError(f"'{text}' names no score")
    return tree


def _check(node: ast.AST) -> None:
    if not isinstance(node, _ALLOWED):
        raise FormulaError(
            f"{_what(node)} is not allowed in a formula",
            "Use numbers, names of scores, + - * /, comparisons, and, or, not, min, max and abs.",
        )
    match node:
        case ast.Constant(value=bool() | str() | bytes() | None) | ast.Constant(value=complex()):
            raise FormulaError(f"{ast.unparse(node)} is not a number")
        case ast.Attribute(value=inner) if not isinstance(inner, ast.Name | ast.Attribute):
            raise FormulaError(f"'{ast.unparse(node)}' is not the name of a score")
        case ast.Call(func=function, args=arguments, keywords=keywords):
            if not isinstance(function, ast.Name) or function.id not in FUNCTIONS:
                name = ast.unparse(function)
                near = difflib.get_close_matches(name, FUNCTIONS, n=1)
                known = ", ".join(sorted(FUNCTIONS))
                raise FormulaError(
                    f"there is no function '{name}'",
                    f"Did you mean '{near[0]}'?" if near else f"There are: {known}.",
                )
            least = 1 if function.id == "abs" else 2
            if keywords or len(arguments) < least or (function.id == "abs" and len(arguments) > 1):
                raise FormulaError(f"'{ast.unparse(node)}': {function.id} takes {_arguments(function.id)}")


def _arguments(function: str) -> str:
    return "one value" if function == "abs" else "two values or more"


def _what(node: ast.AST) -> str:
    try:
        return f"'{ast.unparse(node)}'"
    except Exception:  # operators and the like have no text of their own
        return f"the operation {type(node).__name__}"


def names_in(tree: ast.Expression) -> tuple[str, ...]:
    """The names of scores in a formula, dotted ones whole, each once, in their order."""
    names: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Name | ast.Attribute):
            names.append(ast.unparse(node))
            return
        children = node.args if isinstance(node, ast.Call) else ast.iter_child_nodes(node)
        for child in children:
            visit(child)

    visit(tree)
    return tuple(dict.fromkeys(names))


_UNBOUNDED: Bounds = (None, None)


def bounds_of(tree: ast.AST, known: Mapping[str, Bounds]) -> Bounds:
    """Between which values a formula lies, given that of the scores it names (interval arithmetic).

    Never too narrow; too wide where a score stands in it twice, and unknown for most divisions.
    """
    match tree:
        case ast.Expression(body=body):
            return bounds_of(body, known)
        case ast.Constant(value=int() | float() as value):
            return float(value), float(value)
        case ast.Name() | ast.Attribute():
            return known.get(ast.unparse(tree), _UNBOUNDED)
        case ast.Compare() | ast.UnaryOp(op=ast.Not()):
            return 0.0, 1.0
        case ast.UnaryOp(op=operator, operand=operand):
            inner = bounds_of(operand, known)
            return _negated(inner) if isinstance(operator, ast.USub) else inner
        case ast.BinOp(left=left, op=operator, right=right):
            return _combined(bounds_of(left, known), operator, bounds_of(right, known))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _called(name, [bounds_of(argument, known) for argument in arguments])
    return _UNBOUNDED


def _negated(inner: Bounds) -> Bounds:
    low, high = inner
    return (None if high is None else -high), (None if low is None else -low)


def _combined(left: Bounds, operator: ast.operator, right: Bounds) -> Bounds:
    if isinstance(operator, ast.Sub):
        return _combined(left, ast.Add(), _negated(right))
    if isinstance(operator, ast.Add):
        low, high = ((None if a is None or b is None else a + b) for a, b in zip(left, right, strict=True))
        return low, high
    divided = isinstance(operator, ast.Div)
    if None in left or None in right or (divided and right[0] != right[1]) or (divided and not right[0]):
        return _UNBOUNDED
    ends = [a / b if divided else a * b for a in left for b in right]  # type: ignore[operator]
    return min(ends), max(ends)


def _called(name: str, arguments: Sequence[Bounds]) -> Bounds:
    lows, highs = [argument[0] for argument in arguments], [argument[1] for argument in arguments]
    if name == "abs":
        low, high = lows[0], highs[0]
        if low is None or high is None:
            return 0.0, None
        return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))
    # The least of several is at most the smallest of their greatest values; None is no limit.
    known_lows, known_highs = [each for each in lows if each is not None], [x for x in highs if x is not None]
    if name == "min":
        low = min(known_lows) if len(known_lows) == len(lows) else None
        return low, min(known_highs, default=None)
    high = max(known_highs) if len(known_highs) == len(highs) else None
    return max(known_lows, default=None), high
