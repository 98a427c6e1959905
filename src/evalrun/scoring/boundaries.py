"""Where a word begins and ends, also in scripts that are written without spaces between words.

In Chinese, Thai, Lao, Khmer, Burmese, and in kanji and katakana, the neighbour of a word is a letter of the
next one, and in Korean particles follow it: there a text counts wherever it stands. Elsewhere, and in the
short words of hiragana, a letter, digit or underscore beside it makes it part of a longer word.
"""

from __future__ import annotations

import re
from typing import Final

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
