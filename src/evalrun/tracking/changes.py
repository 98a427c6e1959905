"""What people do to sweeps after they ended: each is an event first, and the catalog follows."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalrun.atomic import disk_errors
from evalrun.errors import ExitCode, UserError
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.people import ARCHIVE, MAX_NAME, MAX_NOTE, NOTE, RENAME, TAG, Said, fold
from evalrun.tracking.promotions import check_not_placed, kept_of
from evalrun.tracking.store import Store

DELETE = "delete"
_TRASH = ".deleted-"


def said(folder: SweepFolder) -> Said:
    """The tags, notes and so on of a sweep, as they stand."""
    return fold(folder.manifest().tags, folder.events())


def tag(
    store: Store, folder: SweepFolder, tags: Mapping[str, str], removed: Sequence[str] = ()
) -> Mapping[str, str]:
    """Set and remove tags; returns those that the sweep has now. Raises UserError for one it has not."""
    before = said(folder).tags
    for key in removed:
        if key not in before:
            raise UserError(
                f"the sweep has no tag '{key}'",
                where=folder.path.name,
                remedy=f"It has: {', '.join(sorted(before)) or 'none'}.",
            )
    with store.changing(folder):
        folder.append_event(TAG, {"set": dict(tags), "removed": list(removed)})
    return said(folder).tags


def note(store: Store, folder: SweepFolder, text: str, target: str = "") -> None:
    """Add a note to a sweep, or to RUN or RUN/SAMPLE of it (which must be there: `tracking.targets`).

    Notes are never changed: a correction is another note.
    """
    if not text.strip() or len(text) > MAX_NOTE:
        raise UserError(f"a note has between 1 and {MAX_NOTE:,} characters")
    with store.changing(folder):
        folder.append_event(NOTE, {"text": text.strip()}, target=target)


def rename(store: Store, folder: SweepFolder, name: str) -> None:
    """Give a sweep another name for lists, queries and commands. Its folder and manifest stay as they are."""
    name = name.strip()
    if not name or len(name) > MAX_NAME or not name.isprintable() or "/" in name:
        raise UserError(
            f"'{name[:80]}' cannot name a sweep",
            remedy=f"Use at most {MAX_NAME} printable characters without '/'.",
        )
    with store.changing(folder):
        folder.append_event(RENAME, {"name": name})


def archive(store: Store, folder: SweepFolder, archived: bool = True) -> None:
    """Take a sweep out of the lists, or put it back."""
    with store.changing(folder):
        folder.append_event(ARCHIVE, {"archived": archived})


def delete(store: Store, folder: SweepFolder, reason: str = "") -> dict[str, Any]:
    """Delete a sweep's folder for good. Returns the tombstone, which stays in the store's audit trail.

    Raises UserError for a sweep that is running, that lies in another store, or that is promoted.
    """
    if folder.path.parent.resolve() != store.sweeps.resolve():
        raise UserError("the sweep lies in another store", where=str(folder.path))
    if folder.is_locked():
        raise UserError(
            "the sweep is running",
            where=str(folder.path),
            remedy="End it first.",
            exit_code=ExitCode.INCOMPLETE,
        )
    check_not_placed(store, folder)
    tombstone = store.append_event(DELETE, _epitaph(folder, reason), target=folder.ulid)
    with disk_errors(store.sweeps):
        folder.path.rename(store.sweeps / f"{_TRASH}{folder.path.name}")
        # Others that a crash left half removed go with it.
        for trash in store.sweeps.glob(f"{_TRASH}*"):
            shutil.rmtree(trash)
    store.list(1)
    return tombstone


def _epitaph(folder: SweepFolder, reason: str) -> dict[str, Any]:
    """What is kept of a sweep: who it was, and the digests of what it held."""
    manifest, last = folder.manifest(), folder.last_event()
    return {
        "folder": folder.path.name,
        "name": manifest.name,
        "project": manifest.project,
        "started_at": manifest.started_at,
        "status": manifest.status,
        "spec_digest": manifest.spec_digest,
        "runs": {run_id: folder.run(run_id).digests for run_id in folder.run_ids()},
        "events": last["seq"] if last else 0,
        "head": last["hash"] if last else "",
        "placed": kept_of(folder),
        "reason": reason,
    }


def tombstones(store: Store) -> dict[str, dict[str, Any]]:
    """The tombstones of deleted sweeps by their id."""
    from evalrun.tracking.events import read_events

    return {
        event["target"]: event for event in read_events(Path(store.events_path)) if event["action"] == DELETE
    }
