"""Numbers in texts, as people and models write them, kept exactly.

A number is an optional sign, an optional currency mark, digits with or without thousands separators,
decimals, an exponent: 1,234.5, $18, -3, .5, 1.2e-3, ½, 1½. A sign (a minus, a hyphen, an en dash) counts
only where it does not follow a letter, a digit or a closing bracket, so 16-3 holds 16 and 3. A percent sign
is not part of the value: 45% is 45. 1/2 is two numbers.

A comma or a point, whichever stands last, begins the decimals: 1,487.50 and 1.487,50 are the same. One comma
alone separates thousands where exactly three digits follow it and one to three, of which the first is not 0,
stand before it (1,234); else it begins decimals (15,00, 0,125, 3,14159). One point alone begins decimals.
Commas that do neither (1,2,3, and (3,4) in brackets) separate numbers. Thousands may also be separated by
apostrophes, thin or no-break spaces, and, where the text is nothing but a number with its unit or decimals
follow, by plain spaces.
"""

from __future__ import annotations

import math
import re
import unicodedata
from fractions import Fraction
from typing import Final, NamedTuple

from evalrun.types import JSON


class Number(NamedTuple):
    """A number as it was written: its exact value, the worth of the last place written (0 where it is exact:
    whole numbers and fractions), and whether it was written as a whole number."""

    value: Fraction
    place: Fraction = Fraction(0)
    whole: bool = False

    @property
    def is_float(self) -> bool:
        """Whether it has so many digits as only a computed number has, the last of which were rounded."""
        return (
            bool(self.place)
            and len(str(abs(self.value.numerator))) >= 15
            and self.place < abs(self.value) / 10**14
        )

    @property
    def plain(self) -> int | float:
        """The value as Python's own number."""
        return int(self.value) if self.whole else float(self.value)

    def times(self, factor: Fraction) -> Number:
        """The number in another unit."""
        value = self.value * factor
        return Number(value, self.place * factor, self.whole and value.denominator == 1)


_THIN: Final = "\u00a0\u2009\u202f"
_FRACTIONS: Final = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞↉"
_PATTERNS: Final = (
    rf"(?:\d{{1,9}}[ {_THIN}]?)?[{_FRACTIONS}]",
    r"\d{1,18}⁄\d{1,18}(?![eE]?\d)",
    r"(?!0,)\d{1,3}(?:,\d{3}){1,20}(?!\d|,\d)(?:\.\d+)?",
    r"\d{1,3}(?:\.\d{3}){1,20},\d+(?![.,]?\d)",
    r"\d{1,3}(?:\.\d{3}){2,20}(?![.,]?\d)",
    r"\d{1,3}(?:['’]\d{3}){1,20}(?!\d)(?:[.,]\d+)?",
    rf"\d{{1,3}}(?:[{_THIN}]\d{{3}}){{1,20}}(?!\d)(?:[.,]\d+)?",
    r"(?<![\d.,] )\d{1,3}(?: \d{3}){1,20},\d{1,2}(?![.,]?\d)",
    r"(?:(?<=[(\[{])|(?<=[(\[{]-))\d+(?=,-?\d+[)\]}])",
    r"(?<!\d,)(?<![\d.])(?:\d{1,3}|0|\d{4,}(?!,\d{3}(?!\d))),\d+(?![.,]?\d)",
    r"\d+(?:\.\d+)?",
    r"(?<![\d.])\.\d+",
)
_UNSIGNED: Final = f"(?:{'|'.join(_PATTERNS)})(?:(?<=\\d)[eE][+-]?\\d+)?"
_SIGN: Final = r"(?:(?<![\w)\]])[+-])?"
_CURRENCY: Final = r"[$€£¥₹₩₽]?"

NUMBER: Final = re.compile(f"({_SIGN}){_CURRENCY}({_SIGN})({_UNSIGNED})")
"""Applies to texts that `plain_signs` has gone over."""
_SPACED: Final = rf"\d{{1,3}}(?:[ {_THIN}]\d{{3}}){{1,20}}(?:[.,]\d+)?|{_UNSIGNED}"
_WHOLE: Final = re.compile(rf"\s*([+-]?)\s?{_CURRENCY}\s?([+-]?)({_SPACED})\s?[%$€£¥]?[.]?\s*")
_WITH_UNIT: Final = re.compile(
    rf"\s*{_CURRENCY}\s?([+-]?)(\d{{1,3}}(?: \d{{3}}){{1,20}}(?:[.,]\d+)?)"
    r"\s?(?:[^\W\d_]{1,12}|[%$€£¥])?[.]?\s*"
)
"""A number with plain spaces between thousands is one where the text is nothing else, but for a unit."""
_EXPONENT: Final = re.compile(r"(.*?)(?:[eE]([+-]?\d+))?", re.DOTALL)

_SIGNS: Final = {
    **{0xFF10 + at: str(at) for at in range(10)},
    **dict.fromkeys([0x2212, 0x2013, 0x2012, 0x2010, 0x2011, 0xFE63, 0xFF0D], "-"),
    0xFF0B: "+", 0xFF0E: ".", 0xFF05: "%", 0xFF04: "$", 0xFFE5: "¥", 0x066B: ".", 0x066C: ",", 0x2044: "⁄",
    0xFF08: "(", 0xFF09: ")", 0xFEFF: None, 0x200B: None, 0x2060: None, 0x200E: None, 0x200F: None,
}  # fmt: skip
_WIDE_COMMA: Final = re.compile(r"(?<=\d)，(?=\d{3}(?!\d))")

