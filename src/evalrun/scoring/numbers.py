"""Numbers in text, as people and models write them.

A number is an optional sign, an optional currency mark, digits with or without thousands separators,
decimals, an exponent: 1,234.5, $18, -3, .5, 1.2e-3. A sign counts only where it does not follow a letter, a
digit or a closing bracket, so 16-3 holds 16 and 3. A percent sign is not part of the value: 45% is 45. The
comma separates thousands, never decimals. 1/2 is two numbers.
"""

from __future__ import annotations

import re
from typing import Final

_UNSIGNED: Final = (
    r"(?:\d{1,3}(?:,\d{3}){1,20}(?!\d|,\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<![\d.])\.\d+)(?:[eE][+-]?\d+)?"
)
_SIGN: Final = r"(?:(?<![\w)\]])[+\-−])?"  # noqa: RUF001
_CURRENCY: Final = r"[$€£¥]?"

NUMBER: Final = re.compile(f"({_SIGN}){_CURRENCY}({_SIGN})({_UNSIGNED})")
_WHOLE: Final = re.compile(rf"\s*([+\-−]?)\s?{_CURRENCY}\s?([+\-−]?)({_UNSIGNED})\s?%?[.]?\s*")  # noqa: RUF001

_LAST_WORDS = 12
"""So many words are taken off the end before the rest is searched as one."""

_MAX_LENGTH = 400
"""More digits than any answer has; beyond 4,300 Python refuses to read them."""


def last_number(text: str) -> int | float | None:
    """The last number in the text, or None where there is none that can be held."""
    # A number holds no white space, so the last words are enough; long texts cost no more than short ones.
    for word in reversed(text.rsplit(None, _LAST_WORDS)):
        numbers = NUMBER.findall(word)
        if numbers:
            return _value(*numbers[-1])
    return None


def whole_number(text: str) -> int | float | None:
    """The number that the whole text is, but for white space, a percent sign and a full stop; or None."""
    found = _WHOLE.fullmatch(text)
    return None if found is None else _value(*found.groups())


def _value(sign: str, inner_sign: str, digits: str) -> int | float | None:
    if len(digits) > _MAX_LENGTH:
        return None
    plain = digits.replace(",", "")
    value: int | float
    if plain.isdecimal():
        value = int(plain)
    else:
        value = float(plain)
        if value in (float("inf"), float("-inf")):
            return None
    return -value if (sign or inner_sign) in ("-", "−") else value  # noqa: RUF001
