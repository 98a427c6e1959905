"""Which of the options A, B, C, … an answer names.

Letters are words too ("A person …", "I think"), so the places where a letter is meant are tried from the
surest to the least sure, and the first kind of place that names any letter decides:

1. the whole answer is a letter ("b", "(B)", "B.") or the text of an option;
2. "answer is B", "answer: (B)", "option B", "choice B";
3. a letter with a bracket, full stop or colon after it, or in brackets or asterisks: "B) the nurse", "**B**";
4. a capital letter that stands alone, but not an "A" or "I" before a word;
5. the text of an option as whole words.

Two different letters in the same kind of place are ambiguous.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from evalrun.scoring.base import Unparsed, shown
from evalrun.scoring.boundaries import stands_alone

ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# Repeats are bounded: an answer of nothing but brackets or spaces costs no more than any other.
_WHOLE: Final = re.compile(r"[\s(\[\"'*]*([A-Za-z])[\s)\]\"'*.:,]*")
_STATED: Final = re.compile(
    r"\b(?i:answer|option|choice)(?i:\s{1,9}is|\s{1,9}would\s{1,9}be|\s{1,9}should\s{1,9}be)?\s{0,9}:?\s{0,9}"
    r"[(\[\"'*]{0,9}(?:([A-Z])(?![\w'])|([a-z])(?=[)\].,:*\"]|\s{0,9}(?:\n|$)))"
)
_MARKED: Final = re.compile(r"(?<![\w.])(?:[(\[*]{1,9}([A-Z])[)\]*]|([A-Z])[).:](?!\w))")
_ALONE: Final = re.compile(r"(?<![\w'])([A-Z])(?![\w'])(?!(?<=[AI])\s+[a-z])")


class LetterFinder:
    """Finds the letter among as many as there are option texts (one character texts stand for themselves)."""

    def __init__(self, texts: Sequence[str], pick: str | None) -> None:
        self._known = ALPHABET[: len(texts)]
        self._pick = pick
        self._texts = {
            " ".join(text.casefold().split()): letter
            for text, letter in zip(texts, self._known, strict=False)
            if len(text.strip()) > 1
        }

    def find(self, text: str) -> str:
        """The letter. Raises Unparsed where none, or more than one, is named."""
        whole = _WHOLE.fullmatch(text)
        if whole and whole[1].upper() in self._known:
            return whole[1].upper()
        exact = self._texts.get(" ".join(text.casefold().split()).rstrip("."))
        if exact is not None:
            return exact
        for pattern in (_STATED, _MARKED, _ALONE):
            named = [letter for letter in _letters(pattern, text) if letter in self._known]
            if named:
                return self._decide(named)
        named = self._named_by_text(text)
        if named:
            return self._decide(named)
        raise Unparsed(f"none of the options is named in {shown(text.strip())}")

    def _decide(self, named: Sequence[str]) -> str:
        if self._pick == "last":
            return named[-1]
        if self._pick is None and len(set(named)) > 1:
            other = next(letter for letter in named if letter != named[0])
            raise Unparsed(f"ambiguous: both {named[0]} and {other} are named")
        return named[0]

    def _named_by_text(self, text: str) -> list[str]:
        """Letters of the options whose text stands in the answer, in order; a text within another is not."""
        plain = " ".join(text.casefold().split())
        places: list[tuple[int, int, str]] = []
        for option, letter in sorted(self._texts.items(), key=lambda pair: -len(pair[0])):
            places.sort()
            starts = [start for start, _, _ in places]
            reach = list(accumulate((end for _, end, _ in places), max))
            for start, end in _occurrences(option, plain):
                before = bisect_right(starts, start)
                if not before or reach[before - 1] < end:
                    places.append((start, end, letter))
        return [letter for _, _, letter in sorted(places)]


def _letters(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    for match in pattern.finditer(text):
        yield match[match.lastindex or 1].upper()


def _occurrences(words: str, text: str) -> Iterator[tuple[int, int]]:
    at = text.find(words)
    while at >= 0:
        end = at + len(words)
        if stands_alone(text, at, end):
            yield at, end
        at = text.find(words, end)
