r"""Small mathematics as people and models write it: 1/2, 0.5, 50 %, \frac{1}{2}, 3\sqrt{2}, 2^{10}, 1,234.

A recursive-descent reader of arithmetic; nothing is ever executed. Values are exact fractions as long as
that is possible, else floats. What it cannot read has no value, and is then compared as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TypeAlias

Value: TypeAlias = Fraction | float

MAX_CHARACTERS = 500
MAX_DEPTH = 40
MAX_POWER = 512
"""Greatest exponent that is worked out."""
MAX_BITS = 4096
"""Larger exact values become floats."""

_REMOVED = re.compile(
    r"\\left|\\right|\\displaystyle|\\limits|\\[,;:!> ]|\\quad|\\qquad|\\\(|\\\)|\\\[|\\\]|\$|~|\\\$|[€£¥]"
)
_WORDS_IN = re.compile(r"\\(?:text|mathrm|mbox|textbf|mathbf|operatorname)\s*\{([^{}]*)\}")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ\b)")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}|\\,)(?=\d{3}(?!\d))")
_SIGNS: Mapping[str, str] = {"−": "-", "–": "-", "×": "*", "·": "*", "÷": "/", "π": r"\pi ", "√": r"\sqrt "}  # noqa: RUF001
_NAMES: Mapping[str, str] = {
    r"\times": "*", r"\cdot": "*", r"\div": "/", r"\dfrac": r"\frac", r"\tfrac": r"\frac",
    r"\cfrac": r"\frac", r"\percent": "%", r"\%": "%", "**": "^",
}  # fmt: skip
_TOKEN = re.compile(r"\s*(\d+\.?\d*(?:[eE][+-]?\d{1,3})?|\.\d+|\\[a-zA-Z]+|[-+*/^%(){}\[\]°!])")


class Unreadable(ValueError):
    """A text that is no arithmetic."""


def boxed(text: str) -> str:
    r"""The contents of the last \boxed{…}, else the text itself."""
    start = None
    for match in _BOXED.finditer(text):
        start = match.end()
    if start is None:
        return text
    depth = 1
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start:at]
    return text[start:]


def plain(text: str) -> str:
    """The text without what only shapes how mathematics looks; units in words stay."""
    for sign, instead in _SIGNS.items():
        text = text.replace(sign, instead)
    text = _DEGREES.sub("°", _THOUSANDS.sub("", text))
    text = _WORDS_IN.sub(r" \1 ", _REMOVED.sub(" ", text))
    for name, instead in _NAMES.items():
        ends = r"(?![a-zA-Z])" if name[-1].isalpha() else ""
        text = re.sub(re.escape(name) + ends, instead.replace("\\", r"\\"), text)
    return " ".join(text.split()).rstrip(". ")


def value_of(text: str) -> Value | None:
    """The number that a text is, or None. `x = 3` counts as 3; LaTeX's \\text{…} (a unit) is passed over."""
    if len(text) > MAX_CHARACTERS:
        return None
    cleaned = plain(_WORDS_IN.sub(" ", text))
    _, equals, right = cleaned.rpartition("=")
    try:
        value = _Reader(right if equals else cleaned).whole()
    except (Unreadable, ZeroDivisionError, OverflowError, ValueError):
        return None
    return value if isinstance(value, Fraction) or math.isfinite(value) else None


def equal(left: Value, right: Value, rel_tolerance: float) -> bool:
    """Exact values by equality; others within the tolerance."""
    if left == right:
        return True
    try:
        return math.isclose(left, right, rel_tol=rel_tolerance, abs_tol=0.0)
    except OverflowError:
        return False


def comparable(text: str) -> str:
    """Text made comparable where it is no number: without spaces and outer dollars, braces around one
    character left out."""
    return re.sub(r"\{(\w)\}", r"\1", re.sub(r"\s+", "", plain(text))).casefold()


