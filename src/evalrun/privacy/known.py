"""Values of a row's own columns (names, addresses), found wherever they occur in a text."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

from evalrun.privacy.recognisers import digits_of
from evalrun.types import JSON

WORD = re.compile(r"\w+")
_SHORT_WORDS = frozenset(
    ["and", "the", "von", "van", "der", "den", "del", "dos", "das", "bin", "ibn", "san", "mrs"]
)


@dataclass(frozen=True, slots=True)
class Known:
    """A value that is to be removed, or a word of it: the `part` that is looked for, words one of which must
    occur for that (lower case; none for `digits`, in whatever groups), and what replaces it: a column's name,
    to be numbered, or a text. `whole` values are looked for before patterns are: words of names afterwards,
    since they occur in addresses."""

    value: str
    part: str
    hints: tuple[str, ...]
    column: str
    text: str = ""
    whole: bool = False
    digits: bool = False


def known_values(value: JSON, column: str, text: str = "", *, words: bool = True) -> list[Known]:
    """The value of a column in the forms in which it may occur in a text: as it is, escaped, percent-encoded,
    digits in other groups, and, with `words`, each word of a name of three letters or more. The value itself
    comes first."""
    if isinstance(value, Mapping | list):
        inner = value.values() if isinstance(value, Mapping) else value
        return [one for each in inner for one in known_values(each, column, text, words=words)]
    shown = str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    if len(shown) < 2:
        return []
    letters = all(each.isalpha() or each in " .'\u2019-" for each in shown)
    pieces = [word for word in re.split(r"[\s.]+", shown) if word]
    parts = [shown]
    if words and letters and len(pieces) > 1:
        parts += [word for word in pieces if len(word) >= 3 and word.lower() not in _SHORT_WORDS]
    known = [Known(shown, part, _hints(part), column, text, not letters) for part in parts]
    digits = re.sub(r"[\s().\-/]", "", shown)
    if len(digits) >= 6 and digits.lstrip("+").isdecimal():
        known.append(Known(shown, digits, (), column, text, whole=True, digits=True))
    return known


def without_known(text: str, known: Iterable[Known], placeholder: Callable[[str, str], str]) -> str:
    """The text without the values; `placeholder` gives what stands for a value of a column."""
    lower = text.lower()
    for one in known:
        there = digits_of(one.part) in digits_of(text) if one.digits else _hinted(one, lower)
        if not there:
            continue
        # To make a pattern of a value takes longer than all the rest: first it is looked for as it is.
        if not one.digits and text.isascii() and one.part.isascii():
            text = _without_plain(text, lower, one, placeholder)
            lower = text.lower()
            if not _hinted(one, lower):
                continue
        pattern = _pattern(one.part, one.digits)
        if pattern.search(text):
            put = one.text or placeholder(one.column, one.value)
            text = pattern.sub(put.replace("\\", ""), text)
            lower = text.lower()
    return text


def _hinted(one: Known, lower: str) -> bool:
    return any(hint in lower for hint in one.hints)


def _without_plain(text: str, lower: str, one: Known, placeholder: Callable[[str, str], str]) -> str:
    part = one.part.lower()
    parts, last, at = [], 0, lower.find(part)
    while at >= 0:
        end = at + len(part)
        if _is_of_word(lower[at - 1 : at]) or _is_of_word(lower[end : end + 1]):
            end = at + 1
        else:
            parts += [text[last:at], one.text or placeholder(one.column, one.value)]
            last = end
        at = lower.find(part, end)
    return "".join([*parts, text[last:]])


def _is_of_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _forms(part: str) -> set[str]:
    forms = {unicodedata.normalize(form, part) for form in ("NFC", "NFD")}
    return forms | {json.dumps(part)[1:-1], quote(part), quote(part, safe="")}


def _hints(part: str) -> tuple[str, ...]:
    """Words one of which stands in each form: of ASCII the first one, which none of them changes."""
    forms = {part} if part.isascii() and WORD.search(part) else _forms(part)
    return tuple({(WORD.findall(form.lower()) or [form.lower()])[0] for form in forms})


@lru_cache(1024)
def _pattern(part: str, digits: bool) -> re.Pattern[str]:
    if digits:
        loose = r"[\s().\-/]{0,3}".join(map(re.escape, part))
        return re.compile(rf"(?<!\d){loose}(?!\d)")
    forms = sorted(_forms(part), key=len, reverse=True)
    patterns = [r"\s+".join(map(re.escape, form.split())) for form in forms]
    return re.compile(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)", re.IGNORECASE)
