"""Plain functions as parsers and scorers: `python: package.module:function` in a suite.

A parser function takes the value and returns a value, or raises Unparsed (a ValueError counts as that too).
A scorer function takes any of the arguments answer, target, output and row, by these names, and returns a
bool, a number, None (cannot say), a (number, reason) pair or a Score.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from evalrun.errors import UserError
from evalrun.scoring.base import (
    MetricInfo,
    Options,
    Parser,
    Scorer,
    ScorerOptions,
    ScoringInput,
    Unparsed,
    shown,
)
from evalrun.types import JSON, Score

_GIVEN = ("answer", "target", "output", "row")


class FunctionParser(Parser):
    """A function from value to value."""

    def __init__(self, function: Callable[[JSON], JSON]) -> None:
        super().__init__(Options())
        self._function = function

    def parse(self, value: JSON) -> JSON:
        """What the function returns."""
        try:
            return self._function(value)
        except ValueError as error:
            raise Unparsed(str(error) or "the parser could not read it") from error


class FunctionScorer(Scorer):
    """A function from what is known of a sample to its score."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(ScorerOptions())
        self._function = function
        plain = function.func if isinstance(function, partial) else function
        self.name = getattr(plain, "__name__", type(plain).__name__).strip("_").lower()
        self._wanted = _wanted(function, self.name)

    def score(self, sample: ScoringInput) -> Score:
        """The function's verdict as a Score."""
        result = self._function(**{name: getattr(sample, name) for name in self._wanted})
        if isinstance(result, Score):
            return result
        value, reason = result if isinstance(result, tuple) else (result, "")
        number = None if value is None else float(value)
        if number is not None and not math.isfinite(number):
            return Score(None, f"{self.name} gives {number}, which is no score")
        return Score(
            number, reason or f"{self.name} gives {shown(value)} for the answer {shown(sample.answer)}"
        )

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """The mean of what the function returns; its meaning is the suite author's."""
        text = f"Mean over the samples of what the suite's own function {name} returns."
        return (MetricInfo(name, "score", "higher", text),)


def _wanted(function: Callable[..., Any], name: str) -> tuple[str, ...]:
    parameters: Mapping[str, inspect.Parameter] = inspect.signature(function).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return _GIVEN
    missing = [
        each.name for each in parameters.values() if each.default is each.empty and each.name not in _GIVEN
    ]
    if missing:
        raise UserError(
            f"the scorer function '{name}' wants an argument '{missing[0]}' that no sample has",
            remedy=f"A scorer function may take {', '.join(_GIVEN)}; give others under args.",
        )
    return tuple(each for each in _GIVEN if each in parameters)
