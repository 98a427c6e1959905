"""Numbers as people mean them: 0.1 + 0.2 is 0.3, and a mean of three times 0.7 is no less than 0.7.

Sums and means of binary floating point numbers are off in the last digits. Whole numbers up to 2^53 are not,
so two of them are compared exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

RELATIVE, ABSOLUTE = 1e-9, 1e-12
"""Numbers that differ by less than this are the same: far above the rounding of a sum of a million terms, far
below any difference that a measurement could tell."""

_DIGITS, _SHORT = 12, 9


def same(a: float, b: float) -> bool:
    """Whether two numbers differ by rounding at most. Whole numbers are the same only where equal."""
    if a == b:
        return True
    if float(a).is_integer() and float(b).is_integer():
        return False
    return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


COMPARISONS: Mapping[str, Callable[[float, float], bool]] = MappingProxyType(
    {
        ">=": lambda a, b: a > b or same(a, b),
        "<=": lambda a, b: a < b or same(a, b),
        ">": lambda a, b: a > b and not same(a, b),
        "<": lambda a, b: a < b and not same(a, b),
        "==": same,
        "!=": lambda a, b: not same(a, b),
    }
)
"""Comparisons of numbers, blind to rounding."""


def tidy(value: float) -> float:
    """The number without the rounding of its computation: 0.9999999999999999 is 1.

    Only a number that rounding to 12 digits leaves with 9 at most is changed; 1/3 stays as it is.
    """
    if not math.isfinite(value) or value.is_integer():
        return value
    rounded = float(f"{value:.{_DIGITS - 1}e}")
    digits = f"{rounded:.{_DIGITS - 1}e}".partition("e")[0].lstrip("-").replace(".", "").rstrip("0")
    return rounded if len(digits) <= _SHORT else value


def compared(signs: str, *values: float) -> bool:
    """A chain of comparisons, `a <= b < c`, as Python reads it. `signs` stand with spaces between."""
    pairs = zip(signs.split(), values, values[1:], strict=False)
    return all(COMPARISONS[name](a, b) for name, a, b in pairs)
