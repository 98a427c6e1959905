"""What a probe keeps of each turn: `probe.jsonl` in the folder of the day's sweep, one line a turn and run.

Lines have checksums and are appended durably, so that a prober that is killed loses no turn that it had told
of. Nothing here imports numpy: the loop between turns stays small.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import orjson

from evalrun.atomic import disk_errors, open_private, write_private
from evalrun.lines import is_whole, with_checksum
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

RECORDS, MARK = "probe.jsonl", "probing"
"""The records of a day, and the mark that says whose day it is."""

DAY_S = 86_400.0

State: TypeAlias = Literal["up", "degraded", "down", "unknown"]
"""`up`: every request was answered; `down`: more than half were not; `unknown`: none may be blamed on the
deployment, since the control did not answer either."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of one run. Times are Unix seconds; `slot` is when it was due. `good` requests meet the SLO
    (without one: were answered). Lists hold one value an answered request that has one."""

    run: str
    turn: int
    slot: float
    begun: float
    ended: float
    state: State
    requests: int
    ok: int
    good: int
    e2e_s: tuple[float, ...] = ()
    ttft_s: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    scorer: str = ""
    errors: Mapping[str, int] = field(default_factory=dict)
    tls_days: float | None = None
    address: str = ""
    every_s: float = 0.0
    sweep: str = ""


@dataclass(frozen=True, slots=True)
class Missed:
    """Slots in which no turn was taken, from `first` to `last` (Unix seconds), and why."""

    first: float
    last: float
    slots: int
    why: str


@dataclass(frozen=True, slots=True)
class History:
    """What is recorded of a probe, in the order in which it was written. `lines_lost` could not be read."""

    turns: tuple[Turn, ...] = ()
    missed: tuple[Missed, ...] = ()
    begun: tuple[tuple[int, float], ...] = ()
    """Number and slot of turns that were begun; one that has no record was ended from outside."""
    lines_lost: int = 0

    @property
    def runs(self) -> list[str]:
        """The runs, in the order of their first turn."""
        return list(dict.fromkeys(turn.run for turn in self.turns))

    def of(self, run: str) -> list[Turn]:
        """The turns of one run."""
        return [turn for turn in self.turns if turn.run == run]

    @property
    def newest(self) -> float | None:
        """The slot of the turn that was begun last."""
        return self.begun[-1][1] if self.begun else None


def append(folder: SweepFolder, kind: str, values: Mapping[str, Any]) -> None:
    """Append one record, durably. A line that a kill left torn is ended first."""
    path = folder.path / RECORDS
    with disk_errors(folder.path):
        descriptor = open_private(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, b"\n" * torn + with_checksum(orjson.dumps({"kind": kind, **values})))
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def append_turn(folder: SweepFolder, turn: Turn) -> None:
    """Append the record of a turn."""
    append(folder, "turn", asdict(turn))


def append_missed(folder: SweepFolder, missed: Missed) -> None:
    """Append the record of slots that were missed."""
    append(folder, "missed", asdict(missed))


def read(folders: Iterable[SweepFolder]) -> History:
    """What these sweeps' folders hold of a probe, given the oldest first."""
    turns, missed, begun, lost = [], [], [], 0
    for folder in folders:
        for record in _lines(folder.path / RECORDS):
            kind = record.pop("kind", "") if record is not None else ""
            try:
                if kind == "turn" and record is not None:
                    turns.append(_turn({**record, "sweep": folder.ulid}))
                elif kind == "missed" and record is not None:
                    missed.append(Missed(**record))
                elif kind == "begin" and record is not None:
                    begun.append((int(record["turn"]), float(record["slot"])))
                else:
                    lost += 1
            except (TypeError, KeyError, ValueError):
                lost += 1
    return History(tuple(turns), tuple(missed), tuple(begun), lost)


_FIELDS = frozenset(each.name for each in fields(Turn))


def _turn(record: Mapping[str, Any]) -> Turn:
    """A turn as it was written; what a later version added is passed over."""
    lists = {name: tuple(record.get(name) or ()) for name in ("e2e_s", "ttft_s", "scores")}
    return Turn(**{key: value for key, value in record.items() if key in _FIELDS} | lists)


def _lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """The records of a file; None for a line that is not what was written."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            record = None
            with contextlib.suppress(orjson.JSONDecodeError):
                record = orjson.loads(line) if is_whole(line) else None
            if isinstance(record, dict):
                record.pop("crc32", None)
                yield record
            elif line.strip():
                yield None


def day_of(slot: float) -> str:
    """The UTC day of a slot, as 2026-11-30."""
    return datetime.fromtimestamp(slot, UTC).date().isoformat()


def write_mark(folder: SweepFolder, project: str, suite: str, day: str, env: str = "") -> None:
    """Say that the sweep is the probe's of this project, day and environment, by a suite of this digest."""
    mark = {"project": project, "suite": suite, "day": day, "env": env}
    write_private(folder.path / MARK, orjson.dumps(mark))


def probed(store: Store) -> dict[str, str]:
    """The projects that are probed, each with the environment that its newest suite names."""
    marks = [read_mark(folder) for folder in reversed(store.folders())]
    return {mark["project"]: mark.get("env", "") for mark in marks if mark}


def read_mark(folder: SweepFolder) -> dict[str, str]:
    """Whose day the sweep is; empty where it is no probe's."""
    try:
        mark = orjson.loads((folder.path / MARK).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return mark if isinstance(mark, dict) else {}


def days(store: Store, project: str, since: str = "") -> list[tuple[dict[str, str], SweepFolder]]:
    """The probe's sweeps of a project with their marks, the oldest day first; from the day `since` on."""
    marked = [(read_mark(folder), folder) for folder in reversed(store.folders())]
    wanted = [pair for pair in marked if pair[0].get("project") == project and pair[0]["day"] >= since]
    return sorted(wanted, key=lambda pair: (pair[0]["day"], pair[1].ulid))


def history(store: Store, project: str, since: float = 0.0) -> History:
    """What is recorded of the probe of a project, from the UTC day of `since` (Unix seconds) on."""
    return read(folder for _, folder in days(store, project, day_of(since) if since else ""))
