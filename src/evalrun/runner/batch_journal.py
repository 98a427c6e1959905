"""What a run has handed to a batch API, each step durable before the next: whatever dies in between, nothing
is handed over a second time.

A batch is `made` (its file lies here), `uploaded`, `created` (it runs at the provider, and will be paid for),
and `taken` (its answers are in the run's journal).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from evalrun.atomic import open_private, private_folder, sync
from evalrun.errors import ExitCode, UserError
from evalrun.lines import is_whole, with_checksum

NAME = "batches.jsonl"
_FOLDER = "batches"


@dataclass(slots=True)
class Batch:
    """One batch: the keys of its requests, and how far it has come."""

    number: int
    keys: list[str]
    made_s: float
    file: str | None = None
    """Id of the uploaded file, empty where the API has none; None before."""
    id: str | None = None
    """What the provider calls it; None while nothing is known to run."""
    taken: bool = False


class BatchJournal:
    """The batches of one run, in its folder."""

    def __init__(self, run: Path) -> None:
        self.path = run / NAME
        self._folder = run / _FOLDER
        self.batches = {batch.number: batch for batch in read_batches(self.path)}
        self._next = max(self.batches, default=0) + 1

    @property
    def open(self) -> list[Batch]:
        """The batches whose answers are not all taken, in their order."""
        return [batch for batch in self.batches.values() if not batch.taken]

    def requests(self, batch: Batch) -> Path:
        """The file of its requests."""
        return self._folder / f"{batch.number}.jsonl"

    def results(self, batch: Batch) -> Path:
        """Where its results are fetched to."""
        return self._folder / f"{batch.number}.results.jsonl"

    def known_elsewhere(self) -> set[str]:
        """Ids of the batches of the other runs beside this one."""
        others = (path for path in self.path.parent.parent.glob(f"*/{NAME}") if path != self.path)
        return {batch.id for path in others for batch in read_batches(path) if batch.id}

    def make(self, keys: list[str], lines: list[bytes]) -> Batch:
        """Write the file of a batch, and say that there is one."""
        batch = Batch(self._next, keys, time.time())
        self._next += 1
        private_folder(self._folder)
        path = self.requests(batch)
        try:
            descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(line + b"\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
            sync(self._folder)
        except OSError as error:
            raise self._full(error) from error
        self._write({"step": "made", "batch": batch.number, "at": batch.made_s, "keys": keys})
        self.batches[batch.number] = batch
        return batch

    def uploaded(self, batch: Batch, file: str) -> None:
        """The file is at the provider."""
        batch.file = file
        self._write({"step": "uploaded", "batch": batch.number, "file": file})

    def created(self, batch: Batch, name: str) -> None:
        """The batch runs at the provider."""
        batch.id = name
        self._write({"step": "created", "batch": batch.number, "id": name, "at": time.time()})

    def take(self, batch: Batch) -> None:
        """Its answers are kept: what of it lies here is not needed any more."""
        batch.taken = True
        self._write({"step": "taken", "batch": batch.number, "at": time.time()})
        self.requests(batch).unlink(missing_ok=True)
        self.results(batch).unlink(missing_ok=True)

    def _write(self, step: dict[str, Any]) -> None:
        try:
            torn = self.path.exists() and self.path.read_bytes()[-1:] not in (b"", b"\n")
            descriptor = open_private(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                os.write(descriptor, b"\n" * torn + with_checksum(orjson.dumps(step)))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync(self.path.parent)
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> UserError:
        return UserError(
            f"cannot write what was handed to the batch API: {error.strerror or error}",
            where=str(self.path),
            remedy="Make room or repair the disk, then run the same command again: what runs is taken up.",
            exit_code=ExitCode.INCOMPLETE,
        )


def read_batches(path: Path) -> Iterator[Batch]:
    """The batches that a journal speaks of; a torn or damaged line is passed over."""
    batches: dict[int, Batch] = {}
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                if is_whole(line):
                    _take(batches, line)
    yield from batches.values()


def _take(batches: dict[int, Batch], line: bytes) -> None:
    try:
        step = orjson.loads(line)
        number = step["batch"]
        if step["step"] == "made":
            batches[number] = Batch(number, step["keys"], step["at"])
        elif step["step"] == "uploaded":
            batches[number].file = step["file"]
        elif step["step"] == "created":
            batches[number].id = step["id"]
        elif step["step"] == "taken":
            batches[number].taken = True
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return
