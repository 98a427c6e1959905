"""The files of one run while it runs: its journal, its resource readings, and whose answers they are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import orjson

from evalrun.atomic import write_private
from evalrun.canonical import digest
from evalrun.runner.journal import read_journal, repair_journal
from evalrun.runner.monitor import SystemSample
from evalrun.types import JSON


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a run that is taken up again has already: the samples done (sample id, repeat), how its
    scores stand, and where its clock ended (seconds)."""

    done: Set[tuple[str, int]]
    clock_s: float = 0.0


NOTHING_EARLIER = Earlier(frozenset())


class RunFolder:
    """The folder of one run that is not finished."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / "journal.jsonl"
        self.system = path / "system.jsonl"
        self._system: int | None = None

    def open(self, identity: Mapping[str, JSON]) -> Earlier:
        """Take up what is there, if the same model wrote it; else set it aside and begin anew.

        Samples that failed are not counted as done: they are asked again.
        """
        marker = self.path / "identity.json"
        mine = digest(identity)
        if marker.exists() and marker.read_text() != mine and self.journal.exists():
            self.journal.rename(self.journal.with_suffix(".jsonl.other-model"))
        write_private(marker, mine.encode())
        repair_journal(self.journal)
        done: set[tuple[str, int]] = set()
        clock_s = 0.0
        for record in read_journal(self.journal):
            key = (record["sample_id"], record["repeat"])
            if record["status"] == "failed":
                done.discard(key)
            else:
                done.add(key)
            clock_s = max(clock_s, record.get("done_s") or 0.0)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._system = os.open(self.system, flags, 0o600)
        return Earlier(done, clock_s)

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
