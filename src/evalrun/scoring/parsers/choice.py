"""The parser `choice`: one of several labels, or the letter of one of several options (`letters`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from evalrun.scoring.base import Options, Parser, Unparsed, as_text, check_labels, shown
from evalrun.scoring.functions import parser
from evalrun.scoring.parsers.letters import ALPHABET, LetterFinder
from evalrun.scoring.text import composed, end_of, start_of, whole_phrase
from evalrun.types import JSON, Row

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
        description="Which one to take where different labels stand in the text: the first, or the last, "
        "that stands in it at all. Default: none, such an answer is unparsed.",
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
        self._exact = {composed(word).strip().casefold(): label for word, label in reversed(words)}
        words.sort(key=lambda pair: -len(pair[0]))
        self._labels = [label for _, label in words]
        body = "|".join(rf"({_whole(composed(word))})" for word, _ in words)
        self._regex = re.compile(body, re.IGNORECASE)
        self._pick = pick
        self._numbers = any(_NUMBER.fullmatch(label) for label in labels)

    def find(self, text: str) -> str:
        """The label. Raises Unparsed."""
        text = plain_digits(composed(text)) if self._numbers else composed(text)
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


_NUMBER = re.compile(r"\d+")
_DIGITS = {0xFF10 + at: str(at) for at in range(10)} | {0x2460 + at: f" {at + 1} " for at in range(20)}


def plain_digits(text: str) -> str:
    """Full-width and circled numbers (５, ⑤) as ASCII digits."""
    return text if text.isascii() else text.translate(_DIGITS)


def _whole(word: str) -> str:
    """The pattern of a label as whole words. A label that is a number is not found in 0.5, 15, -5 or 1/5, nor
    in "out of 5"; 5.0 is 5."""
    if not _NUMBER.fullmatch(word):
        return whole_phrase(word)
    before = rf"(?<![\d/])(?<!\d[.,])(?<!out of )(?<!(?<![\w)\]])[-−–]){start_of(word)}"
    return rf"{before}{word}(?:\.0+|,0{{1,2}})?(?![.,]?\d){end_of(word)}"


def _are_letters(labels: Sequence[str]) -> bool:
    """Whether the labels are A, B, C, …: as words they would be found in every "a" of the text."""
    return len(labels) > 1 and "".join(labels) == ALPHABET[: len(labels)]
