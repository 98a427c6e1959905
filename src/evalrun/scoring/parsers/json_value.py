"""JSON in the text."""

from __future__ import annotations

import json
from typing import ClassVar

from pydantic import Field

from evalrun.scoring.base import Options, Parser, Unparsed, as_text, shown
from evalrun.types import JSON

MAX_CHARACTERS = 100_000
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
