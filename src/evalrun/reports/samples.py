"""The samples inside the report: compressed chunks that the browser unpacks when they are looked at.

A chunk is JSON (sample_chunks.py), deflated, in base64. Beside the chunks lies an index of a few bytes a
sample (ending, score, time, group), so that filters need not unpack anything. The writer holds one chunk and
the index.
"""

from __future__ import annotations

import base64
import json
import logging
import sys
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from evalrun.errors import UserError
from evalrun.reports.sample_chunks import TEXT_LIMIT, UNREAD, Rows, chunk
from evalrun.reports.view import RunView, ScoreColumn
from evalrun.tracking.columns import INTEGER
from evalrun.tracking.parquet import iter_batches, without_secrets
from evalrun.types import Status

_log = logging.getLogger(__name__)

_STATUS_CODES: Mapping[str, int] = {status.value: code for code, status in enumerate(Status)}
"""Codes of the four endings, in the order of `Status`."""

CHUNK_ROWS = 500
CHUNK_BYTES = 2 << 20
"""Chunks of long samples hold fewer of them."""

_CHUNKS_AT_ONCE = 4

BUDGET = 22_000_000
"""Bytes of a page that samples may take. Where there is no room for all of their texts, these are cut."""

SHORTEST = 200
"""Letters of a text that are kept however little room there is."""

MOST_SHOWN = 100_000
"""Samples in a page. Of more, those are shown whose ids have the least checksums: the same in all runs."""

CACHED, WARMUP, RETRIED = 4, 8, 16
"""Bits of an index entry's first byte above the two of the ending."""

_LEVEL = 4
_FLAG_COLUMNS = ("cached", "warmup")


