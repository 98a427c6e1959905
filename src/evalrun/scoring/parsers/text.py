"""Parsers of plain text: ends, lines, marks, patterns, numbers, code, JSON."""

from __future__ import annotations

import json
import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from evalrun.scoring.base import Options, Parser, Unparsed, as_text, shown
from evalrun.scoring.functions import parser
from evalrun.scoring.guard import GuardedPattern, PatternTimeout, check_pattern
from evalrun.scoring.numerals import last_number as last_number_in
from evalrun.scoring.reasoning import CLOSING_TAGS
from evalrun.types import JSON

MAX_CHARACTERS = 100_000
"""Longer texts are cut: numbers are looked for in the last so many characters, JSON in the first."""
MAX_STARTS = 200
"""So many opening brackets are tried, so that a text of brackets costs no more than any other."""

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n`]*$", re.MULTILINE)


class StripOptions(Options):
    """What is taken off."""

    characters: str | None = Field(
        default=None,
        min_length=1,
        description="Characters to take off both ends, besides white space. Default: white space only.",
    )


@parser(
    "strip",
    summary="Takes white space, or the characters given as well, off both ends of the text.",
    shorthand="characters",
)
def strip(value: JSON, options: StripOptions) -> str:
    """The text without its ends."""
    extra = options.characters
    return as_text(value).strip(None if extra is None else extra + " \t\n\r\f\v\u00a0")


@parser("first_line", summary="The first line that holds more than white space, stripped.")
def first_line(value: JSON) -> str:
    """The line. Raises Unparsed where all are empty."""
    return _lines(value)[0].rstrip()


@parser("last_line", summary="The last line that holds more than white space, stripped.")
def last_line(value: JSON) -> str:
    """The line. Raises Unparsed where all are empty."""
    return _lines(value)[-1].lstrip()


def _lines(value: JSON) -> list[str]:
    text = as_text(value).strip()
    if not text:
        raise Unparsed("the output is empty")
    return text.splitlines()


class BetweenOptions(Options):
    """The marks."""

    start: str = Field(min_length=1, description="The mark before the answer, taken literally.")
    end: str | None = Field(
        default=None, min_length=1, description="The mark after it. Default: the end of the text."
    )
    which: Literal["first", "last"] = Field(
        default="first", description="Which start mark to take where there are several."
    )


@parser(
    "between",
    summary="The text between two marks, stripped: <answer> and </answer>, or #### and the end.",
    shorthand="start",
)
def between(value: JSON, options: BetweenOptions) -> str:
    """The text between the marks. Raises Unparsed where one of them is missing."""
    text, start, end = as_text(value), options.start, options.end
    at = text.rfind(start) if options.which == "last" else text.find(start)
    if at < 0 and start.lower() in CLOSING_TAGS:  # what ends the reasoning is split off before
        at, start = 0, ""
    if at < 0:
        raise Unparsed(f"the mark {shown(start)} is not in the output")
    begin = at + len(start)
    if end is None:
        return text[begin:].strip()
    until = text.find(end, begin)
    if until < 0:
        raise Unparsed(f"the mark {shown(end)} does not follow {shown(start)}")
    return text[begin:until].strip()


class RegexOptions(Options):
    """The pattern, and what to take of its matches."""

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
        regex, group = re.compile(self.pattern), self.group
        known = group in regex.groupindex if isinstance(group, str) else 0 <= (group or 0) <= regex.groups
        if not known:
            raise ValueError(f"the pattern has no group {group!r}; it has {regex.groups}")
        return self


@parser(
    "regex",
    summary="A group of the first or last match of a regular expression. Texts are cut to 100,000 "
    "characters, and a search that takes longer than a second leaves the answer unparsed.",
)
class Regex(Parser[RegexOptions]):
    """One group of the first or last match of a pattern."""

    shorthand = "pattern"

    def __init__(self, options: RegexOptions) -> None:
        super().__init__(options)
        pattern = GuardedPattern(options.pattern, re.IGNORECASE if options.ignore_case else 0)
        self._group = options.group if options.group is not None else min(1, pattern.regex.groups)
        self._find = pattern.first if options.which == "first" else pattern.last

    def parse(self, value: JSON) -> str:
        """The text of the group. Raises Unparsed where nothing matches."""
        try:
            match = self._find(as_text(value))
        except PatternTimeout as error:
            raise Unparsed(str(error)) from None
        if match is None:
            raise Unparsed(f"nothing matches the pattern {self.options.pattern}")
        text = match[self._group]
        if text is None:
            raise Unparsed(f"the pattern matches, but its group {self._group} takes no part in the match")
        return str(text)


@parser(
    "last_number",
    summary="The last number in the text: sign, $, thousands separators (1,234.5, 1.234,5, 1'234.5), "
    "decimals after a point or a comma, exponent and ½ are read. A comma before exactly three digits "
    "separates thousands (1,234), but not after a 0 (0,125). 45% gives 45; 1/2 is two numbers. Whole numbers "
    "give an integer.",
)
def last_number(value: JSON) -> int | float:
    """The number. Raises Unparsed where there is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    number = last_number_in(as_text(value)[-MAX_CHARACTERS:])
    if number is None:
        raise Unparsed("there is no number in the output")
    return number.plain


class CodeBlockOptions(Options):
    """Which block to take."""

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


@parser(
    "code",
    summary="The code between Markdown fences (``` or ~~~); an output without any is taken whole.",
    shorthand="language",
)
def code_block(value: JSON, options: CodeBlockOptions) -> str:
    """The block. A fence that is never closed, as in an answer that was cut off, ends with the text."""
    text = as_text(value)
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
    blocks = []
    at = 0
    while (opening := _FENCE.search(text, at)) is not None:
        fence = opening.group(1)
        begin = opening.end() + 1
        closing = re.compile(rf"^[ \t]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$", re.MULTILINE)
        end = closing.search(text, begin)
        code = text[begin : end.start() if end else len(text)].rstrip("\n")
        blocks.append((opening.group(2).lower(), code))
        if end is None:
            break
        at = end.end()
    return blocks


