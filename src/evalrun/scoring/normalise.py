"""Text made comparable. Every function is pure; what each option does is said once, here.

Case: Unicode case folding (ß becomes ss). Punctuation: characters of the Unicode categories P (punctuation)
and S (symbols) are deleted. White space: every run becomes one space. Ends are always stripped.
"""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from functools import cache


@cache
def _punctuation_table() -> dict[int, None]:
    return {code: None for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] in "PS"}


class Normaliser:
    """A function from text to text, made from the options."""

    __slots__ = ("_case", "_table", "_whitespace")

    def __init__(self, case: bool, punctuation: bool, whitespace: bool) -> None:
        self._case = case
        self._table = _punctuation_table() if punctuation else None
        self._whitespace = whitespace

    def __call__(self, text: str) -> str:
        """The text, normalised."""
        if self._case:
            text = text.casefold()
        if self._table is not None:
            text = text.translate(self._table)
        return " ".join(text.split()) if self._whitespace else text.strip()


_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_tokens(text: str) -> list[str]:
    """Words as the SQuAD evaluation script takes them: lower case, ASCII punctuation deleted, articles out.

    Source: normalize_answer of evaluate-v1.1.py and -v2.0.py of the SQuAD task (Rajpurkar et al. 2016).
    """
    return _ARTICLES.sub(" ", text.lower().translate(_ASCII_PUNCTUATION)).split()
