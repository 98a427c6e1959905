"""Fields of an answer as they have to be, whatever a server wrote there. Pure.

An answer in words that was paid for is not thrown away because a field beside it is odd: a count that is no
count is not known, a reason to stop that is no word is none.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from evalrun.types import JSON, ErrorKind, ProviderError

_GREATEST = 2**53
"""Counts of tokens above that are no counts."""


def load(data: bytes) -> JSON:
    """The JSON value that the bytes hold. Raises orjson.JSONDecodeError.

    Beyond the standard it takes what servers are known to write: NaN and Infinity (they become null where
    they are kept), halves of a surrogate pair (a character cut in two by a server that streams UTF-16), and a
    byte order mark. See `whole_text` for the halves.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            return json.loads(data.decode("utf-8-sig"), parse_int=_integer)
        except (ValueError, RecursionError):
            pass
        raise


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 19 else float(digits)  # as orjson does it, whose numbers have 64 bits


def whole_text(text: str) -> str:
    """Text in which halves of surrogate pairs are joined, and those without their other half replaced."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def count(value: JSON) -> int | None:
    """A number of tokens; None for what is none. Text of digits and whole floats are taken."""
    if type(value) is int:
        return value if 0 <= value < _GREATEST else None
    if isinstance(value, str) and value.isdecimal() and len(value) < 16:
        return int(value)
    if isinstance(value, float) and value.is_integer() and 0 <= value < _GREATEST:
        return int(value)
    return None


def word(value: JSON) -> str | None:
    """A name or a reason; None for what is no text."""
    if value is None or type(value) is str:
        return value
    return None


def prose(value: JSON) -> str | None:
    """Text that stands beside the answer (reasoning, refusal); other values as their JSON."""
    if not value:
        return None
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def usage_of(value: JSON) -> dict[str, Any]:
    """The token counts that a server reports; empty where they are no object."""
    return value if isinstance(value, dict) else {}


def kept(value: JSON) -> JSON:
    """A value that goes into the records as it is. Raises ProviderError where it is nested too deeply to be
    written."""
    if value:
        try:
            orjson.dumps(value)
        except TypeError as error:
            if "ecursion" in str(error):
                raise ProviderError(
                    ErrorKind.PROTOCOL, "the answer is nested too deeply to be kept"
                ) from None
            return json.loads(whole_text(json.dumps(value, ensure_ascii=False)))
    return value or None
