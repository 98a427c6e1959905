"""Cells that were run before: pointed out before anything is sent, and taken over where that is asked.

`STORE/cells.index` has a line for each finished run without failures: digest, sweep, run. It is only an
index: what it says is checked against the folder, and `evalrun reindex` makes it anew.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evalrun.atomic import disk_errors, open_private, write_private
from evalrun.errors import UserError
from evalrun.frozen import frozen
from evalrun.tracking.folder import ASKED, MANIFEST, RUN, SAMPLES, SYSTEM, SweepFolder, file_sha256
from evalrun.tracking.parts import copy_table
from evalrun.tracking.plain import read_document
from evalrun.tracking.store import Store

if TYPE_CHECKING:
    from evalrun.tracking.model import PlannedRun

INDEX = "cells.index"


@frozen
class Earlier:
    """A finished run of the same cell."""

    folder: SweepFolder
    run: str
    started_at: str
    user: str
    document: Mapping[str, Any]

    def is_whole(self) -> bool:
        """Whether the samples are those that `run.json` was written for."""
        try:
            found = file_sha256(self.folder.samples_path(self.run))
        except OSError:
            return False
        wanted: object = self.document["digests"].get("samples_sha256")
        return found == wanted

    def sentence(self) -> str:
        """Who ran it, when, and what came out."""
        shown = next((metric for metric in self.document["metrics"] if not metric["slice"]), None)
        figure = f", {shown['name']} {shown['value']:.4g}" if shown and shown["value"] is not None else ""
        by = f" by {self.user}" if self.user else ""
        return f"run on {self.started_at[:10]}{by} (sweep {self.folder.ulid}{figure})"


def note_cells(
    store: Store, folder: SweepFolder, cells: Mapping[str, str], runs: Sequence[Mapping[str, Any]]
) -> None:
    """Enter the finished runs of a sweep into the index. Fails silently: the sweep is complete without."""
    lines = [
        f"{cells[run['run']]} {folder.ulid} {run['run']}\n"
        for run in runs
        if run["run"] in cells and run["status"] == "complete" and run["counts"]["failed"] == 0
    ]
    if not lines:
        return
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        descriptor = open_private(store.root / INDEX, flags)
        try:
            os.write(descriptor, "".join(lines).encode())
        finally:
            os.close(descriptor)


def rebuild_index(store: Store) -> None:
    """Make the index anew from the manifests, oldest sweep first, passing over what cannot be read."""
    lines = []
    for folder in reversed(store.folders()):
        with contextlib.suppress(UserError):
            for planned in read_document(folder.path / MANIFEST).get("plan") or ():
                lines += _line_of(folder, planned)
    write_private(store.root / INDEX, "".join(lines).encode())


def _line_of(folder: SweepFolder, planned: Any) -> list[str]:
    with contextlib.suppress(UserError, KeyError, TypeError):
        run = read_document(folder.samples_path(planned["run"]).with_name(RUN))
        if planned.get("cell_digest") and run["status"] == "complete" and run["counts"]["failed"] == 0:
            return [f"{planned['cell_digest']} {folder.ulid} {planned['run']}\n"]
    return []


def find_earlier(store: Store, cells: Mapping[str, str]) -> dict[str, Earlier]:
    """For each run id whose cell was run before, the newest run of it that is whole and unaltered in size."""
    try:
        known = (store.root / INDEX).read_bytes()
    except OSError:
        return {}
    found: dict[str, Earlier] = {}
    sweeps: dict[str, list[_Known]] = {}
    for run_id, digest in cells.items():
        for line in reversed(_lines(known, digest)):
            earlier = _checked(store, line, digest, sweeps)
            if earlier is not None:
                found[run_id] = earlier
                break
    return found


def _lines(known: bytes, digest: str) -> list[list[str]]:
    needle, lines, start = digest.encode(), [], 0
    while (at := known.find(needle, start)) >= 0:
        end = known.find(b"\n", at)
        end = len(known) if end < 0 else end
        lines.append(known[at:end].decode("utf-8", "replace").split(" ", 2))
        start = end
    return [line for line in lines if len(line) == 3]


@frozen
class _Known:
    """An earlier sweep with what its manifest says: read once, however many of its runs are asked for."""

    folder: SweepFolder
    digests: Mapping[str, str | None]
    started_at: str
    user: str


def _cell_digest(planned: PlannedRun) -> str | None:
    return planned.cell_digest if isinstance(planned.cell_digest, str) else None


def _of_id(store: Store, ulid: str) -> list[_Known]:
    sweeps = []
    for path in store.sweeps.glob(f"{ulid}-*") if ulid.isalnum() else ():
        with contextlib.suppress(UserError):
            manifest = SweepFolder(path).manifest()
            user = manifest.provenance.get("user")
            digests = {each.run: _cell_digest(each) for each in manifest.plan}
            said_by = user if isinstance(user, str) else ""
            sweeps.append(_Known(SweepFolder(path), digests, str(manifest.started_at), said_by))
    return sweeps


def _checked(store: Store, line: list[str], digest: str, sweeps: dict[str, list[_Known]]) -> Earlier | None:
    """What the index says, if the folder says so too. `sweeps` are those that were read, by their ids."""
    _, ulid, run_id = line
    if ulid not in sweeps:
        sweeps[ulid] = _of_id(store, ulid)
    with contextlib.suppress(UserError):
        for known in sweeps[ulid]:
            if (
                known.digests.get(run_id) == digest
                and known.folder.is_finished(run_id)
                and known.folder.samples_path(run_id).exists()
            ):
                document = known.folder.read_run(run_id)
                started = str(document["timings"].get("started_at") or known.started_at)
                return Earlier(known.folder, run_id, started, known.user, document)
    return None


def take_over(folder: SweepFolder, found: Mapping[str, Earlier]) -> dict[str, dict[str, Any]]:
    """Copy earlier runs into a sweep as its own; returns for each where it is from, for the manifest."""
    taken: dict[str, dict[str, Any]] = {}
    plan = {each.run: each for each in folder.manifest().plan}
    for run_id, earlier in found.items():
        source, target = earlier.folder.samples_path(earlier.run).parent, folder.run_dir(run_id)
        with disk_errors(target):
            for name in (SAMPLES, SYSTEM, ASKED):
                if (source / name).exists():
                    copy_table(source / name, target / name)
        origin = _origin(earlier)
        warning = (
            f"taken from sweep {origin['sweep']} of {origin['started_at'][:10]} (--reuse): latency, rates, "
            "memory and cost are figures of that day"
        )
        others = [each for each in earlier.document.get("warnings") or () if "(--reuse)" not in each]
        document = {
            **earlier.document,
            "run": run_id,
            "reused": origin,
            "warnings": [*others, warning],
            "digests": {},
        }
        if (planned := plan.get(run_id)) is not None:
            document |= {"model": planned.model, "prompt": planned.prompt, "dataset": planned.dataset}
        folder.finish_run(run_id, document)
        folder.append_event("reuse", origin, target=run_id)
        taken[run_id] = origin
    return taken


def _origin(earlier: Earlier) -> dict[str, Any]:
    """Of a run that was itself taken over, the sweep that asked the model."""
    before = earlier.document.get("reused")
    if isinstance(before, Mapping):
        return dict(before)
    return {"sweep": earlier.folder.ulid, "run": earlier.run, "started_at": earlier.started_at}
