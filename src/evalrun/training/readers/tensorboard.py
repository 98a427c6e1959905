"""TensorBoard's event files, read without tensorboard, which takes a second to import.

A file is records: length (8 bytes, little endian), its CRC, the record, its CRC. A record is a protocol
buffer `Event` with wall_time (1), step (2) and summary (5), whose values (1) have a tag (1) and a
simple_value (2) or, newer writers, a tensor (8). CRCs are not checked; lengths are. A torn last record ends
the file. https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/event.proto
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from evalrun.training.readers import Reading
from evalrun.training.series import MAX_STEP

FRAMEWORK = "tensorboard"
MAX_RECORD = 256 << 20
"""Bytes of one record (they may hold images); more is no length."""

_PLAIN = re.compile(
    rb"\x09.{8}(?:\x10([\x80-\xff]{0,6}[\x00-\x7f]))?\x2a([\x00-\x7f])\x0a([\x00-\x7f])"
    rb"\x0a([\x00-\x7f])(.*)\x15(.{4})",
    re.DOTALL,
)
"""Nearly every event: a time, a step, one scalar with a short name. Read at once, it takes half as long."""
_TEXTS = ("args", "hparams", "config")
_F64, _F32, _HEAD = struct.Struct("<d"), struct.Struct("<f"), struct.Struct("<Q")


def find(folder: Path) -> list[Path]:
    """The event files in a folder and below."""
    return sorted(path for path in folder.rglob("*events.out.tfevents.*") if path.is_file())


def read(files: list[Path]) -> Reading:
    """All files as one training: of one step in several, the latest by wall time stays.

    Folders that were written one after the other are restarts of it; of those that were written side by side
    the metrics are told apart by the folder's name.
    """
    reading = Reading(FRAMEWORK, files=files)
    by_folder: dict[Path, list[Path]] = {}
    for path in files:
        by_folder.setdefault(path.parent, []).append(path)
    root = min(by_folder, key=lambda folder: len(folder.parts))
    spans: list[tuple[float, float]] = []
    stripped: dict[str, str] = {}
    for folder, paths in by_folder.items():
        below = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else folder.name
        prefix = "" if below == "." or len(by_folder) == 1 else f"{below}/"
        span = (math.inf, -math.inf)
        for path in paths:
            low, high = _read_file(reading, path, prefix)
            span = (min(span[0], low), max(span[1], high))
        if span[0] <= span[1]:
            spans.append(span)
        stripped |= {
            name: name.removeprefix(prefix) for name in reading.points.names if name.startswith(prefix)
        }
    spans.sort()
    if all(before[1] <= after[0] for before, after in pairwise(spans)):
        reading.points.rename(stripped)
        if len(spans) > 1:
            reading.note(
                f"{len(spans)} folders of events, one after the other, are read as restarts of one training"
            )
    reading.note(
        "steps are those of the program that wrote the events, not shifted; values in single precision"
    )
    return reading


def _read_file(reading: Reading, path: Path, prefix: str) -> tuple[float, float]:
    """Read one file; the first and the last wall time of its values."""
    before = len(reading.points)
    size = path.stat().st_size
    torn = False
    points = reading.points
    with path.open("rb") as file:
        at = 0
        while at + 12 <= size:
            head = file.read(12)
            length = _HEAD.unpack_from(head)[0] if len(head) == 12 else size
            if length > MAX_RECORD or at + 16 + length > size:
                torn = True
                break
            body = file.read(length + 4)
            at += 16 + length
            plain = _PLAIN.fullmatch(body, 0, length)
            if plain is not None and len(plain[5]) == plain[4][0] == plain[3][0] - 7 == plain[2][0] - 9:
                points.add(
                    varint(plain[1] or b"\0", 0)[0], prefix + plain[5].decode("utf-8", "replace"),
                    _F32.unpack(plain[6])[0], _F64.unpack_from(body, 1)[0],
                )  # fmt: skip
                continue
            try:
                wall, step, values = _event(body, length)
                for tag, value in values:
                    if isinstance(value, float):
                        points.add(step, prefix + tag, value, wall)
                    else:
                        _settings(reading, tag, value)
            except (ValueError, IndexError, struct.error):
                torn = True
                break
        torn = torn or at < size
    if torn:
        reading.note(f"{path.name} is torn or still being written: read up to byte {at:,} of {size:,}")
    rows = points.columns(before)
    if not len(rows):
        return math.inf, -math.inf
    reading.steps = max(reading.steps, int(rows[:, 1].max()))
    return float(rows[:, 3].min()), float(rows[:, 3].max())


def _event(body: bytes, end: int) -> tuple[float, int, list[tuple[str, float | str]]]:
    """Wall time, step and values of an event."""
    wall, step, at = math.nan, 0, 0
    values: list[tuple[str, float | str]] = []
    while at < end:
        tag = body[at]
        if tag == 0x09:  # wall_time
            wall = _F64.unpack_from(body, at + 1)[0]
            at += 9
        elif tag == 0x10:  # step
            step, at = varint(body, at + 1)
        elif tag == 0x2A:  # summary
            length, at = varint(body, at + 1)
            if at + length > end:
                raise ValueError
            values += _summary(body, at, at + length)
            at += length
        else:
            at = _skip(body, at, end)
    if at != end or not 0 <= step <= MAX_STEP:
        raise ValueError
    return wall, step, values


def _summary(body: bytes, at: int, end: int) -> Iterator[tuple[str, float | str]]:
    while at < end:
        if body[at] != 0x0A:
            at = _skip(body, at, end)
            continue
        length, at = varint(body, at + 1)
        if at + length > end:
            raise ValueError
        found = _value(body, at, at + length)
        if found is not None:
            yield found
        at += length


def _value(body: bytes, at: int, end: int) -> tuple[str, float | str] | None:
    name, value = "", None
    while at < end:
        tag = body[at]
        if tag == 0x15:  # simple_value
            value = _F32.unpack_from(body, at + 1)[0]
            at += 5
        elif tag in (0x0A, 0x42):  # tag, tensor
            length, at = varint(body, at + 1)
            if at + length > end:
                raise ValueError
            if tag == 0x0A:
                name = body[at : at + length].decode("utf-8", "replace")
            else:
                value = _tensor(body, at, at + length)
            at += length
        else:
            at = _skip(body, at, end)
    return None if value is None else (name, value)


_DT_FLOAT, _DT_DOUBLE, _DT_STRING = 1, 2, 7


def _tensor(body: bytes, at: int, end: int) -> float | str | None:
    """The value of a tensor with one element: a float, a double or a text; None for any other."""
    dtype, content, texts = 0, b"", []
    floats: list[float] = []
    while at < end:
        field, wire = body[at] >> 3, body[at] & 7
        if field == 1 and wire == 0:
            dtype, at = varint(body, at + 1)
        elif field in (4, 5, 6, 8) and wire == 2:  # content, packed floats and doubles, texts
            length, at = varint(body, at + 1)
            if at + length > end:
                raise ValueError
            part = body[at : at + length]
            if field == 8:
                texts.append(part)
            elif field == 4:
                content = part
            elif length % (4 if field == 5 else 8) == 0:
                floats += [x for (x,) in (_F32 if field == 5 else _F64).iter_unpack(part)]
            at += length
        elif field == 5 and wire == 5:
            floats.append(_F32.unpack_from(body, at + 1)[0])
            at += 5
        elif field == 6 and wire == 1:
            floats.append(_F64.unpack_from(body, at + 1)[0])
            at += 9
        else:
            at = _skip(body, at, end)
    if dtype == _DT_STRING:
        return texts[0].decode("utf-8", "replace") if len(texts) == 1 else None
    if content and dtype in (_DT_FLOAT, _DT_DOUBLE):
        kind = _F32 if dtype == _DT_FLOAT else _F64
        return float(kind.unpack(content)[0]) if len(content) == kind.size else None
    return floats[0] if len(floats) == 1 else None


def varint(body: bytes, at: int) -> tuple[int, int]:
    value = body[at]
    if value < 128:
        return value, at + 1
    value, shift = value & 127, 7
    while True:
        at += 1
        part = body[at]
        value |= (part & 127) << shift
        if part < 128:
            return value, at + 1
        shift += 7
        if shift > 63:
            raise ValueError


def _skip(body: bytes, at: int, end: int) -> int:
    """Past a field that is of no use here."""
    key, at = varint(body, at)
    wire = key & 7
    if wire == 0:
        at = varint(body, at)[1]
    elif wire in (1, 5):
        at += 8 if wire == 1 else 4
    elif wire == 2:
        length, at = varint(body, at)
        at += length
    else:
        raise ValueError
    if at > end:
        raise ValueError
    return at


def _settings(reading: Reading, tag: str, text: str) -> None:
    """Hyperparameters that a writer noted as text: the HF Trainer's `args/text_summary` is JSON."""
    if not tag.startswith(_TEXTS):
        return
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(values, dict):
        for name, value in values.items():
            if value is None or isinstance(value, str | int | float | bool):
                reading.hyperparameters.setdefault(str(name), value)
