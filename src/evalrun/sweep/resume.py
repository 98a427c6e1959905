"""Which unfinished sweep is taken up again.

One that was ended hours ago was asked of what was served then: a nightly job that goes on with last night's
half would mix two nights. So an unfinished sweep is taken up only while it is fresh, and only if anything was
answered in it; a sweep without an answer (a total outage) stays in the history as it is. One whose requests
are with a batch API is taken up whatever its age: they are paid for.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.tracking.folder import CLUSTER, MANIFEST, SAMPLES, SweepFolder

if TYPE_CHECKING:
    from evalrun.tracking.store import Store

DEFAULT_WITHIN = "12h"
_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 3600.0, "d": 86400.0}


def seconds_of(span: str) -> float:
    """The seconds of `90m`, `12h`, `2d`; a plain number is hours. Raises UserError for anything else."""
    found = _SPAN.fullmatch(span)
    if found is None:
        raise UserError(
            f"'{span}' is no span of time", where="--resume-within", remedy="Write 90m, 12h or 2d."
        )
    return float(found[1]) * _SECONDS[found[2]]


@frozen
class Unfinished:
    """The unfinished sweep of the same work, if any: `folder` where it is taken up, and what to say of it."""

    folder: SweepFolder | None = None
    said: str = ""


def find_unfinished(store: Store, work_digest: str, within: str) -> Unfinished:
    """The unfinished sweep that the same command goes on with, or why it does not."""
    room_s = seconds_of(within)
    folder = store.find_incomplete(work_digest)
    if folder is None:
        return Unfinished()
    ago_s = max(0.0, datetime.now(UTC).timestamp() - _last_active(folder))
    name = f"the unfinished sweep {folder.ulid} of {_span(ago_s)} ago"
    if _handed_over(folder):  # paid for, and to be fetched for a month
        return Unfinished(folder, f"{name} is taken up again: batches of it are at the provider")
    if folder.manifest().status == "incomplete" and not _has_answers(folder):
        return Unfinished(None, f"{name} has no answers and stays as it is: this is a new sweep")
    if ago_s > room_s:
        why = f"it is older than --resume-within {within}"
        return Unfinished(None, f"{name} is not taken up again, {why}: this is a new sweep")
    return Unfinished(folder, f"{name} is taken up again")


def _last_active(folder: SweepFolder) -> float:
    """When the sweep was last worked on: its end, or, killed, the last write to a run of it."""
    events = folder.events()
    told = [datetime.fromisoformat(event["ts"]).timestamp() for event in events[-1:]]
    if events and events[-1]["action"] == "finish":
        return told[0]
    # One that was killed before its first event has a manifest only.
    written = [path.stat().st_mtime for path in (*folder.path.glob("runs/*/*"), folder.path / MANIFEST)]
    return max([0.0, *told, *written])


def _has_answers(folder: SweepFolder) -> bool:
    """Whether any run has an answered sample, or may have some in segments that were not yet gathered; looks
    no further than the first of each."""
    return (folder.path / CLUSTER).exists() or any(
        _is_answered(run) for run in (folder.path / "runs").glob("*") if run.is_dir()
    )


def _handed_over(folder: SweepFolder) -> bool:
    """Whether requests of it are with a batch API, or may be."""
    from evalrun.runner.batch_journal import NAME, read_batches

    journals = folder.path.glob(f"runs/**/{NAME}")
    return any(
        batch.file is not None and not batch.taken for path in journals for batch in read_batches(path)
    )


def _is_answered(run: Path) -> bool:
    from evalrun.runner.journal import read_journal

    if (run / SAMPLES).exists():
        return True
    return any(record.get("status") != "failed" for record in read_journal(run / "journal.jsonl"))


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
