"""The parser `choice`: one of several labels, or the letter of one of several options.

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
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from evalrun.scoring.base import Options, Parser, Unparsed, as_text, check_labels, shown
from evalrun.scoring.functions import parser
from evalrun.scoring.text import stands_alone, whole_phrase
from evalrun.types import JSON, Row

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


MAX_CHARACTERS = 20_000
"""Longer texts are cut; the label of a classification stands early, or the answer is no label."""


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Words = Annotated[list[str], BeforeValidator(check_labels), Field(min_length=1)]


class ChoiceOptions(Options):
    """Options of the parser `choice`."""

    labels: Words | None = Field(
        default=None, description="The labels to look for. A, B, C, … are read as with letters."
    )
    synonyms: dict[str, Annotated[list[str], BeforeValidator(_one_or_more)]] = Field(
        default_factory=dict, description="Further words that mean a label: {label: [words]}."
    )
    pick: Literal["first", "last"] | None = Field(
        default=None,
        description="Which one to take where different labels stand in the text. "
        "Default: none, such an answer is unparsed.",
    )
    letters: bool = Field(
        default=False, description="Look for the letter (A, B, C, …) of an option; the answer is the letter."
    )
    options: Words | None = Field(
        default=None,
        description="With letters: the text of each option, A first. The text counts as its letter.",
    )
    option_columns: Annotated[list[str], BeforeValidator(_one_or_more), Field(min_length=1)] | None = Field(
        default=None,
        description="With letters, where the options differ from row to row: the columns that hold them, "
        "A first, or one column that holds their list.",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        texts = [name for name in ("labels", "options", "option_columns") if getattr(self, name) is not None]
        if len(texts) != 1:
            raise ValueError(
                "give exactly one of labels, options (with letters) and option_columns (with letters)"
            )
        if not self.letters and self.labels is None:
            raise ValueError(f"{texts[0]} needs letters: true")
        if len(self.labels or self.options or ()) > 26 and self.letters:
            raise ValueError("there are only 26 letters")
        strangers = [word for word in self.synonyms if word not in (self.labels or ())]
        if strangers:
            raise ValueError(f"synonyms are given for '{strangers[0]}', which is not among the labels")
        return self


@parser(
    "choice",
    summary="The one label that stands in the text as a whole word, in either case (in scripts without "
    "spaces between words, wherever it stands). Two different labels leave the answer unparsed unless `pick` "
    "says which to take. `letters: true` reads the letters A, B, C and so on.",
    shorthand="labels",
)
class Choice(Parser[ChoiceOptions]):
    """The one label, or letter, that an answer names."""

    def __init__(self, options: ChoiceOptions) -> None:
        super().__init__(options)
        self._columns = tuple(options.option_columns or ())
        self.reads_row = bool(self._columns)
        self._finder: LabelFinder | LetterFinder | None = None
        labels = options.labels or ()
        if (options.letters and not self._columns) or (_are_letters(labels) and not options.synonyms):
            self._finder = LetterFinder(options.options or labels, options.pick)
        elif labels:
            self._finder = LabelFinder(labels, options.synonyms, options.pick)

    def parse(self, value: JSON) -> str:
        """The label or letter. Raises Unparsed where there is none or more than one."""
        if self._finder is None:
            raise Unparsed("the options stand in columns of the row, and there is no row")
        return self._finder.find(as_text(value)[:MAX_CHARACTERS])

    def parse_with_row(self, value: JSON, row: Row) -> str:
        """The letter of one of the options that the row holds."""
        if not self._columns:
            return self.parse(value)
        cells = [row.get(column) for column in self._columns]
        texts = cells[0] if len(cells) == 1 and isinstance(cells[0], list | tuple) else cells
        finder = LetterFinder([as_text(text) for text in texts], self.options.pick)
        return finder.find(as_text(value)[:MAX_CHARACTERS])


class LabelFinder:
    """Finds labels as whole words. Of labels that begin at the same place the longest counts.

    White space within a label stands for any white space. In scripts without spaces between words a label
    counts wherever it stands. Negation is not understood: "not billing" names billing.
    """

    def __init__(
        self, labels: Sequence[str], synonyms: Mapping[str, Sequence[str]], pick: str | None
    ) -> None:
        words = [(word, label) for label in labels for word in (label, *synonyms.get(label, ()))]
        self._exact = {word.strip().casefold(): label for word, label in reversed(words)}
        words.sort(key=lambda pair: -len(pair[0]))
        self._labels = [label for _, label in words]
        body = "|".join(rf"({whole_phrase(word)})" for word, _ in words)
        self._regex = re.compile(body, re.IGNORECASE)
        self._pick = pick

    def find(self, text: str) -> str:
        """The label. Raises Unparsed."""
        exact = self._exact.get(text.strip().casefold())
        if exact is not None:
            return exact
        first = last = None
        for match in self._regex.finditer(text):
            last = self._labels[(match.lastindex or 1) - 1]
            if first is None:
                first = last
                if self._pick == "first":
                    break
            elif last != first and self._pick is None:
                raise Unparsed(f"ambiguous: both {shown(first)} and {shown(last)} stand in the output")
        label = last if self._pick == "last" else first
        if label is None:
            raise Unparsed(f"none of the labels stands in {shown(text.strip())}")
        return label


def _are_letters(labels: Sequence[str]) -> bool:
    """Whether the labels are A, B, C, …: as words they would be found in every "a" of the text."""
    return len(labels) > 1 and "".join(labels) == ALPHABET[: len(labels)]
