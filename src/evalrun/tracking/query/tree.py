"""What a query says, as a small tree: the nodes that are allowed, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from evalrun.errors import UserError
from evalrun.registry import nearest

Operator: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">="]
Value: TypeAlias = str | int | float | bool | None

_SHOWN = 90
"""Characters of a query that a message shows around the place it speaks of."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the text something stands, in characters."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Literal_:
    """A value that was written down."""

    value: Value
    place: Place


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Call:
    """`len(x)` or `lower(x)`."""

    function: Literal["len", "lower"]
    argument: Name
    place: Place


Operand: TypeAlias = Literal_ | Name | Call


@dataclass(frozen=True, slots=True)
class Compare:
    """Two operands, not both literals."""

    op: Operator
    left: Operand
    right: Operand
    place: Place


@dataclass(frozen=True, slots=True)
class Contains:
    """`"needle" in haystack`."""

    needle: Literal_
    haystack: Name | Call
    place: Place


@dataclass(frozen=True, slots=True)
class OneOf:
    """`operand in (…, …)`; never empty."""

    operand: Name | Call
    values: tuple[Literal_, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Holds:
    """A name on its own, which must be true or false."""

    name: Name
    place: Place


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    node: Node


@dataclass(frozen=True, slots=True)
class Several:
    """All of them (`and`) or any (`or`)."""

    op: Literal["and", "or"]
    nodes: tuple[Node, ...]


Node: TypeAlias = Compare | Contains | OneOf | Holds | Not | Several


@dataclass(frozen=True, slots=True)
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


def did_you_mean(word: str, known: list[str]) -> str:
    """A sentence that helps with an unknown name."""
    near = nearest(word, known)
    if near:
        return f"Did you mean '{near}'?"
    shown = ", ".join(sorted(known)[:30])
    return f"There are: {shown}{', …' if len(known) > 30 else ''}." if known else "There are none yet."
