"""Scores made from other scores of the same sample, such as "0.7*exact_match + 0.3*rouge.rouge_l".

A formula holds numbers, names of scores, + - * /, comparisons (1 where they hold, else 0), `and`, `or`,
`not`, brackets, and min, max and abs. It is read as Python syntax, every node of it is checked against that
list, and nothing else is ever evaluated. Being a value of each sample, a derived score has intervals and
paired tests like any other.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CodeType, MappingProxyType
from typing import Any

from evalrun.errors import Problem, UserError
from evalrun.floats import compared, tidy
from evalrun.registry import nearest
from evalrun.scoring.base import MetricInfo, Scorer, ScorerOptions, ScoringInput
from evalrun.suite.formula import FUNCTIONS, Bounds, FormulaError, bounds_of, names_in, parse_formula
from evalrun.types import Score

_FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType({"min": min, "max": max, "abs": abs})
assert set(_FUNCTIONS) == FUNCTIONS
_COMPARED = "compared"
_EVALUATED = {"__builtins__": {}, "_f": {**_FUNCTIONS, _COMPARED: compared}}
_SIGNS = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}


class Derived(Scorer):
    """A score that is a formula over the other scores of a sample."""

    summary = "A formula over the other scores of a sample."

    def __init__(self, name: str, formula: str) -> None:
        """Raises UserError where the formula is none."""
        super().__init__(ScorerOptions(name=name))
        self.formula = " ".join(formula.split())
        try:
            tree = parse_formula(formula)
        except FormulaError as error:
            raise UserError(str(error), where=f"derive.{name}", remedy=error.remedy) from None
        self.wanted = names_in(tree)
        self._columns: Mapping[str, str] = {each: each for each in self.wanted}
        self._tree = tree
        self._code: CodeType = _compiled(parse_formula(formula))
        self._bounds: Bounds = (None, None)

    def bind(self, columns: Mapping[str, str], bounds: Mapping[str, Bounds]) -> None:
        """Say which column of scores each name stands for (`classification.accuracy`: `classification`), and
        between which values it lies."""
        self._columns = {name: columns[name] for name in self.wanted}
        self._bounds = bounds_of(self._tree, bounds)

    @property
    def columns(self) -> frozenset[str]:
        """The columns of scores that it reads."""
        return frozenset(self._columns.values())

    def derive(self, scores: Mapping[str, float | None]) -> tuple[float | None, str]:
        """The value and its reason; no value where a score it needs has none, or where it divides by 0."""
        values: dict[str, float] = {}
        for name, column in self._columns.items():
            value = scores.get(column)
            if value is None:
                return None, f"there is no score {name}"
            values[name] = value
        try:
            result = tidy(float(eval(self._code, {**_EVALUATED, "_s": values})))
        except (ZeroDivisionError, OverflowError):
            result = math.nan
        if not math.isfinite(result):
            return None, f"{self.formula} has no value with {_listed(values)}"
        return result, f"{self.formula} with {_listed(values)}"

    def score(self, sample: ScoringInput) -> Score:
        """Not of use: it is computed from scores and not from a sample."""
        raise TypeError("a derived score is computed from other scores")

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The mean of the formula's values."""
        return (MetricInfo(name, "score", "higher", f"Mean over the samples of the suite's formula {name}."),)

    def metrics(self) -> tuple[MetricInfo, ...]:
        """The same, with the formula."""
        text = (
            f"{self.formula}, computed for each sample from its scores; the mean over the samples that have "
            "all of them."
        )
        return (MetricInfo(self.name, "score", "higher", text, self._bounds),)


def derived_in_order(scorers: Sequence[Scorer]) -> tuple[Derived, ...]:
    """The derived ones among the scorers, bound to the columns they read; each may use those before it.

    Raises UserError for names that no score of a sample has.
    """
    columns: dict[str, str] = {}
    bounds: dict[str, Bounds] = {}
    for scorer in scorers:
        if not isinstance(scorer, Derived):
            infos = scorer.metrics()
            columns |= {f"{scorer.name}.{part}": f"{scorer.name}.{part}" for part in scorer.parts}
            columns |= {infos[0].name: scorer.name, scorer.name: scorer.name}
            bounds |= {info.name: info.bounds for info in infos} | {scorer.name: infos[0].bounds}
    problems: list[Problem] = []
    derived = tuple(scorer for scorer in scorers if isinstance(scorer, Derived))
    corpus = {info.name for scorer in scorers for info in scorer.metrics()[1:]}
    for each in derived:
        unknown = [name for name in each.wanted if name not in columns]
        problems += [_unknown(each.name, name, columns, corpus) for name in unknown]
        if not unknown:
            each.bind(columns, bounds)
        columns[each.name] = each.name
        bounds[each.name] = each.metrics()[0].bounds
    if problems:
        raise UserError(problems)
    return derived


def _unknown(owner: str, name: str, known: Iterable[str], corpus: Iterable[str]) -> Problem:
    where = f"derive.{owner}"
    if name in corpus:
        return Problem(f"'{name}' is a figure of all samples together; no single sample has it", where)
    near = nearest(name, known)
    remedy = f"Did you mean '{near}'?" if near else f"There are: {', '.join(sorted(known))}."
    return Problem(f"there is no score '{name}'", where, remedy)


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value:.4g}" for name, value in values.items())


class _ToLookups(ast.NodeTransformer):
    """Names of scores become look-ups in `_s`, those of functions look-ups in `_f`. Comparisons become calls
    of one that is blind to rounding: 0.6 + 0.3 + 0.1 >= 1 holds."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        signs: ast.expr = ast.Constant(" ".join(_SIGNS[type(sign)] for sign in node.ops))
        values = [self.visit(value) for value in (node.left, *node.comparators)]
        return ast.Call(_lookup("_f", _COMPARED), [signs, *values], [])

    def visit_Call(self, node: ast.Call) -> ast.AST:
        assert isinstance(node.func, ast.Name)
        function = _lookup("_f", node.func.id)
        return ast.Call(function, [self.visit(each) for each in node.args], [])

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return _lookup("_s", node.id)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        return _lookup("_s", ast.unparse(node))


def _lookup(table: str, key: str) -> ast.Subscript:
    return ast.Subscript(ast.Name(table, ast.Load()), ast.Constant(key), ast.Load())


def _compiled(tree: ast.Expression) -> CodeType:
    return compile(ast.fix_missing_locations(_ToLookups().visit(tree)), "<derive>", "eval")
