"""What scorers and parsers know of text: where words end, how it is made comparable, the numbers in it.

A number is an optional sign, an optional currency mark, digits with or without thousands separators,
decimals, an exponent: 1,234.5, $18, -3, .5, 1.2e-3. A sign counts only where it does not follow a letter, a
digit or a closing bracket, so 16-3 holds 16 and 3. A percent sign is not part of the value: 45% is 45. The
comma separates thousands, never decimals. 1/2 is two numbers.

In Chinese, Thai, Lao, Khmer, Burmese, and in kanji and katakana, the neighbour of a word is a letter of the
next one, and in Korean particles follow it: there a text counts wherever it stands. Elsewhere, and in the
short words of hiragana, a letter, digit or underscore beside it makes it part of a longer word.
"""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable
from functools import cache
from typing import Any, Final

_UNSPACED: Final = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff"  # Hangul
    "\u30a0-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # katakana
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # ideographs
)
_IS_UNSPACED: Final = re.compile(f"[{_UNSPACED}]")
_SPACED_LETTER: Final = rf"[^\W{_UNSPACED}]"
_IS_SPACED_LETTER: Final = re.compile(_SPACED_LETTER)


def phrase(words: str) -> str:
    """A pattern for words with any white space between them."""
    return r"\s+".join(map(re.escape, words.split())) or r"(?!)"


def whole_phrase(words: str) -> str:
    """The same, as whole words."""
    return f"{start_of(words)}{phrase(words)}{end_of(words)}"


def start_of(words: str) -> str:
    """A pattern for the place before which no letter of the same word stands."""
    return "" if _IS_UNSPACED.match(words.strip()) else f"(?<!{_SPACED_LETTER})"


def end_of(words: str) -> str:
    """A pattern for the place after which no letter of the same word stands."""
    return "" if _IS_UNSPACED.match(words.strip()[-1:]) else f"(?!{_SPACED_LETTER})"


def stands_alone(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] is no part of a longer word."""
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    return not (
        (_IS_SPACED_LETTER.match(before) and not _IS_UNSPACED.match(text, start))
        or (_IS_SPACED_LETTER.match(after) and not _IS_UNSPACED.match(text, end - 1))
    )


@cache
def _punctuation_table() -> dict[int, None]:
    return {code: None for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] in "PS"}


def normalised(text: str, case: bool, punctuation: bool, whitespace: bool) -> str:
    """A text made comparable; ends are always stripped.

    Case: Unicode case folding (ß becomes ss). Punctuation: characters of the Unicode categories P
    (punctuation) and S (symbols) are deleted. White space: every run becomes one space.
    """
    if case:
        text = text.casefold()
    if punctuation:
        text = text.translate(_punctuation_table())
    return " ".join(text.split()) if whitespace else text.strip()


def normaliser(options: Any) -> Callable[[str], str]:
    """The same as a function, by the options ignore_case, ignore_punctuation and ignore_whitespace."""
    chosen = (options.ignore_case, options.ignore_punctuation, options.ignore_whitespace)
    return (lambda text: normalised(text, *chosen)) if any(chosen) else str.strip


_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_tokens(text: str) -> list[str]:
    """Words as the SQuAD evaluation script takes them: lower case, ASCII punctuation deleted, articles out.

    Source: normalize_answer of evaluate-v1.1.py and -v2.0.py of the SQuAD task (Rajpurkar et al. 2016).
    """
    return _ARTICLES.sub(" ", text.lower().translate(_ASCII_PUNCTUATION)).split()


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
    number = _WHOLE.fullmatch(text)
    return None if number is None else _value(*number.groups())


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


def slugs(
    labels: Iterable[str], *, other: str = r"[^\w]+", empty: str = "label", taken: Collection[str] = ()
) -> list[str]:
    """Labels as parts of metric names: lower case, other characters as _; equal or taken ones get numbers."""
    names: list[str] = []
    for label in labels:
        name = plain = re.sub(other, "_", label.strip().lower()).strip("_") or empty
        number = 2
        while name in names or name in taken:
            name, number = f"{plain}_{number}", number + 1
        names.append(name)
    return names
