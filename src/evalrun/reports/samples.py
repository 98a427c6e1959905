"""The samples inside the report: compressed chunks that the browser unpacks when they are looked at.

A chunk is JSON (see chunks.py), deflated, in base64. Beside the chunks lies an index of a few bytes a sample
(ending, score, time, group), so that filters need not unpack anything. The writer holds one chunk and the
index.
"""

from __future__ import annotations

import base64
import json
import sys
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from evalrun.reports.chunks import TEXT_LIMIT, chunk
from evalrun.reports.columns import STATUS_CODES
from evalrun.reports.view import RunView

CHUNK_ROWS = 500
CHUNK_BYTES = 2 << 20
"""Chunks of long samples hold fewer of them."""

BUDGET = 22_000_000
"""Bytes of a page that samples may take. Where there is no room for all of their texts, these are cut."""

SHORTEST = 200
"""Letters of a text that are kept however little room there is."""

CACHED, WARMUP, RETRIED = 4, 8, 16
"""Bits of an index entry's first byte above the two of the ending."""

_LEVEL = 6
_FLAG_COLUMNS = ("cached", "warmup")


class SampleWriter:
    """Writes the samples of run after run into a report.

    `score` names the score that filters go by; `lower` says that it gets better downwards, so that there is
    no right and wrong. `total` is the number of all samples, between which the page's room is divided.
    """

    def __init__(self, out: BinaryIO, score: str | None, *, lower: bool = False, total: int = 0) -> None:
        self._out = out
        self._lower = lower
        self._score = f"score.{score}" if score else ""
        self._flags = bytearray()
        self._scores, self._times, self._keys = array("f"), array("f"), array("I")
        self._groups: dict[str, _Codes] = {}
        self._runs: list[dict[str, Any]] = []
        self._chunks = 0
        self._total, self._spent = total, 0
        self._limit = self._least = TEXT_LIMIT

    def add_run(self, run: RunView, path: Path) -> None:
        """Write all samples of a run."""
        import pyarrow.parquet as pq

        sizes: list[int] = []
        start = len(self._flags)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=CHUNK_ROWS):
                for part in _parts(batch):
                    sizes.append(part.num_rows)
                    self._index(part, start)
                    self._write("data-chunk", self._chunks, self._fitting(part))
                    self._chunks += 1
        self._runs.append(
            {
                "run": run.run, "label": run.full, "model": run.model, "prompt": run.prompt,
                "dataset": run.dataset, "colour": run.colour, "start": start, "chunks": sizes,
            }
        )  # fmt: skip

    def finish(self) -> None:
        """Write the index. Nothing may be added afterwards."""
        for codes in self._groups.values():
            codes.fill(len(self._flags))
        groups = list(self._groups.items())
        header = {
            "n": len(self._flags),
            "runs": self._runs,
            "groups": [{"column": name.partition(".")[2], "labels": codes.labels} for name, codes in groups],
            "score": self._score.partition(".")[2],
            "lower": self._lower,
            "cut": self._least if self._least < TEXT_LIMIT else None,
        }
        arrays: list[array[Any]] = [self._scores, self._times, self._keys, *(c.codes for _, c in groups)]
        if sys.byteorder == "big":
            for each in arrays:
                each.byteswap()
        columns = b"".join(each.tobytes() for each in arrays)
        # ASCII only, so that no mark in a label can show itself in the page's source either.
        text = json.dumps(header, separators=(",", ":")).replace("<", "\\u003c").encode()
        self._out.write(b'<script type="application/json" id="samples-index">' + text + b"</script>\n")
        self._write("id", "samples-columns", _packed(columns + bytes(self._flags)))

    def _fitting(self, part: Any) -> bytes:
        """The chunk, packed, with its texts cut so far that all samples together keep to their room."""
        room = BUDGET * len(self._flags) / max(self._total, len(self._flags)) - self._spent
        packed = _packed(chunk(part, self._limit))
        while len(packed) > room and self._limit > SHORTEST:
            shrunk = min(self._limit, _longest(part)) * max(0.2, 0.9 * room / len(packed))
            self._limit = max(SHORTEST, min(int(shrunk), self._limit - 1))
            packed = _packed(chunk(part, self._limit))
        self._spent += len(packed)
        self._least = min(self._least, self._limit)
        if len(packed) < 0.6 * room:
            self._limit = min(TEXT_LIMIT, self._limit * 3 // 2)
        return packed

    def _write(self, attribute: str, value: object, packed: bytes) -> None:
        self._out.write(b'<script type="application/octet-stream" %s="%s">' % (
            attribute.encode(), str(value).encode()))  # fmt: skip
        self._out.write(packed)
        self._out.write(b"</script>\n")

    def _index(self, batch: Any, run_start: int) -> None:
        n = batch.num_rows
        flags = [STATUS_CODES.get(status, 3) for status in _list(batch, "status", n)]
        for name, bit in zip(_FLAG_COLUMNS, (CACHED, WARMUP), strict=True):
            flags = [
                flag | bit if on else flag for flag, on in zip(flags, _list(batch, name, n), strict=True)
            ]
        attempts = _list(batch, "attempts", n)
        flags = [
            flag | RETRIED if (tries or 0) > 1 else flag for flag, tries in zip(flags, attempts, strict=True)
        ]
        start = len(self._flags)
        self._flags += bytes(flags)
        nan = float("nan")
        self._scores.extend(nan if v is None else v for v in _list(batch, self._score, n))
        self._times.extend(nan if v is None else v for v in _list(batch, "e2e_s", n))
        keys = zip(_list(batch, "sample_id", n), _list(batch, "repeat", n), strict=True)
        self._keys.extend(zlib.crc32(f"{key}/{repeat or 0}".encode()) for key, repeat in keys)
        for name in batch.schema.names:
            if name.startswith("sensitive."):
                codes = self._groups.setdefault(name, _Codes())
                codes.fill(start)
                codes.add(batch.column(name).to_pylist())


class _Codes:
    """Codes of a group column over all runs; 0 stands for none."""

    LIMIT = 65_535

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.codes = array("H")
        self._known: dict[str, int] = {}

    def fill(self, length: int) -> None:
        """Zeros for the samples of runs that have no such column."""
        self.codes.extend([0] * (length - len(self.codes)))

    def add(self, values: Sequence[str | None]) -> None:
        for value in values:
            code = 0
            if value is not None:
                code = self._known.get(value, 0)
                if not code and len(self.labels) < self.LIMIT:
                    self.labels.append(value)
                    code = self._known[value] = len(self.labels)
            self.codes.append(code)


def _list(batch: Any, name: str, n: int) -> list[Any]:
    found: list[Any] = batch.column(name).to_pylist() if name in batch.schema.names else [None] * n
    return found


def _parts(batch: Any) -> Iterator[Any]:
    """The batch in pieces of no more than about CHUNK_BYTES, one sample at least."""
    pieces = max(1, -(-batch.nbytes // CHUNK_BYTES))
    step = max(1, -(-batch.num_rows // pieces))
    for start in range(0, batch.num_rows, step):
        yield batch.slice(start, step)


def _packed(data: bytes) -> bytes:
    """Deflated, in base64."""
    return base64.b64encode(zlib.compress(data, _LEVEL))


def _longest(batch: Any) -> int:
    """Letters that a text of the batch has at most."""
    import pyarrow as pa

    texts = [column for column in batch.columns if pa.types.is_string(column.type)]
    return max((len(text) for column in texts for text in column.to_pylist() if text), default=SHORTEST)