class SampleWriter:
    """Writes the samples of run after run into a report.

    `scores` are those that the grid can go by, the first one to begin with. `total` is the number of all
    samples, between which the page's room is divided.
    """

    def __init__(
        self, out: BinaryIO, scores: Sequence[ScoreColumn], *, total: int = 0, scrubbed: bool = False
    ) -> None:
        self._scrubbed = scrubbed
        self._out = out
        self._scores = [(score, array("f")) for score in scores]
        self._flags = bytearray()
        self._times, self._keys, self._mirrors, self._answers = array("f"), array("I"), array("I"), array("I")
        self._groups: dict[str, _Codes] = {}
        self._columns: dict[str, None] = {}
        self._runs: list[dict[str, Any]] = []
        self._chunks = 0
        self._all, self._total, self._spent = total, min(total, MOST_SHOWN), 0
        self._limit = self._least = TEXT_LIMIT

    def add_run(self, run: RunView, path: Path, pair: str | None = None) -> None:
        """Write all samples of a run. `pair` is the run that it is compared with, if it is one of a pair."""
        sizes: list[int] = []
        shown = ""
        start = len(self._flags)
        try:
            batches = iter_batches(path, _rows_at_once(run, path), without=UNREAD)
            if self._scrubbed:
                batches = map(without_secrets, batches)
            for batch in _ahead(map(self._chosen, batches)):
                self._columns.update(dict.fromkeys(filter(_searchable, batch.schema.names)))
                shown = shown or _input_column(batch)
                for part in _parts(batch):
                    sizes.append(part.n)
                    self._index(part, start)
                    self._write("data-chunk", self._chunks, self._fitting(part, shown))
                    self._chunks += 1
        except UserError as error:
            _log.warning("from row %d on the samples of %s are left out: %s", sum(sizes), run.id, error)
        self._runs.append(
            {
                "run": run.id, "label": run.full, "model": run.model, "prompt": run.prompt,
                "dataset": run.dataset, "colour": run.colour, "start": start, "chunks": sizes,
                "input": shown, "pair": pair,
            }
        )  # fmt: skip

    def _chosen(self, batch: Any) -> Any:
        """The rows that are shown: all, or where there are too many those whose ids say so."""
        if self._all <= MOST_SHOWN:
            return batch
        from evalrun.tracking.arrow import arrow_array

        least = MOST_SHOWN / self._all * 2**32
        ids = Rows(batch).list("sample_id")
        kept = [at for at, name in enumerate(ids) if zlib.crc32(str(name).encode()) < least]
        return batch.take(arrow_array(kept, INTEGER))  # of a list it would import pandas

    def finish(self) -> None:
        """Write the index. Nothing may be added afterwards."""
        for codes in self._groups.values():
            codes.fill(len(self._flags))
        groups = self._told_apart()
        header = {
            "n": len(self._flags),
            "runs": self._runs,
            "groups": [
                {
                    "column": _plain(name),
                    "also": also,
                    "labels": codes.labels,
                    "sensitive": name.startswith("sensitive."),
                }
                for name, codes, also in groups
            ],
            "scores": [{"name": score.name, "lower": score.lower} for score, _ in self._scores],
            "columns": list(self._columns),
            "of": self._all if self._all > MOST_SHOWN else None,
            "cut": self._least if self._least < TEXT_LIMIT else None,
        }
        arrays: list[array[Any]] = [values for _, values in self._scores]
        arrays += [self._times, self._keys, self._mirrors, self._answers]
        arrays += [codes.codes for _, codes, _ in groups]
        if sys.byteorder == "big":
            for each in arrays:
                each.byteswap()
        columns = b"".join(each.tobytes() for each in arrays)
        # ASCII only, so that no mark in a label can show itself in the page's source either.
        text = json.dumps(header, separators=(",", ":")).replace("<", "\\u003c").encode()
        self._out.write(b'<script type="application/json" id="samples-index">' + text + b"</script>\n")
        self._write("id", "samples-columns", _packed(columns + bytes(self._flags)))

    def _told_apart(self) -> list[tuple[str, _Codes, list[str]]]:
        """The columns that samples can be chosen by: the sensitive ones, and others of few values, each with
        the names of those that have the same values throughout."""
        kept: list[tuple[str, _Codes, list[str]]] = []
        for name, codes in self._groups.items():
            if not (codes.tells_apart or name.startswith("sensitive.")):
                continue
            same = (also for _, other, also in kept if codes.same(other))
            also = None if name.startswith("sensitive.") else next(same, None)
            if also is None:
                kept.append((name, codes, []))
            else:
                also.append(_plain(name))
        return kept

    def _fitting(self, part: Rows, shown: str) -> bytes:
        """The chunk, packed, with its texts cut so far that all samples together keep to their room."""
        room = BUDGET * len(self._flags) / max(self._total, len(self._flags)) - self._spent
        packed = _packed(chunk(part, self._limit, shown))
        while len(packed) > room and self._limit > SHORTEST:
            shrunk = min(self._limit, _longest(part.batch)) * max(0.2, 0.9 * room / len(packed))
            self._limit = max(SHORTEST, min(int(shrunk), self._limit - 1))
            packed = _packed(chunk(part, self._limit, shown))
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

    def _index(self, rows: Rows, run_start: int) -> None:
        start = len(self._flags)
        self._flags += bytes(_flags(rows))
        for score, values in self._scores:
            values.extend(_floats(rows, f"score.{score.name}"))
        self._times.extend(_floats(rows, "e2e_s"))
        pairs = zip(rows.list("sample_id"), rows.list("repeat"), strict=True)
        keys = [f"{key}/{repeat or 0}".encode("utf-8", "replace") for key, repeat in pairs]
        self._keys.extend(map(zlib.crc32, keys))
        self._mirrors.extend(zlib.crc32(key[::-1]) for key in keys)
        given = zip(rows.list("answer"), rows.list("output"), strict=True)
        said = [output if answer is None else answer for answer, output in given]
        digests = {answer: _digest(answer) for answer in set(said)}
        self._answers.extend([digests[answer] for answer in said])
        for name in [
            *_TOLD_APART,
            *(name for name in rows.names if name.startswith(("sensitive.", "vars."))),
        ]:
            if name in rows.names:
                limit = _Codes.LIMIT if name.startswith("sensitive.") else MOST_LABELS
                codes = self._groups.setdefault(name, _Codes(limit))
                codes.fill(start)
                codes.add(rows, name)


def _flags(rows: Rows) -> list[int]:
    """The first byte of each row's entry in the index: its ending and what else is known in a bit."""
    flags = [_STATUS_CODES.get(status, 3) for status in rows.list("status")]
    bits = [(rows.list(name), bit) for name, bit in zip(_FLAG_COLUMNS, (CACHED, WARMUP), strict=True)]
    bits.append(([(tries or 0) > 1 for tries in rows.list("attempts")], RETRIED))
    for given, bit in bits:
        if any(given):
            flags = [flag | bit if on else flag for flag, on in zip(flags, given, strict=True)]
    return flags


def _plain(name: str) -> str:
    return name.removeprefix("sensitive.").removeprefix("vars.")


