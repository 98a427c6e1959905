"""Parsers of plain text: ends, lines, marks, patterns, numbers, code, JSON."""

from __future__ import annotations

import json
import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from evalrun.scoring.base import Options, Parser, Unparsed, as_text, shown
from evalrun.scoring.guard import GuardedPattern, PatternTimeout, check_pattern
from evalrun.scoring.text import last_number
from evalrun.types import JSON


class StripOptions(Options):
    """Options of the parser `strip`."""

    characters: str | None = Field(
        default=None,
        min_length=1,
        description="Characters to take off both ends, besides white space. Default: white space only.",
    )


class Strip(Parser):
    """Takes white space, and characters that are named, off both ends."""

    Options: ClassVar[type[StripOptions]] = StripOptions
    shorthand = "characters"
    summary = "Takes white space, or the characters given as well, off both ends of the text."

    def __init__(self, options: StripOptions) -> None:
        super().__init__(options)
        extra = options.characters
        self._characters = None if extra is None else extra + " \t\n\r\f\v\u00a0"

    def parse(self, value: JSON) -> str:
        """The text without its ends."""
        return as_text(value).strip(self._characters)


class LineOptions(Options):
    """`first_line` and `last_line` have no options."""


class FirstLine(Parser):
    """The first line that is not empty."""

    Options: ClassVar[type[LineOptions]] = LineOptions
    summary = "The first line that holds more than white space, stripped."

    def parse(self, value: JSON) -> str:
        """The line. Raises Unparsed where all are empty."""
        text = as_text(value).strip()
        if not text:
            raise Unparsed("the output is empty")
        return text.splitlines()[0].rstrip()


class LastLine(Parser):
    """The last line that is not empty."""

    Options: ClassVar[type[LineOptions]] = LineOptions
    summary = "The last line that holds more than white space, stripped."

    def parse(self, value: JSON) -> str:
        """The line. Raises Unparsed where all are empty."""
        text = as_text(value).strip()
        if not text:
            raise Unparsed("the output is empty")
        return text.splitlines()[-1].lstrip()


class BetweenOptions(Options):
    """Options of the parser `between`."""

    start: str = Field(min_length=1, description="The mark before the answer, taken literally.")
    end: str | None = Field(
        default=None, min_length=1, description="The mark after it. Default: the end of the text."
    )
    which: Literal["first", "last"] = Field(
        default="first", description="Which start mark to take where there are several."
    )


class Between(Parser):
    """The text between a start and an end mark."""

    Options: ClassVar[type[BetweenOptions]] = BetweenOptions
    shorthand = "start"
    summary = "The text between two marks, stripped: <answer> and </answer>, or #### and the end."

    def __init__(self, options: BetweenOptions) -> None:
        super().__init__(options)
        self._start = options.start
        self._end = options.end
        self._last = options.which == "last"

    def parse(self, value: JSON) -> str:
        """The text between the marks. Raises Unparsed where one of them is missing."""
        text = as_text(value)
        at = text.rfind(self._start) if self._last else text.find(self._start)
        if at < 0:
            raise Unparsed(f"the mark {shown(self._start)} is not in the output")
        begin = at + len(self._start)
        if self._end is None:
            return text[begin:].strip()
        until = text.find(self._end, begin)
        if until < 0:
            raise Unparsed(f"the mark {shown(self._end)} does not follow {shown(self._start)}")
        return text[begin:until].strip()


class RegexOptions(Options):
    """Options of the parser `regex`."""

    pattern: Annotated[str, check_pattern] = Field(
        min_length=1, description="Python regular expression, searched anywhere in the text."
    )
    group: int | str | None = Field(
        default=None,
        description="Number or name of the group to take. Default: the first group, or the whole match "
        "where the pattern has none.",
    )
    which: Literal["first", "last"] = Field(default="first", description="Which match to take.")
    ignore_case: bool = Field(default=False, description="Whether letters match in either case.")

    @model_validator(mode="after")
    def _group_exists(self) -> Self:
        regex = re.compile(self.pattern)
        known = isinstance(self.group, str) and self.group in regex.groupindex
        if (
            self.group is not None
            and not known
            and not (isinstance(self.group, int) and 0 <= self.group <= regex.groups)
        ):
            raise ValueError(f"the pattern has no group {self.group!r}; it has {regex.groups}")
        return self


class Regex(Parser):
    """One group of the first or last match of a pattern."""

    Options: ClassVar[type[RegexOptions]] = RegexOptions
    shorthand = "pattern"
    summary = (
        "A group of the first or last match of a regular expression. Texts are cut to 100,000 characters, "
        "and a search that takes longer than a second leaves the answer unparsed."
    )

    def __init__(self, options: RegexOptions) -> None:
        super().__init__(options)
        self._pattern = GuardedPattern(options.pattern, re.IGNORECASE if options.ignore_case else 0)
        default = 1 if self._pattern.regex.groups else 0
        self._group = default if options.group is None else options.group
        self._find = self._pattern.first if options.which == "first" else self._pattern.last
        self._none = f"nothing matches the pattern {options.pattern}"

    def parse(self, value: JSON) -> str:
        """The text of the group. Raises Unparsed where nothing matches."""
        try:
            match = self._find(value if isinstance(value, str) else as_text(value))
        except PatternTimeout as error:
            raise Unparsed(str(error)) from None
        if match is None:
            raise Unparsed(self._none)
        found = match[self._group]
        if found is None:
            raise Unparsed(f"the pattern matches, but its group {self._group} takes no part in the match")
        return str(found)


