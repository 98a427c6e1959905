"""One way to write a value as bytes, and its digest: what identity, caching and resuming rest on."""

from __future__ import annotations

import hashlib
import json
import math
import re
import zlib
from collections.abc import Mapping

import orjson

from evalrun.types import JSON


def canonical_json(value: JSON) -> bytes:
    """The value as JSON with sorted keys and no spaces, in UTF-8.

    Equal values give equal bytes. The number 1 and the number 1.0 are written differently, as JSON allows;
    keys are sorted by code point. Raises ValueError for what JSON cannot hold: NaN, infinity, keys that are
    not text, text with lone surrogates, objects.
    """
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        text = _with_large_integers(value, error)
    # orjson writes NaN and infinity as null, so only a text that holds a null can hide one.
    if b"null" in text and _has_non_finite(value):
        raise ValueError("a number that is not finite (NaN or infinity) has no JSON form")
    return text


_WIDE = re.compile(rb"\d{19}")


def exact_json(data: bytes) -> JSON:
    """The JSON value in some bytes, whole numbers exactly: orjson makes floats of those beyond 64 bits.

    Raises orjson.JSONDecodeError, and ValueError for a number of more digits than Python reads (4,300).
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        if not _WIDE.search(data):
            raise
        try:  # a whole number beyond every float
            return json.loads(data, parse_float=_finite, parse_constant=_finite)
        except json.JSONDecodeError:
            pass
        raise
    return json.loads(data) if _WIDE.search(data) else value


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number[:20]} is beyond every number that JSON readers hold")
    return value


def digest(value: JSON) -> str:
    """SHA-256 of the canonical JSON of a value, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def seeded_bytes(root: int, *names: object) -> bytes:
    """32 random bytes that depend on the root seed and these names: SHA-256 of them, NUL between."""
    return hashlib.sha256("\0".join(map(str, (root, *names))).encode()).digest()


def derived_seed(root: int, *names: object) -> int:
    """The seed (64 bits) of one thing that is drawn for a sample: it depends on the root seed and its names
    and on nothing else, so that limits, order, concurrency and what else is drawn change nothing."""
    return int.from_bytes(seeded_bytes(root, *names)[:8])


def figure_seed(root: int, name: str) -> int:
    """The seed (32 bits) of the resamples of one figure: CRC-32 of its name, begun with the root seed."""
    return zlib.crc32(name.encode(), root & 0xFFFFFFFF)


def _with_large_integers(value: JSON, error: TypeError) -> bytes:
    """Integers beyond 64 bits, which orjson refuses, by way of the standard library."""
    if "64-bit" not in str(error):
        raise ValueError(f"the value has no JSON form: {error}") from error
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError) as cause:
        raise ValueError(f"the value has no JSON form: {cause}") from cause


def _has_non_finite(value: JSON) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(_has_non_finite(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_has_non_finite(item) for item in value)
    return False
