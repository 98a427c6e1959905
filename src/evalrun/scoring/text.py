"""What scorers and parsers know of text: where words end, and how it is made comparable.

In Chinese, Thai, Lao, Khmer, Burmese, and in kanji and katakana, the neighbour of a word is a letter of the
next one, and in Korean particles follow it: there a text counts wherever it stands. Elsewhere, and in the
short words of hiragana, a letter, digit or underscore beside it makes it part of a longer word.

Texts that look the same are the same: before they are compared they are brought into the Unicode form NFC,
and byte order marks, zero-width characters, soft hyphens and marks of direction are left out (`composed`).
"""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from typing import Any, Final, Literal

UNSPACED: Final = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff"  # Hangul
    "\u30a0-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # katakana
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # ideographs
)
_SPACED_LETTER: Final = rf"[^\W{UNSPACED}]"


# Made when they are first needed: these tables take longer than all the rest of a scorer's imports.
@cache
def _unspaced() -> re.Pattern[str]:
    return re.compile(f"[{UNSPACED}]")


@cache
def _spaced_letter() -> re.Pattern[str]:
    return re.compile(_SPACED_LETTER)


def phrase(words: str) -> str:
    """A pattern for words with any white space between them."""
    return r"\s+".join(map(re.escape, words.split())) or r"(?!)"


def whole_phrase(words: str) -> str:
    """The same, as whole words."""
    return f"{start_of(words)}{phrase(words)}{end_of(words)}"


def start_of(words: str) -> str:
    """A pattern for the place before which no letter of the same word stands."""
    return "" if _unspaced().match(words.strip()) else f"(?<!{_SPACED_LETTER})"


def end_of(words: str) -> str:
    """A pattern for the place after which no letter of the same word stands."""
    return "" if _unspaced().match(words.strip()[-1:]) else f"(?!{_SPACED_LETTER})"