class JsonOptions(Options):
    """Which value to take."""

    field: str | None = Field(
        default=None,
        min_length=1,
        description="Dotted path of the value to take, with numbers for list entries: answers.0.label. "
        "Default: the whole value.",
    )
    which: Literal["first", "last"] = Field(
        default="first",
        description="Which object or list to take, where several stand in the text. Those within another do "
        "not count.",
    )


@parser(
    "json",
    summary="The JSON value that the whole text is, else the first (or last) balanced object or list in it "
    "(also inside a code fence); `field` takes one value out of it.",
    shorthand="field",
)
def json_value(value: JSON, options: JsonOptions) -> JSON:
    """The JSON value. Raises Unparsed where there is none, or no such field, or it is null."""
    taken = _json_in(value, options.which) if isinstance(value, str) else value
    path = options.field.split(".") if options.field else []
    for depth, key in enumerate(path):
        taken = _member(taken, key, ".".join(path[: depth + 1]))
    if taken is None:
        raise Unparsed(f"the field {shown(options.field)} is null" if path else "the JSON is null")
    return taken


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse)


def _json_in(text: str, which: Literal["first", "last"]) -> JSON:
    text = text.strip()
    text = text[:MAX_CHARACTERS] if which == "first" else text[-MAX_CHARACTERS:]
    if not text:
        raise Unparsed("the output is empty")
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        pass
    at, last, failures = 0, None, 0
    while failures < MAX_STARTS and (at := _next_bracket(text, at)) >= 0:
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            at, failures = at + 1, failures + 1
            continue
        last = (value,)
        if which == "first":
            break
    if last is None:
        raise Unparsed("there is no valid JSON in the output")
    return last[0]


def _next_bracket(text: str, start: int) -> int:
    places = [place for place in (text.find("{", start), text.find("[", start)) if place >= 0]
    return min(places, default=-1)


def _member(value: JSON, key: str, path: str) -> JSON:
    if isinstance(value, dict) and key in value:
        return value[key]
    if isinstance(value, list) and key.removeprefix("-").isdecimal() and -len(value) <= int(key) < len(value):
        return value[int(key)]
    raise Unparsed(f"the field {shown(path)} is not in the JSON {shown(as_text(value))}")
