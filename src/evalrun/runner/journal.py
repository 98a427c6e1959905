"""The files of one run while it runs: its journal, one line (`evalrun.lines`) for each finished sample,
appended as it finishes; its resource readings; and whose answers they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import orjson

from evalrun.atomic import open_private, sync, write_private
from evalrun.canonical import digest
from evalrun.errors import ExitCode, UserError
from evalrun.frozen import frozen
from evalrun.lines import has_checksum, read_record, with_checksum
from evalrun.runner.monitor import SystemSample
from evalrun.types import JSON, SampleRecord

FSYNC_INTERVAL_S = 0.25
"""Longest time that a finished sample waits to become durable."""


_FEW_LINES = 1_000
"""So many are made a table of at once."""


def encode_record(record: SampleRecord) -> bytes:
    """The line of a record."""
    try:
        return with_checksum(orjson.dumps(record))
    except TypeError:
        # Lone surrogates cannot be written as UTF-8; integers beyond 64 bits are beyond orjson.
        return with_checksum(orjson.dumps(_printable(dataclasses.asdict(record))))


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_printable(str(key)): _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 63:
        return str(value)
    return value


class Journal:
    """Appends records to a file. Use inside a running event loop.

    `on_durable` is called (on the loop) with the number of samples that the last fsync made durable.
    After a failed write nothing more is accepted: `error` holds what happened, and `append` raises it.
    """

    def __init__(
        self,
        path: Path,
        on_durable: Callable[[int], None] | None = None,
        *,
        aside: bool = False,
        redact: Callable[[SampleRecord], SampleRecord] | None = None,
    ) -> None:
        """`aside`: lines are written by the thread that makes them durable, so that the loop never waits for
        the disk; they may be lost until then. `redact` gives the record that is written in a record's
        place."""
        self._path = path
        self._redact = redact
        self._aside = aside
        self._on_durable = on_durable
        self._descriptor = open_private(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._named = False
        self._lines: list[bytes] = []
        self._unsynced = 0
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._synced = False
        self.error: UserError | None = None
        self._syncer = self._loop.create_task(self._sync_forever())

    def append(self, record: SampleRecord) -> None:
        """Hand one record over. It is written at the end of this turn of the event loop."""
        self.append_line(encode_record(record if self._redact is None else self._redact(record)))

    def append_line(self, line: bytes) -> None:
        """The same for the line of a record."""
        if self.error is not None:
            raise self.error
        if not self._lines:
            if self._aside:
                self._wake.set()
            else:
                self._loop.call_soon(self._write)
        self._lines.append(line)

    def _write(self) -> None:
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        try:
            self._put(b"".join(lines))
        except OSError as error:
            self.error = self._failure(error)
            return
        self._unsynced += len(lines)
        self._wake.set()

    def _put(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]

    async def _sync_forever(self) -> None:
        while not self._closing.is_set():
            await self._wake.wait()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FSYNC_INTERVAL_S):
                    await self._closing.wait()
            if not self._closing.is_set():
                await self._sync()

    async def _sync(self) -> None:
        lines: list[bytes] = []
        if self._aside:
            lines, self._lines = self._lines, []
        count, self._unsynced = self._unsynced + len(lines), 0
        if not count or self.error is not None:
            return
        self._synced = True
        try:
            await asyncio.to_thread(self._make_durable, b"".join(lines))
        except OSError as error:
            self.error = self._failure(error)
            return
        if self._on_durable is not None:
            self._on_durable(count)

    def _make_durable(self, data: bytes) -> None:
        self._put(data)
        os.fdatasync(self._descriptor)
        if not self._named:  # the new name must survive a power cut as well as the lines
            sync(self._path.parent)
            self._named = True
        # What is written into a file that somebody removed is accepted by the system, and lost.
        if not os.path.samestat(self._path.stat(), os.fstat(self._descriptor)):
            raise FileNotFoundError(errno.ENOENT, "another file lies in its place")

    async def durable(self) -> None:
        """Make durable what was appended until now. Raises the UserError of a failed write."""
        self._write()
        self._wake.clear()
        lines, self._lines = (self._lines, []) if self._aside else ([], [])
        self._unsynced = 0
        try:
            await asyncio.to_thread(self._make_durable, b"".join(lines))
        except OSError as error:
            self.error = self._failure(error)
        if self.error is not None:
            raise self.error

    def _failure(self, error: OSError) -> UserError:
        if isinstance(error, FileNotFoundError):
            return UserError(
                "the journal was removed while the run wrote it: what is asked from here on would be lost",
                where=str(self._path),
                remedy="Run the same command again: it goes on with what is still there, or begins anew.",
                exit_code=ExitCode.INCOMPLETE,
            )
        return UserError(
            f"cannot write the journal: {error.strerror or error}",
            where=str(self._path),
            remedy="Make room or repair the disk, then run the same command again: what was written is kept.",
            exit_code=ExitCode.INCOMPLETE,
        )

    async def close(self, *, whole: bool = False) -> None:
        """Write and sync what is left. Raises the UserError of a failed write.

        Where the run is `whole` and took less time than a sample may wait to become durable anyway, its lines
        are not synced: the run's table, which is, is made of them next.
        """
        self._closing.set()
        self._wake.set()
        await self._syncer
        self._write()
        if not whole or self._synced or self._unsynced > _FEW_LINES:
            await self._sync()
        os.close(self._descriptor)
        if self.error is not None:
            raise self.error


def read_journal(path: Path, damaged: list[int] | None = None) -> Iterator[dict[str, Any]]:
    """The journal's records in the order they were written.

    A last line without its newline, or a line that is not what was written (a machine that lost power, a disk
    that lost a bit), is passed over: the sample it stood for is simply asked again. The numbers of the latter
    are put into `damaged`.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            record = read_record(line)
            if record is not None:
                yield record
            elif damaged is not None:
                damaged.append(number)


