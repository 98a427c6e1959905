"""Looking on while another process runs a sweep, by what it writes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalrun.analysis.conclude import scorer_names
from evalrun.lines import read_record
from evalrun.reports.progress import Progress
from evalrun.runner.journal import NOTHING_EARLIER, RunFolder
from evalrun.sweep.progress import ProgressAdapter
from evalrun.tracking.folder import RUN, SweepFolder
from evalrun.types import SampleRecord, Status

PAUSE_S = 0.5


@dataclass(slots=True)
class _Followed:
    """One run: where its journal was read to, and whether it ended."""

    journal: Path
    result: Path
    begun: bool = False
    ended: bool = False
    at: int = 0
    rest: bytes = field(default=b"")


def follow(folder: SweepFolder, display: Progress, pause_s: float = PAUSE_S) -> None:
    """Show the progress of a sweep until no process runs it any more. Changes nothing."""
    manifest = folder.manifest()
    resolved = manifest.suite.resolved
    scorers = scorer_names(resolved if isinstance(resolved, dict) else {})
    adapter = ProgressAdapter(display, scorers[0] if scorers else "")
    runs: dict[str, _Followed] = {}
    totals: list[tuple[str, int]] = []
    for planned in manifest.plan:
        files = RunFolder(folder.path / "runs" / planned.run)
        runs[planned.run] = _Followed(files.journal, files.path / RUN)
        n = manifest.datasets.get(planned.dataset, {}).get("n")
        totals.append((planned.run, (n if isinstance(n, int) else 0) * planned.repeats))
    display.start(totals)
    try:
        going = True
        while going:
            going = folder.is_locked()  # looked at first: what is written last is read once more
            for (run_id, total), run in zip(totals, runs.values(), strict=True):
                _look(run_id, total, run, adapter)
            if going:
                time.sleep(pause_s)
    finally:
        display.stop()


def _look(run_id: str, total: int, run: _Followed, adapter: ProgressAdapter) -> None:
    if run.ended:
        return
    run.ended = run.result.exists()
    records = _new_records(run)
    if (records or run.ended) and not run.begun:
        run.begun = True
        adapter.begin(run_id, total, NOTHING_EARLIER)
    for record in records:
        adapter.sample(run_id, record)
    if run.ended and run.begun:
        adapter.end(run_id)


def _new_records(run: _Followed) -> list[SampleRecord]:
    try:
        with run.journal.open("rb") as file:
            file.seek(run.at)
            data = run.rest + file.read()
            run.at = file.tell()
    except OSError:
        return []  # not begun yet, or finished between two looks
    *lines, run.rest = data.split(b"\n")
    found = [read_record(line + b"\n") for line in lines]
    return [_record(record) for record in found if record is not None]


def _record(record: dict[str, Any]) -> SampleRecord:
    known = {name: record[name] for name in SampleRecord.__dataclass_fields__ if name in record}
    return SampleRecord(**{**known, "status": Status(record["status"])})
