"""Lines that are on the disk before anyone is told so."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from evalrun.atomic import disk_errors, open_private, private_folder, sync
from evalrun.tracking.store import Store


def append_line(path: Path, line: Mapping[str, Any]) -> str:
    """Append a JSON line, durably; returns the SHA-256 of the line, which its event keeps.

    A torn last line, which a crash left, is cut off first: it was never confirmed."""
    data = orjson.dumps(line) + b"\n"
    private_folder(path.parent)
    with disk_errors(path.parent):
        is_new = not path.exists()
        descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
        try:
            end = _whole(descriptor)
            os.ftruncate(descriptor, end)
            written = 0
            while written < len(data):
                written += os.pwrite(descriptor, data[written:], end + written)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync(path.parent)
    return hashlib.sha256(data).hexdigest()


def requests_file(store: Store) -> Path:
    """Feedback on requests of applications, by which sweeps of production records know them."""
    return store.root / "feedback" / "requests.jsonl"


def _whole(descriptor: int) -> int:
    """Where the last whole line ends."""
    at = os.fstat(descriptor).st_size
    while at > 0:
        start = max(0, at - (1 << 16))
        found = os.pread(descriptor, at - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        at = start
    return 0


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; none where there is no file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    found = []
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        try:
            value = orjson.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