def _digest(answer: Any) -> int:
    """What an answer is told from others by; 0 stands for none."""
    return 0 if answer is None else zlib.crc32(str(answer).strip().encode("utf-8", "replace")) or 1


_TOLD_APART = ("target", "answer", "finish_reason", "cluster")
MOST_LABELS = 60
"""Columns of no more values than this can be chosen from; others are searched."""


class _Codes:
    """Codes of a column over all runs; 0 stands for none. A column of more than `limit` values has no
    labels any more."""

    LIMIT = 65_535

    def __init__(self, limit: int) -> None:
        self.labels: list[str] = []
        self.codes = array("H")
        self._known: dict[str | None, int] = {None: 0}
        self._limit = limit
        self._many = False

    @property
    def tells_apart(self) -> bool:
        """Whether there is something to choose from."""
        return not self._many and len(self.labels) > 1

    def same(self, other: _Codes) -> bool:
        """Whether every sample has the same value in both."""
        return self.labels == other.labels and self.codes == other.codes

    def fill(self, length: int) -> None:
        """Zeros for the samples of runs that have no such column."""
        if not self._many:
            self.codes.extend([0] * (length - len(self.codes)))

    def add(self, rows: Rows, name: str) -> None:
        """The codes of a batch's column."""
        if self._many:
            return
        values, length = rows.list(name), len(self.codes)
        if any(type(value) is not str for value in dict.fromkeys(values)):
            values = [None if value is None else str(value) for value in values]
        known = self._known
        for value in dict.fromkeys(values):
            if value not in known:
                if len(self.labels) == self._limit:
                    if self._limit < self.LIMIT:
                        self._many, self.codes = True, array("H")
                        return
                    continue
                self.labels.append(value)
                known[value] = len(self.labels)
        try:
            self.codes.extend(map(known.__getitem__, values))
        except KeyError:  # one that there was no label left for; what came before it is already there
            del self.codes[length:]
            self.codes.extend([known.get(value, 0) for value in values])


_SEARCHED = {"output", "answer", "target", "error", "prompt", "reasoning", "finish_reason", "sample_id"}


def _searchable(name: str) -> bool:
    return name in _SEARCHED or name.startswith(("vars.", "reason."))


def _input_column(batch: Any) -> str:
    """The column of the row that says most: the longest text on average, but for the target. "" without."""
    import pyarrow as pa

    lengths: dict[str, float] = {}
    rows = Rows(batch)
    targets = rows.list("target")
    for name in rows.names:
        if name.startswith("vars.") and pa.types.is_string(batch.column(name).type):
            values = rows.list(name)
            if values != targets:
                lengths[name] = sum(len(value or "") for value in values)
    return max(lengths, key=lambda name: lengths[name], default="")


def _floats(rows: Rows, name: str) -> array[float]:
    """A column of numbers as single-precision floats, NaN where there is none."""
    nan = float("nan")
    return array("f", [nan if value is None else value for value in rows.list(name)])


def _ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """The batches, the next one read by another thread while this one is written."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


def _rows_at_once(run: RunView, path: Path) -> int:
    """Rows that are read at once: short ones for several chunks, which takes a third of the time."""
    if run.counts.samples <= CHUNK_ROWS:
        return CHUNK_ROWS
    first = next(iter_batches(path, CHUNK_ROWS, without=UNREAD), None)
    times = CHUNK_BYTES // max(1, first.nbytes) if first is not None else 1
    return CHUNK_ROWS * min(_CHUNKS_AT_ONCE, max(1, times))


def _parts(batch: Any) -> Iterator[Rows]:
    """The batch in pieces of CHUNK_ROWS and of no more than about CHUNK_BYTES, one sample at least."""
    for begin in range(0, batch.num_rows, CHUNK_ROWS):
        piece = batch.slice(begin, CHUNK_ROWS)
        pieces = max(1, -(-piece.nbytes // CHUNK_BYTES))
        step = max(1, -(-piece.num_rows // pieces))
        for start in range(0, piece.num_rows, step):
            yield Rows(piece.slice(start, step))


def _packed(data: bytes) -> bytes:
    """Deflated, in base64."""
    return base64.b64encode(zlib.compress(data, _LEVEL))


def _longest(batch: Any) -> int:
    """Letters that a text of the batch has at most."""
    import pyarrow as pa

    texts = [column for column in batch.columns if pa.types.is_string(column.type)]
    return max((len(text) for column in texts for text in column.to_pylist() if text), default=SHORTEST)
