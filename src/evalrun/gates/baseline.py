"""Baselines: names for sweeps that others are compared with, one set of names a project.

A name is set by an event of the store's audit trail, so who set it and when is known, and nothing is lost
when the catalog is made anew. The last event of a name counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from evalrun.errors import UserError
from evalrun.registry import nearest
from evalrun.tracking.events import read_events
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.store import Store

ACTION = "baseline"
DEFAULT = "main"
"""The name that is taken where a suite has gates on a baseline and none is named."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


@dataclass(frozen=True, slots=True)
class Baseline:
    """A name, the sweep it stands for, who set it and when. `present` is False if the sweep is gone."""

    name: str
    project: str
    sweep: str
    actor: str
    ts: str
    present: bool = True


def set_baseline(store: Store, name: str, folder: SweepFolder) -> Baseline:
    """Give a sweep a name within its project. Raises UserError for an odd name or an unfinished sweep."""
    if not _NAME.match(name):
        raise UserError(
            f"'{name[:80]}' cannot name a baseline", remedy="Use letters, digits, '.', '_' and '-'."
        )
    manifest = folder.manifest()
    if manifest.status != "complete":
        raise UserError(
            f"the sweep is {folder.status()}, not complete",
            where=folder.path.name,
            remedy="Run its suite again to finish it: a baseline has all its samples.",
        )
    detail = {"name": name, "project": manifest.project}
    event = store.append_event(ACTION, detail, target=folder.ulid)
    return Baseline(name, manifest.project, folder.ulid, event["actor"], event["ts"])


def list_baselines(store: Store) -> list[Baseline]:
    """All names as they stand, by project and name."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for event in read_events(store.events_path):
        if event["action"] == ACTION:
            found[str(event["detail"].get("project")), str(event["detail"].get("name"))] = event
    present = {folder.ulid for folder in store.folders()} if found else set()
    return [
        Baseline(name, project, event["target"], event["actor"], event["ts"], event["target"] in present)
        for (project, name), event in sorted(found.items())
    ]


def find_baseline(store: Store, name: str, project: str) -> SweepFolder:
    """The sweep that a name stands for in a project; else the sweep that `Store.resolve` finds by it.

    Raises UserError where there is neither, or the sweep was deleted.
    """
    known = {each.name: each for each in list_baselines(store) if each.project == project}
    if name in known:
        return _folder(store, known[name])
    try:
        return store.resolve(name)
    except UserError as error:
        near = nearest(name, known)
        remedy = f"Did you mean '{near}'? " if near else ""
        raise UserError(
            f"project '{project}' has no baseline '{name}', and there is no such sweep",
            where=str(store.root),
            remedy=remedy + f"Set it by: evalrun baseline set {name} SWEEP",
        ) from error


def default_baseline(store: Store, project: str) -> SweepFolder | None:
    """The project's baseline called `main`, or None."""
    for each in list_baselines(store):
        if (each.project, each.name) == (project, DEFAULT) and each.present:
            return _folder(store, each)
    return None


def choose_baseline(store: Store, name: str | None, project: str) -> SweepFolder | None:
    """What gates compare with: the named baseline or sweep, else the project's `main`, else None.

    Raises UserError where a name was given and there is no such thing.
    """
    return default_baseline(store, project) if name is None else find_baseline(store, name, project)


def _folder(store: Store, baseline: Baseline) -> SweepFolder:
    for folder in store.folders():
        if folder.ulid == baseline.sweep:
            return folder
    raise UserError(
        f"the sweep of baseline '{baseline.name}' ({baseline.sweep}) is not in the store any more",
        where=str(store.root),
        remedy=f"Set another: evalrun baseline set {baseline.name} SWEEP",
    )
