"""From the journal of a tracked training to its series: when it ends, or was ended."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalrun.errors import UserError
from evalrun.tracking.events import utc_now
from evalrun.tracking.store import Store
from evalrun.tracking.trainings import JOURNAL, METRICS, CheckpointRow, TrainingFolder
from evalrun.training.alerts import watched
from evalrun.training.architecture import architecture_of
from evalrun.training.importing import checkpoint_row
from evalrun.training.journal import journal_points
from evalrun.training.series import Points, Series, read_series


def end_training(
    store: Store,
    folder: TrainingFolder,
    status: str,
    system: Mapping[str, Any],
    checkpoints: Sequence[CheckpointRow],
    unwritten: int = 0,
) -> None:
    """Write the series, the checkpoints' digests and how it ended; the journal goes when all is there.
    `unwritten` are lines of which the journal could not even tell."""
    points = Points()
    resumed, lost = journal_points(folder.path / JOURNAL, points)
    lost += unwritten
    manifest = folder.training()
    notes = list(manifest.notes)
    if lost:
        notes.append(f"{lost:,} lines could not be written")
    rows, card = _checked(checkpoints)
    series = points.series()
    series.write(folder.path / METRICS)
    folder.write_checkpoints(rows)
    known = [each for each in series.names if not each.startswith("system.")]
    steps = int(series.only(known).step.max()) if known else 0
    if status == "finished" and known and watched(series, manifest.planned_steps)[1] is not None:
        status = "diverged"
    folder.update(
        status=status,
        finished_at=utc_now(),
        steps=steps,
        last=series.last(),
        system=dict(system),
        architecture=card or manifest.architecture,
        resumed=tuple(dict.fromkeys((*manifest.resumed, *resumed))),
        notes=tuple(notes),
    )
    folder.seal("finish", {"status": status, "steps": steps})
    (folder.path / JOURNAL).unlink(missing_ok=True)
    with contextlib.suppress(UserError):
        store.index(folder)


def _checked(checkpoints: Sequence[CheckpointRow]) -> tuple[list[CheckpointRow], dict[str, Any]]:
    """The checkpoints with their digests as they are now, and the card of the last whole one."""
    rows, card = [], dict[str, Any]()
    for row in checkpoints:
        path = Path(row.path)
        if not path.exists():
            rows.append(replace(row, kept=False, note="it was removed before the training ended"))
            continue
        try:
            rows.append(checkpoint_row(path, row.step, row.note))
            card = (architecture_of(path) if path.is_dir() and not rows[-1].lacks else {}) or card
        except (UserError, OSError) as error:
            rows.append(replace(row, lacks=str(error)[:200]))
    return rows, card


def series_of(folder: TrainingFolder) -> Series:
    """The series of a training as it stands: of a finished one its file, of any other its journal so far."""
    journal = folder.path / JOURNAL
    if not journal.exists():
        return read_series(folder.path / METRICS)
    points = Points()
    journal_points(journal, points)
    return points.series()
