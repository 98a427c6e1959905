"""Journal segments: what a shard answered, as immutable objects on shared storage.

A segment is zstd over lines: first one that says whose they are, then lines of a journal (`evalrun.lines`).
Its name ends with the SHA-256 of its bytes, so one that was cut or changed is seen as that, and one that is
written twice is the same object. Which of two answers to one sample counts is decided by the names' order.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from evalrun.canonical import digest
from evalrun.cluster.place import Place
from evalrun.errors import UserError
from evalrun.lines import read_record
from evalrun.runner.journal import encode_record
from evalrun.types import JSON, SampleRecord

FLUSH_S = 10.0
"""Longest time that an answer waits to be in a segment, as long as the node's turn to write comes."""
FLUSH_SAMPLES = 1_000
PUT_INTERVAL_S = 1.0
"""A node writes at most one segment in so many seconds, however many shards it asks."""
INLINE_BYTES = 16 << 20
"""What is left at the end of a shard goes back with its result where it is not more, and its node has just
written a segment."""
_LOOK_S = 0.2
_SUFFIX = ".jsonl.zst"


def run_prefix(run_id: str) -> str:
    """Where the segments of a run lie."""
    return f"segments/{re.sub(r'[^A-Za-z0-9._=-]', '_', run_id)[:80]}-{digest(run_id)[:8]}"


def pack(header: dict[str, JSON], lines: Sequence[bytes]) -> bytes:
    """The bytes of a segment."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(orjson.dumps(header, option=orjson.OPT_APPEND_NEWLINE))
        out.write(b"".join(lines))
    return bytes(sink.getvalue())


def segment_name(prefix: str, attempt: str, number: int, data: bytes) -> str:
    """The path of a segment."""
    return f"{prefix}/{attempt}-{number:05d}-{hashlib.sha256(data).hexdigest()[:32]}{_SUFFIX}"


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment that was read: who wrote it, and the records of its samples."""

    header: dict[str, Any]
    records: list[dict[str, Any]]


def read_segment(place: Place, path: str) -> Segment | None:
    """A segment; None where it is not what was written. Raises UserError (exit 3)."""
    import pyarrow as pa

    data = place.get(path)
    told = path.removesuffix(_SUFFIX).rpartition("-")[2]
    if data is None or hashlib.sha256(data).hexdigest()[:32] != told:
        return None
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as file:
        first, _, rest = file.read().partition(b"\n")
    records = (read_record(line) for line in rest.splitlines(keepends=True))
    return Segment(orjson.loads(first), [record for record in records if record is not None])


class Turns:
    """Whose turn it is to write a segment: the processes of a node take turns by a file that they share."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def take(self) -> bool:
        """Whether a segment may be written now; the next one may be a second later."""
        with self._file.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            last = file.read()
            now = time.monotonic()
            if last and 0 <= now - float(last) < PUT_INTERVAL_S:
                return False
            file.truncate(0)
            file.write(repr(now).encode())
        return True


class Segments:
    """Takes the records of one shard as a journal does, and writes them in segments.

    Use inside a running event loop. What is not yet written is in `left`. After a write that failed for good
    nothing more is accepted: `append` raises its UserError.
    """

    def __init__(
        self,
        place: Place,
        prefix: str,
        header: dict[str, JSON],
        turn: Callable[[], bool],
        redact: Callable[[SampleRecord], SampleRecord] | None = None,
    ) -> None:
        """`turn` says whether a segment may be written now, `redact` gives what is kept of a record."""
        self._place, self._prefix, self._turn, self._redact = place, prefix, turn, redact
        self.attempt = f"{int(time.time() * 1000):013d}-{secrets.token_hex(3)}"
        self._header = {**header, "attempt": self.attempt}
        self.left: list[bytes] = []
        self.written: list[str] = []
        self.error: UserError | None = None
        self._since_s = time.monotonic()
        self._flusher: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._now = False

    def append(self, record: SampleRecord) -> None:
        """Hand one record over."""
        self.append_line(encode_record(record if self._redact is None else self._redact(record)))

    def append_line(self, line: bytes) -> None:
        """Hand over the line of a record. Raises the UserError of a write that failed."""
        if self.error is not None:
            raise self.error
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().create_task(self._keep_flushing())
        if not self.left:
            self._since_s = time.monotonic()
        self.left.append(line)

    def flush_now(self) -> None:
        """Write what there is as soon as the node's turn comes: the machine is about to go."""
        self._now = True

    async def close(self, *, inline: bool) -> None:
        """Write what is left; with `inline` leave it in `left` where it is little and it is not our turn."""
        self._closing.set()
        if self._flusher is not None:
            await self._flusher
        while self.left and self.error is None and not self._turn():
            if inline and sum(map(len, self.left)) <= INLINE_BYTES:
                return
            await asyncio.sleep(_LOOK_S)
        await self._flush()

    async def _keep_flushing(self) -> None:
        while self.error is None and not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._closing.wait()
                    return
            waited = time.monotonic() - self._since_s
            due = self._now or waited >= FLUSH_S or len(self.left) >= FLUSH_SAMPLES
            if self.left and due and self._turn():
                self._now = False
                await self._flush()

    async def _flush(self) -> None:
        lines = self.left
        if not lines or self.error is not None:
            return
        self.left = []
        self._since_s = time.monotonic()
        data = pack({**self._header, "samples": len(lines)}, lines)
        name = segment_name(self._prefix, self.attempt, len(self.written), data)
        try:
            await asyncio.to_thread(self._place.put_new, name, data)
        except UserError as error:
            self.left = lines + self.left
            self.error = error
            return
        self.written.append(name)


def records_of(place: Place, paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The records in some segments; those that are damaged are passed over."""
    for path in paths:
        segment = read_segment(place, path)
        yield from segment.records if segment is not None else ()
