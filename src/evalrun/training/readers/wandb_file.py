"""W&B's own file, `run-<id>.wandb`, that its client writes whether or not it is online: read without wandb.

After a header (`:W&B`, two bytes, a version) it is a log as LevelDB writes it: blocks of 32 KiB with records
of checksum (4 bytes), length (2) and type (1), of which one may go over several. A record is a protocol
buffer `Record` with history (2: items (1), step (2)), config (5) or run (17); an item has a key (1), nested
keys (2) and JSON (16). https://github.com/wandb/wandb/blob/main/wandb/proto/wandb_internal.proto
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalrun.errors import UserError
from evalrun.training.readers import Reading
from evalrun.training.readers.services import WANDB, add_wandb_rows
from evalrun.training.readers.tensorboard import varint

_HEAD = b":W&B"
_HEADER, _BLOCK, _RECORD = 7, 32_768, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_HISTORY, _CONFIG, _RUN = 2, 5, 17


def find(folder: Path) -> list[Path]:
    """The files of W&B in a folder and in what its client makes below one (`wandb/offline-run-…/`)."""
    places = ("*.wandb", "*run-*/*.wandb", "wandb/*run-*/*.wandb")
    return sorted({path.resolve() for place in places for path in folder.glob(place) if path.is_file()})


def read(path: Path) -> Reading:
    """One run, up to where its file is whole. Raises UserError where it is no such file."""
    reading = Reading(WANDB, files=[path])
    rows: list[dict[str, Any]] = []
    try:
        for body in _records(path, reading):
            for field, value in _fields(body):
                if field == _HISTORY and isinstance(value, bytes):
                    rows.append(_row(value))
                elif field in (_CONFIG, _RUN) and isinstance(value, bytes):
                    _settings(reading, value, of_run=field == _RUN)
    except (ValueError, IndexError):
        reading.note(f"{path.name} is torn or still being written: read up to where it is whole")
    add_wandb_rows(reading, rows)
    return reading


def _records(path: Path, reading: Reading) -> Iterator[bytes]:
    """The records of the log. What was torn at the end is left out, with a note."""
    with path.open("rb") as file:
        if file.read(_HEADER)[:4] != _HEAD:
            raise UserError("is no file of W&B", where=str(path), remedy="Copy it again, or name another.")
        at, open_ = _HEADER, False
        parts: list[bytes] = []
        while True:
            left = _BLOCK - at % _BLOCK
            if left < _RECORD:
                at += len(file.read(left))
                continue
            head = file.read(_RECORD)
            if not head or not any(head):
                break
            length, kind = int.from_bytes(head[4:6], "little"), head[6] if len(head) == _RECORD else 0
            body = file.read(length)
            if len(body) < length or not _FULL <= kind <= _LAST or _crc(kind, body) != head[:4]:
                reading.note(f"{path.name} is torn or still being written: read up to byte {at:,}")
                return
            at += _RECORD + length
            if kind in (_FULL, _FIRST):
                parts = []
            parts.append(body)
            open_ = kind in (_FIRST, _MIDDLE)
            if not open_:
                yield b"".join(parts)
        if open_:
            reading.note(f"{path.name} is torn or still being written: read up to byte {at:,}")


def _crc(kind: int, body: bytes) -> bytes:
    return (zlib.crc32(body, zlib.crc32(bytes([kind]))) & 0xFFFFFFFF).to_bytes(4, "little")


def _fields(body: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field: a whole number, or bytes. Raises ValueError or IndexError."""
    at = 0
    while at < len(body):
        key, at = varint(body, at)
        wire = key & 7
        if wire == 0:
            value, at = varint(body, at)
            yield key >> 3, value
        elif wire in (1, 2, 5):
            length, at = varint(body, at) if wire == 2 else (8 if wire == 1 else 4, at)
            if at + length > len(body):
                raise ValueError
            yield key >> 3, body[at : at + length]
            at += length
        else:
            raise ValueError


def _items(body: bytes, of: int) -> Iterator[tuple[str, Any]]:
    """Keys (nested ones joined by dots) and values of the items in field `of`."""
    for field, item in _fields(body):
        if field != of or not isinstance(item, bytes):
            continue
        key, nested, text = "", [], b"null"
        for number_, value in _fields(item):
            if isinstance(value, bytes):
                if number_ == 1:
                    key = value.decode("utf-8", "replace")
                elif number_ == 2:
                    nested.append(value.decode("utf-8", "replace"))
                elif number_ == 16:
                    text = value
        try:
            yield ".".join(nested) or key, json.loads(text)
        except (ValueError, RecursionError):
            continue


def _row(body: bytes) -> dict[str, Any]:
    """One line of the history, with `_step`."""
    row = dict(_items(body, 1))
    for field, value in _fields(body):
        if field == 2 and isinstance(value, bytes):
            row.setdefault("_step", next((n for f, n in _fields(value) if f == 1 and isinstance(n, int)), 0))
    return row


def _settings(reading: Reading, body: bytes, *, of_run: bool) -> None:
    """Hyperparameters, and the run's name."""
    if not of_run:
        _take(reading, dict(_items(body, 1)))
        return
    known = {field: value for field, value in _fields(body) if isinstance(value, bytes)}
    if 4 in known:
        _take(reading, dict(_items(known[4], 1)))
    name = known.get(8) or known.get(1) or b""  # display name, id
    reading.name = name.decode("utf-8", "replace") or reading.name


def _take(reading: Reading, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict) and set(value) <= {"value", "desc"}:
            value = value.get("value")
        plain = value is None or isinstance(value, str | int | bool | list | dict)
        if not name.startswith("_") and (plain or (isinstance(value, float) and math.isfinite(value))):
            reading.hyperparameters[name] = value