@frozen
class Served:
    """The models and builds that answers came from, as servers name them."""

    models: frozenset[str] = frozenset()
    fingerprints: frozenset[str] = frozenset()

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> Served:
        """What journalled answers say; those from the cache were given another day."""
        fresh = [record for record in records if not record.get("cached")]
        return cls(
            frozenset(str(record["model"]) for record in fresh if record.get("model")),
            frozenset(str(record["fingerprint"]) for record in fresh if record.get("fingerprint")),
        )

    def differs(self, other: Served) -> bool:
        """Whether nothing that both name is the same: another model, or another build of it."""
        pairs = ((self.models, other.models), (self.fingerprints, other.fingerprints))
        return any(mine and theirs and mine.isdisjoint(theirs) for mine, theirs in pairs)

    def __str__(self) -> str:
        return ", ".join([*sorted(self.models), *sorted(self.fingerprints)]) or "nobody named"


def _parts(path: Path, before: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the records before and after so many bytes say of who answered."""
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    at = 0
    with path.open("rb") as file:
        for line in file:
            record = read_record(line)
            if record is not None:
                kept = {key: record.get(key) for key in ("model", "fingerprint", "cached")}
                parts[at >= before].append(kept)
            at += len(line)
    return parts


def repair_journal(path: Path) -> None:
    """Cut a torn last line off, so that the next line starts on a line of its own."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        keep = size
        while keep > 0:
            start = max(0, keep - 65536)
            file.seek(start)
            newline = file.read(keep - start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep < size:
            file.truncate(keep)


@frozen
class Earlier:
    """What a run that is taken up again has already: the samples done (sample id, repeat), where its clock
    ended (seconds), the samples that failed (they are asked again, after those that were never asked), and
    how many lines of its journal are damaged."""

    done: Set[tuple[str, int]]
    clock_s: float = 0.0
    failed: Set[tuple[str, int]] = frozenset()
    damaged: int = 0


class Named(Protocol):
    """What has a sample's id."""

    @property
    def sample_id(self) -> str: ...


NOTHING_EARLIER = Earlier(frozenset())


class RunFolder:
    """The folder of one run that is not finished."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / "journal.jsonl"
        self.system = path / "system.jsonl"
        self._system: int | None = None

    def open(self, identity: Mapping[str, JSON], earlier: Earlier | None = None) -> Earlier:
        """Take up what is there, if the same model wrote it; else set it aside and begin anew.

        Samples that failed are not counted as done: they are asked again. Where it is known what there is
        (`earlier`), the journal is not read.
        """
        marker = self.path / "identity.json"
        mine = digest(identity)
        known = marker.read_bytes() if marker.exists() else b""
        if known and known != mine.encode() and self.journal.exists():
            self.journal.rename(self.journal.with_suffix(".jsonl.other-model"))
        if known != mine.encode():
            write_private(marker, mine.encode(), durable=False)
        repair_journal(self.journal)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._system = open_private(self.system, flags)
        if earlier is not None:
            return earlier
        done: set[tuple[str, int]] = set()
        failed: set[tuple[str, int]] = set()
        damaged: list[int] = []
        clock_s = 0.0
        for record in read_journal(self.journal, damaged):
            key = (record["sample_id"], record.get("repeat", 0))
            is_failed = record.get("status") == "failed"
            (done if is_failed else failed).discard(key)
            (failed if is_failed else done).add(key)
            clock_s = max(clock_s, record.get("done_s") or 0.0)
        return Earlier(done, clock_s, failed, len(damaged))

    def drop_unknown(self, earlier: Earlier, samples: Iterable[Named], repeats: int) -> tuple[Earlier, str]:
        """Set lines aside that speak of samples which the run has not: `earlier` without them, and what to
        say of it.

        Only a journal of before the checksums is looked through: in another a damaged id is seen as that.
        """
        first = b""
        if self.journal.exists():
            with self.journal.open("rb") as file:
                first = file.readline()
        if not first or has_checksum(first):
            return earlier, ""
        known = {sample.sample_id for sample in samples}
        kept, strange, keys = [], [], set()
        for line in self.journal.read_bytes().splitlines(keepends=True):
            record = read_record(line)
            key = (record["sample_id"], record.get("repeat", 0)) if record else None
            if key is None or (key[0] in known and 0 <= key[1] < repeats):
                kept.append(line)
            else:
                strange.append(line)
                keys.add(key)
        if not strange:
            return earlier, ""
        aside = self.journal.with_suffix(".jsonl.unknown")
        write_private(aside, b"".join(strange))
        write_private(self.journal, b"".join(kept))
        named = ", ".join(sorted(str(key[0])[:60] for key in keys)[:3])
        said = (
            f"{len(strange)} lines of its journal speak of samples that the dataset has not ({named}): they "
            f"were damaged, and lie in {aside}; what they stood for was asked again"
        )
        return replace(earlier, done=earlier.done - keys, failed=earlier.failed - keys), said

    def size(self) -> int:
        """The bytes of the journal."""
        return self.journal.stat().st_size if self.journal.exists() else 0

    def drop_other_model(self, before: int) -> str:
        """Where the answers after the first `before` bytes of the journal come from another model, or build
        of it, than those before: set these aside, and say so. Servers name the two in their answers."""
        earlier, later = (Served.of(part) for part in _parts(self.journal, before))
        if not later.differs(earlier):
            return ""
        lines = self.journal.read_bytes()
        aside = self.journal.with_suffix(".jsonl.other-model")
        write_private(aside, lines[:before])
        write_private(self.journal, lines[before:])
        return (
            f"{earlier} had answered the part that was taken up again, and {later} answers now: "
            "all of its samples were asked again"
        )

    def write_system(self, sample: SystemSample) -> None:
        """Append one resource reading. A full disk is the journal's to report."""
        if self._system is not None:
            with contextlib.suppress(OSError):
                os.write(self._system, orjson.dumps(sample.row(), option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Close the resource readings."""
        if self._system is not None:
            os.close(self._system)
            self._system = None
