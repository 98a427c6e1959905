"""Changes of a text that leave its meaning as it is, or change one attribute in it.

Each takes a text and a source of randomness, and depends on nothing else.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

_WORD: Final = re.compile(r"[^\W\d_]{4,}")
_NEAR: Final[Mapping[str, str]] = {
    "a": "qsz", "b": "vghn", "c": "xdfv", "d": "serfcx", "e": "wsdr", "f": "drtgvc", "g": "ftyhbv",
    "h": "gyujnb", "i": "ujko", "j": "huikmn", "k": "jiolm", "l": "kop", "m": "njk", "n": "bhjm",
    "o": "iklp", "p": "ol", "q": "wa", "r": "edft", "s": "awedxz", "t": "rfgy", "u": "yhji", "v": "cfgb",
    "w": "qase", "x": "zsdc", "y": "tghu", "z": "asx",
}  # fmt: skip
"""Keys beside a key (QWERTY)."""


def typos(text: str, rate: float, rng: random.Random) -> str:
    """One slip in a share `rate` of the words of four letters or more: two letters swapped, one left out,
    doubled, or a neighbouring key. First letters, digits and marks stay; at least one word changes."""
    words = list(_WORD.finditer(text))
    if not words:
        return text
    chosen = [word for word in words if rng.random() < rate] or [rng.choice(words)]
    for word in reversed(chosen):
        text = text[: word.start()] + _slip(word.group(), rng) + text[word.end() :]
    return text


def _slip(word: str, rng: random.Random) -> str:
    for _ in range(20):
        at = rng.randrange(1, len(word) - 1)
        letter = word[at]
        match rng.randrange(4):
            case 0:
                made = word[:at] + word[at + 1] + letter + word[at + 2 :]
            case 1:
                made = word[:at] + word[at + 1 :]
            case 2:
                made = word[:at] + letter + word[at:]
            case _:
                near = _NEAR.get(letter.lower())
                new = rng.choice(near) if near else letter
                made = word[:at] + (new.upper() if letter.isupper() else new) + word[at + 1 :]
        if made != word:
            return made
    return word


def letter_case(text: str, how: str, rng: random.Random) -> str:
    """All letters upper, lower, title, or each either way."""
    match how:
        case "upper":
            return text.upper()
        case "lower":
            return text.lower()
        case "title":
            return re.sub(r"[^\W\d_]+('[^\W\d_]+)?", lambda word: word.group().capitalize(), text)
    return "".join(letter.upper() if rng.random() < 0.5 else letter.lower() for letter in text)


_WIDER: Final = ("  ", "   ", " \t", "\n", " \n ")


def whitespace(text: str, rate: float, rng: random.Random) -> str:
    """A share `rate` of the single spaces made wider, at least one of them."""
    places = [match.start() for match in re.finditer(r"(?<=\S) (?=\S)", text)]
    if not places:
        return f"{text} "
    for at in reversed([each for each in places if rng.random() < rate] or [rng.choice(places)]):
        text = text[:at] + rng.choice(_WIDER) + text[at + 1 :]
    return text


def word_replacer(replacements: Mapping[str, str]) -> Callable[[str], str]:
    """A function that replaces whole words, or phrases, all at once and the longest first, in any case.

    A word in capitals, or with a capital first, is replaced in the same form.
    """
    table = {word.casefold(): new for word, new in replacements.items()}
    longest = sorted(replacements, key=len, reverse=True)
    pattern = re.compile(
        r"(?<![\w])(?:" + "|".join(re.escape(word) for word in longest) + r")(?![\w])", re.IGNORECASE
    )
    exact = dict(replacements)

    def one(match: re.Match[str]) -> str:
        word = match.group()
        if word in exact:
            return exact[word]
        return _in_case_of(word, table.get(word.casefold(), word))

    return lambda text: pattern.sub(one, text)


def _in_case_of(word: str, new: str) -> str:
    if len(word) > 1 and word.isupper():
        return new.upper()
    return new[:1].upper() + new[1:] if word[:1].isupper() else new


GENDERED: Final[Sequence[tuple[str, str]]] = (
    ("he", "she"), ("himself", "herself"), ("man", "woman"), ("men", "women"), ("boy", "girl"),
    ("boys", "girls"), ("male", "female"), ("males", "females"), ("father", "mother"), ("fathers", "mothers"),
    ("dad", "mom"), ("son", "daughter"), ("sons", "daughters"), ("brother", "sister"),
    ("brothers", "sisters"), ("husband", "wife"), ("husbands", "wives"), ("uncle", "aunt"),
    ("nephew", "niece"), ("grandfather", "grandmother"), ("grandpa", "grandma"),
    ("grandson", "granddaughter"), ("boyfriend", "girlfriend"), ("gentleman", "lady"),
    ("gentlemen", "ladies"), ("sir", "madam"), ("mr", "ms"), ("king", "queen"), ("prince", "princess"),
    ("actor", "actress"), ("waiter", "waitress"), ("host", "hostess"), ("widower", "widow"),
    ("groom", "bride"), ("stepfather", "stepmother"), ("stepson", "stepdaughter"),
    ("businessman", "businesswoman"), ("policeman", "policewoman"),
    ("salesman", "saleswoman"), ("chairman", "chairwoman"), ("spokesman", "spokeswoman"),
)  # fmt: skip
"""English words that differ in gender alone: male, female. "his", "him", "her", "hers" are treated apart."""

_NOT_OWNED = """
    a an and about after again all also any as at away back because before but by down every for from her his
    if in into is it its just later like my no not now of off on or our out over so some than that the their
    them then there this to today tomorrow too until up was when where while who why with yesterday your
"""
_NO_OWNED: Final = frozenset(_NOT_OWNED.split())
"""Words before which "her" stands for "him" and "his" for "hers": what follows is not owned."""


def gendered(text: str, how: str) -> str:
    """English gendered words made male, female, or swapped.

    Whether "her" is "him" or "his" is guessed from the next word, so single sentences may come out wrong:
    look at some before leaning on it.
    """
    table: dict[str, str] = {}
    for male, female in GENDERED:
        if how in ("male", "swap"):
            table[female] = male
        if how in ("female", "swap"):
            table[male] = female
    words = re.compile(
        r"(?<![\w])(" + "|".join([*table, "his", "him", "her", "hers"]) + r")(?![\w])", re.IGNORECASE
    )

    def one(match: re.Match[str]) -> str:
        word = match.group()
        low = word.lower()
        if low in table:
            return _in_case_of(word, table[low])
        following = re.match(r"\s+([^\W\d_]+)", text[match.end() :])
        owns = following is not None and following[1].lower() not in _NO_OWNED
        if low in ("his", "him") and how != "male":
            new = "her" if low == "him" or owns else "hers"
        elif low in ("her", "hers") and how != "female":
            new = "his" if low == "hers" or owns else "him"
        else:
            return word
        return _in_case_of(word, new)

    return words.sub(one, text)