def stands_alone(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] is no part of a longer word."""
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    return not (
        (_spaced_letter().match(before) and not _unspaced().match(text, start))
        or (_spaced_letter().match(after) and not _unspaced().match(text, end - 1))
    )


UnicodeForm = Literal["NFC", "NFKC", "none"]

_UNSEEN: Final = dict.fromkeys(
    [0xFEFF, 0x200B, 0x2060, 0x00AD, 0x200E, 0x200F, 0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)
_JOINERS: Final = "\u200c\u200d"
"""They shape letters and emoji within a word; at its ends they do nothing."""


def composed(text: str, form: UnicodeForm = "NFC") -> str:
    """The text in a Unicode form, without characters that nobody sees. "none" leaves it as it is."""
    if form == "none" or text.isascii():
        return text
    return unicodedata.normalize(form, text.translate(_UNSEEN)).strip(_JOINERS)


def unseen_difference(one: str, other: str) -> str:
    """In what two texts differ that look alike (full-width letters, ligatures, white space, characters that
    nobody sees), as the first characters that differ; empty where they differ in more, or not at all."""
    if one == other or (one.isascii() and other.isascii()):
        return ""
    alike = [" ".join(composed(text, "NFKC").replace("\u200c", "").replace("\u200d", "").split())
             for text in (one, other)]  # fmt: skip
    if alike[0] != alike[1]:
        return ""
    at = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if at is None:
        at = min(len(one), len(other))
    return f"they differ only in how they are encoded: {_named(one, at)} for {_named(other, at)}"


def _named(text: str, at: int) -> str:
    if at >= len(text):
        return "the end"
    return f"U+{ord(text[at]):04X} ({unicodedata.name(text[at], 'without a name').lower()})"


@cache
def _punctuation_table() -> dict[int, None]:
    """Characters of the categories P and S, without the symbols of mathematics: < is not >, C++ is not C."""
    return {
        code: None
        for code in range(sys.maxunicode + 1)
        if (category := unicodedata.category(chr(code)))[0] in "PS" and category != "Sm"
    }


_DASHES: Final = "-\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"
_MEANT: Final = re.compile(
    r"((?<=\d),(?!\d{3}(?:\D|$))(?=\d)"  # a decimal comma; thousands separators go
    r"|(?<=\d)[.:/*'’](?=\d)|(?<![\w.])\.(?=\d)|(?<=\w)\^(?=\w)"
    rf"|(?<![\w)\]])[{_DASHES}](?=[$€£¥]?[\d.]|[^\W\d_](?!\w))"  # a sign
    rf"|(?<=\d)[{_DASHES}](?=\d)|(?<=\w)#(?!\w)|(?<=\b[^\W\d_])[{_DASHES}](?!\w))"  # 3-4, C#, B-
)
"""Punctuation that is part of what is said: decimal points, signs, and what stands between digits."""


def _without_punctuation(text: str) -> str:
    table = _punctuation_table()
    kept = [
        ("-" if part in _DASHES else part) if at % 2 else part.translate(table)
        for at, part in enumerate(_MEANT.split(text))
    ]
    plain = "".join(kept)
    return plain if plain.strip() else text


def normalised(text: str, case: bool, punctuation: bool, whitespace: bool, form: UnicodeForm = "NFC") -> str:
    """A text made comparable; ends are always stripped.

    Unicode: see `composed`. Case: Unicode case folding (ß becomes ss). Punctuation: characters of the Unicode
    categories P (punctuation) and S (symbols) are deleted, but not what belongs to a number (3.14, -5, 12:30)
    nor symbols of mathematics, and never all there is. White space: every run becomes one space.
    """
    text = composed(text, form)
    if case:
        text = text.casefold()
    if punctuation:
        text = _without_punctuation(text)
    return " ".join(text.split()) if whitespace else text.strip()


def normaliser(options: Any) -> Callable[[str], str]:
    """The same as a function, by the options ignore_case, ignore_punctuation, ignore_whitespace, unicode."""
    chosen = (options.ignore_case, options.ignore_punctuation, options.ignore_whitespace)
    form: UnicodeForm = getattr(options, "unicode", "NFC")
    return lambda text: normalised(text, *chosen, form)


_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_tokens(text: str) -> list[str]:
    """Words as the SQuAD evaluation script takes them: lower case, ASCII punctuation deleted, articles out.

    Where that leaves nothing of a text, the articles stay, and then the punctuation: an empty answer is not
    the answer "A". Source: normalize_answer of evaluate-v1.1.py and -v2.0.py of the SQuAD task (Rajpurkar et
    al. 2016), which has them equal.
    """
    lower = composed(text).lower()
    bare = lower.translate(_ASCII_PUNCTUATION)
    return _ARTICLES.sub(" ", bare).split() or bare.split() or lower.split()


def plain_words(text: str) -> list[str]:
    """The same, but signs and decimal points stay, and so do symbols of mathematics: -5 is not 5."""
    lower = _without_punctuation(composed(text).lower())
    return _ARTICLES.sub(" ", lower).split() or lower.split()


_ZEROS: Final = re.compile(r"([+-]?(?:0|[1-9]\d{0,17}))\.0{1,18}")


def label_text(label: str, target: str = "") -> str:
    """A label made comparable: composed, without blank ends. 1.0 is 1, as tables write whole numbers where
    one is missing. Where the target is true or false, True and False (as Python prints them) are the same."""
    label = composed(label).strip()
    if "." in label and (number := _ZEROS.fullmatch(label)):
        return number[1]
    if target in ("true", "false") and label.lower() in ("true", "false"):
        return label.lower()
    return label


def truth_values(answers: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
    """Answers made comparable by the rule of `label_text` where all targets are true or false."""
    truths = bool(targets) and all(target.strip() in ("true", "false") for target in targets)
    return tuple(label_text(answer, "true") if truths else answer for answer in answers)


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
