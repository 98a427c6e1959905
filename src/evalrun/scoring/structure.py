"""JSON values in answers and targets, and their leaves by path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from evalrun.types import JSON

MAX_CHARACTERS = 1_000_000
_FENCE = re.compile(r"\s*```[\w+-]*[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)


class NotJson(ValueError):
    """Why a text is no JSON; completes a sentence that begins with the output."""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def json_of(text: str, *, fenced: bool = False) -> JSON:
    """The value of a text that is JSON and nothing else. Raises NotJson."""
    if len(text) > MAX_CHARACTERS:
        raise NotJson(f"the output is longer than {MAX_CHARACTERS:,} characters")
    inner = _FENCE.fullmatch(text) if fenced else None
    try:
        return json.loads(inner[1] if inner else text, parse_constant=_refuse)
    except RecursionError:
        raise NotJson("the output is nested too deeply") from None
    except ValueError as error:
        raise NotJson(f"the output is not valid JSON: {error}") from None


def value_of(value: JSON) -> JSON:
    """A target or answer as a value: text that is JSON is read, everything else is as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json_of(value, fenced=True)
    except NotJson:
        return value


def leaves(value: JSON, path: str = "", depth: int = 0) -> Iterator[tuple[str, JSON]]:
    """Dotted paths and values of everything in a JSON value that holds nothing itself.

    An empty object or list is a leaf, and so is whatever lies deeper than 50 levels.
    """
    if value and isinstance(value, dict) and depth < 50:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif value and isinstance(value, list) and depth < 50:
        for at, inner in enumerate(value):
            yield from leaves(inner, f"{path}.{at}" if path else str(at), depth + 1)
    else:
        yield path, value


def at_path(value: JSON, path: str) -> tuple[bool, JSON]:
    """Whether there is a value at a dotted path, and which."""
    for key in path.split(".") if path else ():
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return False, None
    return True, value


def same_value(left: JSON, right: JSON, *, ignore_case: bool = False, tolerance: float = 0.0) -> bool:
    """Whether two JSON values are equal. 1 equals 1.0; true is no number; keys have no order."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        if left == right:
            return True
        try:
            return abs(left - right) <= tolerance
        except OverflowError:
            return False
    if isinstance(left, str) and isinstance(right, str):
        a, b = left.strip(), right.strip()
        return a.casefold() == b.casefold() if ignore_case else a == b
    options = {"ignore_case": ignore_case, "tolerance": tolerance}
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(
            same_value(a, b, **options)  # type: ignore[arg-type]
            for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            same_value(value, right[key], **options)  # type: ignore[arg-type]
            for key, value in left.items()
        )
    return left is None and right is None
