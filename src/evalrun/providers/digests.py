"""SHA-256 of large files, computed once: the digest is kept with the size and time of the file it is of."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import orjson

from evalrun.paths import models_dir


def file_sha256(path: Path) -> str:
    """The digest of a file as 64 hexadecimal digits.

    Read from a note in the cache folder while the file's size, time and inode are unchanged.
    Raises OSError when the file cannot be read.
    """
    path = path.resolve()
    state = path.stat()
    mark = [state.st_size, state.st_mtime_ns, state.st_ino]
    note = _note_of(path)
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        known = orjson.loads(note.read_bytes())
        if known["mark"] == mark:
            return str(known["sha256"])
    digest = computed_sha256(path)
    _write(note, orjson.dumps({"mark": mark, "sha256": digest}))
    return digest


def computed_sha256(path: Path) -> str:
    """The digest of a file, computed now. Raises OSError when it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note_of(path: Path) -> Path:
    return models_dir() / ".digests" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def _write(note: Path, text: bytes) -> None:
    """Keep the note if that is possible; a full disk only costs computing the digest again."""
    part = note.with_suffix(f".{os.getpid()}.part")
    with contextlib.suppress(OSError):
        note.parent.mkdir(mode=0o700, exist_ok=True)
        part.write_bytes(text)
        part.replace(note)
