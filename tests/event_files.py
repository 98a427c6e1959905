"""TensorBoard event files made by hand, as the format says; the CRCs are left zero."""

import struct
from collections.abc import Iterable


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def scalar(tag: str, value: float, *, as_tensor: bool = False) -> bytes:
    """A value of a summary: the older and the newer way."""
    told = field(1, tag.encode())
    if as_tensor:
        return field(1, told + field(8, b"\x08\x01" + field(4, struct.pack("<f", value))))
    return field(1, told + b"\x15" + struct.pack("<f", value))


def event(wall_s: float, step: int, *values: bytes) -> bytes:
    body = b"\x09" + struct.pack("<d", wall_s) + b"\x10" + varint(step) + field(5, b"".join(values))
    return record(body)


def record(body: bytes) -> bytes:
    return struct.pack("<Q", len(body)) + bytes(4) + body + bytes(4)


def series(tag: str, rows: Iterable[tuple[float, int, float]]) -> bytes:
    return b"".join(event(wall, step, scalar(tag, value)) for wall, step, value in rows)