class _Reader:
    """sum: product (± product)*; product: factor ((* | / | nothing) factor)*; factor: ± power; power: postfix
    (^ factor)?; postfix: atom (% | !)*."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = []
        at = 0
        text = text.strip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise Unreadable(text[at:])
            self._tokens.append(match[1])
            at = match.end()
        self._at = 0
        self._depth = 0

    def whole(self) -> Value:
        value = self._sum()
        if self._at < len(self._tokens):
            raise Unreadable(self._tokens[self._at])
        return value

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, wanted: str = "") -> str:
        symbol = self._peek()
        if not symbol or (wanted and symbol != wanted):
            raise Unreadable(symbol)
        self._at += 1
        return symbol

    def _sum(self) -> Value:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("too deep")
        value = self._product()
        while self._peek() in ("+", "-"):
            sign = 1 if self._take() == "+" else -1
            value = _small(_both(value, self._product(), lambda a, b, s=sign: a + s * b))  # type: ignore[misc]
        self._depth -= 1
        return value

    def _product(self) -> Value:
        value = self._factor()
        while True:
            symbol = self._peek()
            if symbol == "*":
                self._take()
                value = _small(_both(value, self._factor(), lambda a, b: a * b))
            elif symbol == "/":
                self._take()
                value = _small(_both(value, self._factor(), lambda a, b: a / b))
            elif self._begins_fraction(symbol):
                value = self._mixed(value)
            elif symbol in ("(", "{", "[") or symbol.startswith("\\"):
                value = _small(_both(value, self._factor(), lambda a, b: a * b))
            else:
                return value

    def _begins_fraction(self, symbol: str) -> bool:
        r"""Whether a fraction follows a whole number: 2\frac{1}{2}, 2 1/2."""
        if not self._tokens[self._at - 1].isdecimal():
            return False
        following = self._tokens[self._at : self._at + 3]
        return symbol == "\\frac" or (len(following) == 3 and symbol.isdecimal() and following[1] == "/")

    def _mixed(self, whole: Value) -> Value:
        """A whole number and a fraction after it are their sum: two and a half."""
        part = self._factor()
        if self._peek() == "/":
            self._take()
            part = _both(part, self._factor(), lambda a, b: a / b)
        return _both(whole, part, lambda a, b: a + b if a >= 0 else a - b)

    def _factor(self) -> Value:
        signs = 1
        while self._peek() in ("+", "-"):
            signs *= 1 if self._take() == "+" else -1
        base = self._postfix()
        if self._peek() == "^":
            self._take()
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise Unreadable("too deep")
            base = _power(base, self._factor())
            self._depth -= 1
        return signs * base

    def _postfix(self) -> Value:
        value = self._atom()
        while self._peek() in ("%", "!", "°"):
            symbol = self._take()
            if symbol == "%":
                value = value / 100
            elif symbol == "!":
                value = _factorial(value)
        return value

    def _atom(self) -> Value:
        symbol = self._take()
        if symbol[0].isdigit() or symbol[0] == ".":
            return Fraction(symbol)
        closing = {"(": ")", "{": "}", "[": "]"}.get(symbol)
        if closing:
            value = self._sum()
            self._take(closing)
            return value
        if symbol == "\\frac":
            above, below = self._argument(), self._argument()
            return _small(_both(above, below, lambda a, b: a / b))
        if symbol == "\\sqrt":
            return self._root()
        if symbol == "\\pi":
            return math.pi
        raise Unreadable(symbol)

    def _argument(self) -> Value:
        r"""What follows \frac or \sqrt: braces, or one digit (\frac12)."""
        if self._peek() == "{":
            return self._atom()
        symbol = self._take()
        if not symbol.isdecimal():
            raise Unreadable(symbol)
        if len(symbol) > 1:
            self._at -= 1
            self._tokens[self._at] = symbol[1:]
        return Fraction(symbol[0])

    def _root(self) -> Value:
        degree: Value = Fraction(2)
        if self._peek() == "[":
            degree = self._atom()
        value = self._atom()
        if degree == 2 and isinstance(value, Fraction) and value >= 0:
            above, below = math.isqrt(value.numerator), math.isqrt(value.denominator)
            if above * above == value.numerator and below * below == value.denominator:
                return Fraction(above, below)
        if value < 0:
            raise Unreadable("a root of a negative number")
        root: float = float(value) ** (1 / float(degree))
        return root


def _both(left: Value, right: Value, operation: Callable[[Value, Value], Value]) -> Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return operation(left, right)
    return operation(float(left), float(right))


def _small(value: Value) -> Value:
    """Exact values of more digits than any answer has become floats."""
    if isinstance(value, Fraction):
        bits = max(value.numerator.bit_length(), value.denominator.bit_length())
        return value if bits <= MAX_BITS else float(value)
    return value


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        if abs(exponent) > MAX_POWER:
            raise Unreadable("a great power")
        return _small(base ** int(exponent))
    if base < 0:
        raise Unreadable("a root of a negative number")
    value: float = float(base) ** float(exponent)
    return value


def _factorial(value: Value) -> Value:
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= 50:
        raise Unreadable("a factorial")
    return Fraction(math.factorial(int(value)))
