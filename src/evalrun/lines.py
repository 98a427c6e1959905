"""The lines of a journal: one JSON object each, whose last key is a checksum of what stands before it.

`{"sample_id": …,"crc32":"0badcafe"}`: a line that was cut, or in which a bit fell over, is seen as that,
whatever it looks like. Lines of journals from before there were checksums have none, and are taken if they
are JSON.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

import orjson

_KEY = b',"crc32":"'
_LENGTH = len(b',"crc32":"0badcafe"}\n')


def with_checksum(text: bytes) -> bytes:
    """A line for the JSON text of an object with at least one key."""
    body = text[:-1]
    return b'%b,"crc32":"%08x"}\n' % (body, crc32(body))


def is_whole(line: bytes) -> bool:
    """Whether a line has its end, and is what was written as far as its checksum tells."""
    if has_checksum(line):
        return line[len(_KEY) - _LENGTH :] == b'%08x"}\n' % crc32(line[:-_LENGTH])
    return line[-1:] == b"\n"


def has_checksum(line: bytes) -> bool:
    """Whether the line was written with a checksum; those of earlier versions were not."""
    return line[-_LENGTH : len(_KEY) - _LENGTH] == _KEY


def read_record(line: bytes) -> dict[str, Any] | None:
    """The record of a sample (with the names of `SampleRecord`) in a line; None where it holds none."""
    try:
        record = orjson.loads(line) if is_whole(line) else None
    except orjson.JSONDecodeError:
        return None
    if type(record) is not dict or type(record.get("sample_id")) not in (str, int):
        return None
    # Of the others these are what samples are told apart and counted by.
    if type(record.get("repeat", 0)) is not int or type(record.get("status", "")) is not str:
        return None
    record.pop("crc32", None)
    return record