MAX_CHARACTERS = 100_000
"""Only the last so many characters are read."""


class LastNumberOptions(Options):
    """`last_number` has no options."""


class LastNumber(Parser):
    """The last number that stands in the text."""

    Options: ClassVar[type[LastNumberOptions]] = LastNumberOptions
    summary = (
        "The last number in the text: sign, $, thousands separators, decimals and exponent are read; "
        "45% gives 45; 1/2 is two numbers. Whole numbers give an integer."
    )

    def parse(self, value: JSON) -> int | float:
        """The number. Raises Unparsed where there is none."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        number = last_number(as_text(value)[-MAX_CHARACTERS:])
        if number is None:
            raise Unparsed("there is no number in the output")
        return number


_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n`]*$", re.MULTILINE)


class CodeBlockOptions(Options):
    """Options of the parser `code`."""

    language: str | None = Field(
        default=None,
        description="Take only blocks that say this language, or none at all. Default: any block.",
    )
    which: Literal["first", "last", "longest", "all"] = Field(
        default="first", description="Which block, where there are several; all joins them."
    )
    unfenced: Literal["take", "unparsed"] = Field(
        default="take",
        description="What becomes of an output without a block: it is taken whole, or counts as unparsed.",
    )


class CodeBlock(Parser):
    """The code in an answer."""

    Options: ClassVar[type[CodeBlockOptions]] = CodeBlockOptions
    shorthand = "language"
    summary = "The code between Markdown fences (``` or ~~~); an output without any is taken whole."

    def parse(self, value: JSON) -> str:
        """The block. A fence that is never closed, as in an answer that was cut off, ends with the text."""
        text = as_text(value)
        options: CodeBlockOptions = self.options
        blocks = [
            code for language, code in _blocks(text) if options.language in (None, language) or not language
        ]
        if not blocks:
            if options.unfenced == "take" and not _FENCE.search(text):
                return text.strip("\n")
            wanted = f" of {options.language}" if options.language else ""
            raise Unparsed(f"there is no block{wanted} between fences")
        if options.which == "all":
            return "\n\n".join(blocks)
        if options.which == "longest":
            return max(blocks, key=len)
        return blocks[0 if options.which == "first" else -1]


def _blocks(text: str) -> list[tuple[str, str]]:
    """(language in small letters, code) of each block."""
    found = []
    at = 0
    while (opening := _FENCE.search(text, at)) is not None:
        fence = opening.group(1)
        begin = opening.end() + 1
        closing = re.compile(rf"^[ \t]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$", re.MULTILINE)
        end = closing.search(text, begin)
        found.append((opening.group(2).lower(), text[begin : end.start() if end else len(text)].rstrip("\n")))
        if end is None:
            break
        at = end.end()
    return found


MAX_STARTS = 200
"""So many opening brackets are tried, so that a text of brackets costs no more than any other."""


class JsonOptions(Options):
    """Options of the parser `json`."""

    field: str | None = Field(
        default=None,
        min_length=1,
        description="Dotted path of the value to take, with numbers for list entries: answers.0.label. "
        "Default: the whole value.",
    )


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse)


class JsonValue(Parser):
    """The JSON value that the text is, or the first object or list in it."""

    Options: ClassVar[type[JsonOptions]] = JsonOptions
    shorthand = "field"
    summary = (
        "The JSON value that the whole text is, else the first balanced object or list in it (also inside a "
        "code fence); `field` takes one value out of it."
    )

    def __init__(self, options: JsonOptions) -> None:
        super().__init__(options)
        self._path = options.field.split(".") if options.field else []

    def parse(self, value: JSON) -> JSON:
        """The JSON value. Raises Unparsed where there is none, or no such field, or it is null."""
        found = _find(value) if isinstance(value, str) else value
        for depth, key in enumerate(self._path):
            found = _member(found, key, ".".join(self._path[: depth + 1]))
        if found is None:
            raise Unparsed(
                f"the field {shown(self.options.field)} is null" if self._path else "the JSON is null"
            )
        return found


def _find(text: str) -> JSON:
    text = text.strip()[:MAX_CHARACTERS]
    if not text:
        raise Unparsed("the output is empty")
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        pass
    at = -1
    for _ in range(MAX_STARTS):
        at = _next_bracket(text, at + 1)
        if at < 0:
            break
        try:
            return _DECODER.raw_decode(text, at)[0]
        except (ValueError, RecursionError):
            continue
    raise Unparsed("there is no valid JSON in the output")


def _next_bracket(text: str, start: int) -> int:
    places = [place for place in (text.find("{", start), text.find("[", start)) if place >= 0]
    return min(places, default=-1)


def _member(value: JSON, key: str, path: str) -> JSON:
    if isinstance(value, dict) and key in value:
        return value[key]
    if isinstance(value, list) and key.removeprefix("-").isdecimal() and -len(value) <= int(key) < len(value):
        return value[int(key)]
    raise Unparsed(f"the field {shown(path)} is not in the JSON {shown(as_text(value))}")
