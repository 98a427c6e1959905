"""Parsers and scorers that are functions.

    @scorer("same_length", summary="…", metric="Share of samples whose answer is as long as the target.")
    def same_length(answer, target, *, margin: int = 0) -> bool:
        return abs(len(answer) - len(target)) <= margin

A scorer function takes any of answer, target, output, row, status, tool_calls and likelihood, by these
names, and returns a bool, a number, None (cannot say), a mapping of several numbers, any of these with a
reason as a pair, or a Score. Of several numbers the one called `score`, else the first, is the score; the
mean of each is a metric `<scorer>.<name>`. A parser function takes the value and returns a value, or raises
Unparsed (a ValueError counts as that too). Its other arguments are its options, or a model of them is the
argument `options`. Without the decorator (`python: module:function` in a suite) they are given under `args`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from operator import attrgetter
from typing import Any, ClassVar, TypedDict, TypeVar, get_type_hints

from pydantic import BaseModel, create_model
from typing_extensions import Unpack

from evalrun.errors import UserError
from evalrun.scoring.base import (
    Component,
    Example,
    MetricInfo,
    Options,
    Parser,
    Scorer,
    ScorerOptions,
    ScoringInput,
    Unparsed,
    fraction,
    plain_value,
    shown,
)
from evalrun.scoring.text import slugs
from evalrun.types import JSON, Score

_GIVEN = ("answer", "target", "output", "row")
_ALSO_GIVEN = ("status", "tool_calls", "likelihood")
"""What a sample has besides; an argument with a default of its own is not filled by these."""

SCORE = "score"
"""The name, among several numbers that a function gives, of the score itself."""

Made = TypeVar("Made", bound=Callable[..., Any])


class Traits(TypedDict, total=False):
    """What a scorer may say of itself; see `Scorer`."""

    shorthand: str
    example: Example
    parts: tuple[str, ...]
    correctness: bool
    needs_target: bool
    target_unless: str
    unanswered_as_empty: bool


def scorer(
    name: str = "", *, summary: str = "", metric: str | tuple[MetricInfo, ...] = (), **traits: Unpack[Traits]
) -> Callable[[Made], Made]:
    """Declare a function, or a subclass of Scorer, as the scorer `name` (default: its own name).

    `metric` defines the mean of a score between 0 and 1, in sentences; or it is a tuple of metrics, named in
    the scorer ("" for the mean of its score, then its parts and figures). `summary` is a sentence for
    the references (default: the docstring's first line), `example` is shown there and checked by the tests.
    """
    defined = (fraction("", metric),) if isinstance(metric, str) else metric
    return _declared(name, summary, FunctionScorer, {**({"defined": defined} if defined else {}), **traits})


def parser(name: str = "", *, summary: str = "", shorthand: str | None = None) -> Callable[[Made], Made]:
    """Declare a function, or a subclass of Parser, as the parser `name` (default: its own name)."""
    return _declared(name, summary, FunctionParser, {"shorthand": shorthand} if shorthand else {})


def _declared(
    name: str, summary: str, base: type[Component], traits: Mapping[str, Any]
) -> Callable[[Made], Made]:
    def declare(made: Made) -> Made:
        known = name or made.__name__.strip("_").lower()
        said = {**traits, "registered": known, "summary": summary or (made.__doc__ or "").partition("\n")[0]}
        if isinstance(made, type):
            for key, value in said.items():
                setattr(made, key, value)
        else:
            made.__component__ = cache(partial(_component, made, base, said))  # type: ignore[attr-defined]
        return made

    return declare


def _component(function: Callable[..., Any], base: type[Component], said: dict[str, Any]) -> type[Component]:
    """The class of a declared function; the registry asks for it when a suite names it."""
    options, names = _options(function, base)
    own = {"Options": options, "function": staticmethod(function), "option_names": names}
    return type(function.__name__, (base,), {**said, **own, "__module__": function.__module__})


def _options(
    function: Callable[..., Any], base: type[Component]
) -> tuple[type[BaseModel], tuple[str, ...] | None]:
    """The model of a function's options, and the arguments that they are (None: one argument `options`)."""
    hints = get_type_hints(function, include_extras=True)
    if "options" in hints:
        return hints["options"], None
    parameters = list(inspect.signature(function).parameters.values())
    if base is FunctionParser:
        parameters = parameters[1:]
    fields: dict[str, Any] = {
        parameter.name: (
            hints.get(parameter.name, Any),
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in parameters
        if parameter.name not in (*_GIVEN, *_ALSO_GIVEN)
    }
    if not fields:
        return base.Options, ()
    title = "".join(word.capitalize() for word in function.__name__.split("_"))
    return create_model(f"{title}Options", __base__=base.Options, **fields), tuple(fields)


def _bound(made: FunctionParser | FunctionScorer) -> Callable[..., Any]:
    """A declared function with its options."""
    if made.option_names is None:
        return partial(made.function, options=made.options)
    return partial(made.function, **{name: getattr(made.options, name) for name in made.option_names})


class FunctionParser(Parser[Any]):
    """A function from value to value."""

    function: ClassVar[Callable[..., Any]]
    option_names: ClassVar[tuple[str, ...] | None] = ()

    def __init__(self, made: Callable[[JSON], JSON] | BaseModel) -> None:
        """Of a plain function; or, of a declared one, its options."""
        if isinstance(made, BaseModel):
            super().__init__(made)
            self._function = _bound(self)
        else:
            super().__init__(Options())
            self._function = made

    def parse(self, value: JSON) -> JSON:
        """What the function returns."""
        try:
            return self._function(value)
        except ValueError as error:
            raise Unparsed(str(error) or "the parser could not read it") from error


class FunctionScorer(Scorer[Any]):
    """A function from what is known of a sample to its score."""

    function: ClassVar[Callable[..., Any]]
    option_names: ClassVar[tuple[str, ...] | None] = ()
    target_unless: ClassVar[str] = ""
    """The option that stands in for a target."""

    def __init__(self, made: Callable[..., Any] | BaseModel) -> None:
        """Of a plain function; or, of a declared one, its options."""
        if isinstance(made, BaseModel):
            super().__init__(made)
            self._function = _bound(self)
            self.needs_target |= bool(self.target_unless) and getattr(made, self.target_unless) is None
        else:
            super().__init__(ScorerOptions())
            self._function = made
            plain = made.func if isinstance(made, partial) else made
            self.name = getattr(plain, "__name__", type(plain).__name__).strip("_").lower()
        self._wanted = _wanted(self._function, self.name)
        self._by_place = _by_place(self._function, self._wanted)

    def score(self, sample: ScoringInput) -> Score:
        """The function's verdict as a Score."""
        if self._by_place is not None:
            result = self._function(*self._by_place(sample))
        else:
            result = self._function(**{name: getattr(sample, name) for name in self._wanted})
        if isinstance(result, Score):
            return result
        value, reason = result if isinstance(result, tuple) else (result, "")
        value = plain_value(value)
        if isinstance(value, Mapping):
            return _several(value, reason)
        number = None if value is None else float(value)
        if number is not None and not math.isfinite(number):
            return Score(None, f"{self.name} gives {number}, which is no score")
        return Score(
            number, reason or f"{self.name} gives {shown(value)} for the answer {shown(sample.answer)}"
        )

    @classmethod
    def describe(cls, name: str) -> tuple[MetricInfo, ...]:
        """What the function's declaration says, else the mean of what it returns."""
        text = f"Mean over the samples of what the suite's own function {name} returns."
        return super().describe(name) or (MetricInfo(name, "score", "higher", text),)


def _several(values: Mapping[str, JSON], reason: str) -> Score:
    """The score of a function that gives several numbers by name. Texts among them are a reason."""
    flat = dict(_flat(values))
    said = {name: value for name, value in flat.items() if isinstance(value, str)}
    numbers = {name: value for name, value in flat.items() if name not in said}
    names = slugs(numbers, other=r"[^\w.]+", empty="part")
    parts = {
        name: None if value is None else float(value)
        for name, value in zip(names, numbers.values(), strict=True)
    }
    first = SCORE if SCORE in parts else next(iter(parts), None)
    score = None if first is None else parts[first]
    parts.pop(SCORE, None)
    told = said.pop("reason", "") or ", ".join(f"{name} {value}" for name, value in said.items())
    shown_parts = ", ".join(f"{name} {value}" for name, value in numbers.items())
    return Score(score, reason or told or shown_parts or "the scorer gave no number", parts)


def _flat(values: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{head}{name}.")
        else:
            yield f"{head}{name}", value


def _wanted(function: Callable[..., Any], name: str) -> tuple[str, ...]:
    """The arguments of a function that a sample gives; those bound before have defaults by now."""
    parameters: Mapping[str, inspect.Parameter] = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return _GIVEN
    open_ones = [parameter.name for parameter in parameters.values() if parameter.default is parameter.empty]
    missing = [open_one for open_one in open_ones if open_one not in (*_GIVEN, *_ALSO_GIVEN)]
    if missing:
        raise UserError(
            f"the scorer function '{name}' wants an argument '{missing[0]}' that no sample has",
            remedy=f"A scorer function may take {', '.join(_GIVEN)}; give others under args.",
        )
    given = [each for each in _GIVEN if each in parameters]
    return (*given, *(each for each in _ALSO_GIVEN if each in open_ones))


def _by_place(
    function: Callable[..., Any], wanted: tuple[str, ...]
) -> Callable[[Any], tuple[Any, ...]] | None:
    """What reads a function's first arguments off a sample, where it takes them by place: half the time."""
    leading = list(inspect.signature(function).parameters.values())[: len(wanted)]
    plain = all(each.kind is each.POSITIONAL_OR_KEYWORD for each in leading)
    return (
        attrgetter(*wanted)
        if len(wanted) > 1 and plain and [each.name for each in leading] == [*wanted]
        else None
    )