_BETWEEN_DIGITS: Final = frozenset("+-.,'’⁄ eE$€£¥₹₩₽(){}[]" + _THIN + _FRACTIONS)
"""What a number may hold besides digits, and what is to be seen before it."""
_GROUP: Final = re.compile(r"\d \d{3}(?!\d)")
_SHORT: Final = 96

_MAX_LENGTH: Final = 400
"""More digits than any answer has; beyond 4,300 Python refuses to read them."""


def plain_signs(text: str) -> str:
    """The text with full-width digits, dashes and Arabic decimal marks as ASCII has them."""
    if text.isascii():
        return text
    text = text.translate(_SIGNS)
    return _WIDE_COMMA.sub(",", text) if "，" in text else text


def last_number(text: str) -> Number | None:
    """The last number in the text, or None where there is none that can be held."""
    text = plain_signs(text)
    if len(text) <= _SHORT and _GROUP.search(text):
        spaced = _WITH_UNIT.fullmatch(text)
        if spaced is not None:
            return _number(spaced[1], "", spaced[2])
    # Only the end of the text is searched, from its last digit back: long texts cost no more than short ones.
    end = len(text)
    while end and not (text[end - 1].isdecimal() or text[end - 1] in _FRACTIONS):
        end -= 1
    begin, least = end, max(0, end - _MAX_LENGTH - 50)
    while begin > least and (text[begin - 1].isdecimal() or text[begin - 1] in _BETWEEN_DIGITS):
        begin -= 1
    run = text[begin:end].lstrip(" ")
    if run.isdecimal() and run.isascii() and text[end : end + 1] not in ("e", "E"):
        return Number(Fraction(int(run)), whole=True) if len(run) <= _MAX_LENGTH else None
    last = None
    for last in NUMBER.finditer(text, begin, end + 2):  # noqa: B007
        pass
    return None if last is None else _number(*last.groups())


def whole_number(text: str) -> Number | None:
    """The number that the whole text is, but for white space, a currency or percent sign and a full stop; or
    None."""
    number = _WHOLE.fullmatch(plain_signs(text))
    return None if number is None else _number(*number.groups())


def number_of(value: JSON) -> Number | None:
    """A JSON number as it is written; the last number in a text; None for all else."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return Number(Fraction(value), whole=True)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return _number("", "", repr(value)) if value >= 0 else _number("-", "", repr(-value))
    return last_number(value) if isinstance(value, str) else None


def near(answer: Number, target: Number, rel_tolerance: float) -> bool:
    """Whether two numbers are the same but for rounding: whole numbers and fractions exactly; what has
    decimals within the relative tolerance, and never by more than half of the last place that both have."""
    if answer.value == target.value:
        return True
    difference = abs(answer.value - target.value)
    place = max(answer.place, target.place)
    return difference <= place / 2 and difference <= Fraction(rel_tolerance) * abs(target.value)


def _number(sign: str, inner_sign: str, digits: str) -> Number | None:
    if len(digits) > _MAX_LENGTH:
        return None
    number = _fraction(digits) if digits[-1] in _FRACTIONS or "⁄" in digits else _decimal(digits)
    if number is None or "-" not in (sign, inner_sign):
        return number
    return number._replace(value=-number.value)


def _fraction(digits: str) -> Number | None:
    if "⁄" in digits:
        above, _, below = digits.partition("⁄")
        return Number(Fraction(int(above), int(below))) if int(below) else None
    whole = digits[:-1].strip()
    part = Fraction(unicodedata.numeric(digits[-1])).limit_denominator(100)
    return Number(part + int(whole or 0))


def _decimal(digits: str) -> Number | None:
    match = _EXPONENT.fullmatch(digits)
    assert match is not None
    mantissa, exponent = re.sub(rf"['’\s{_THIN}]", "", match[1]), int((match[2] or "0")[:6])
    whole, decimals = _parts(mantissa)
    if abs(exponent) > _MAX_LENGTH:
        return None if exponent > 0 else Number(Fraction(0))
    if not decimals and match[2] is None:
        return Number(Fraction(int(whole)), whole=True)
    place = Fraction(10) ** (exponent - len(decimals))
    value = int(whole + decimals or "0") * place
    try:
        float(value)
    except OverflowError:
        return None
    return Number(value, Fraction(0) if value.denominator == 1 and not decimals.strip("0") else place)


def _parts(mantissa: str) -> tuple[str, str]:
    """Digits before and after the decimal mark."""
    comma, point = mantissa.rfind(","), mantissa.rfind(".")
    if comma >= 0 and point >= 0:
        mark = max(comma, point)
    elif comma >= 0:
        groups = mantissa.split(",")
        thousands = (
            groups[0].strip("0") and len(groups[0]) <= 3 and all(len(each) == 3 for each in groups[1:])
        )
        mark = -1 if thousands and not mantissa.startswith("0") else comma
    else:
        mark = point if mantissa.count(".") == 1 else -1
    if mark < 0:
        return re.sub("[.,]", "", mantissa), ""
    return re.sub("[.,]", "", mantissa[:mark]) or "0", mantissa[mark + 1 :]
