"""What people do to sweeps after they ended: each is an event first, and the catalog follows."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import orjson

from evalrun.atomic import disk_errors
from evalrun.errors import ExitCode, Problem, UserError
from evalrun.frozen import frozen
from evalrun.registry import nearest
from evalrun.secrets import scrub_url
from evalrun.tracking.events import read_events
from evalrun.tracking.folder import SweepFolder
from evalrun.tracking.people import ARCHIVE, LOG, MAX_NAME, MAX_NOTE, NOTE, RENAME, TAG, Said, fold
from evalrun.tracking.store import Store
from evalrun.types import JSON

if TYPE_CHECKING:
    from evalrun.tracking.targets import Target

PROMOTE, DEPLOY, BASELINE, DELETE = "promote", "deploy", "baseline", "delete"
"""Actions of events."""
DEFAULT_BASELINE = "main"
"""The name that is taken where a suite has gates on a baseline and none is named."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_MOST_METRICS = 14
_MOST_REASON = 2_000


@frozen
class Placed:
    """A run that was promoted to `name`, or deployed to the environment `name`.

    `overridden` are the objections that were passed over, `metrics` the run's figures as they were then;
    `present` is False where the sweep was deleted since.
    """

    kind: Literal["promote", "deploy"]
    name: str
    project: str
    sweep: str
    run: str
    actor: str
    ts: str
    reason: str = ""
    url: str = ""
    overridden: tuple[str, ...] = ()
    metrics: tuple[Mapping[str, JSON], ...] = ()
    present: bool = True


@frozen
class Wish:
    """What is asked for: the name, why, and whether objections are passed over."""

    name: str
    reason: str = ""
    override: bool = False


def promote(store: Store, target: Target, wish: Wish) -> Placed:
    """Let a run stand for a name of its project.

    Raises UserError (exit 1) with every objection (see `objections`) unless they are overridden, and for a
    missing reason.
    """
    _check_name(wish.name)
    if not wish.reason.strip() or len(wish.reason) > _MOST_REASON:
        raise UserError("a promotion needs a reason", remedy="Give one: --reason 'why this run'.")
    against = objections(store, target)
    if against and not wish.override:
        place = f"{target.folder.ulid}/{target.run}"
        problems = [Problem(each, place) for each in against]
        last = Problem(f"not promoted to '{wish.name}'", "", "--override promotes it all the same: recorded.")
        raise UserError([*problems, last], exit_code=ExitCode.GATE_FAILED)
    detail = {
        "as": wish.name,
        "reason": wish.reason.strip(),
        "overridden": list(against),
        "metrics": _figures(target),
    }
    return _place(store, target, PROMOTE, detail)


def deployed(store: Store, target: Target, environment: str, url: str = "", reason: str = "") -> Placed:
    """Note that a run's model and prompt are deployed to an environment. The URL is kept without secrets."""
    _check_name(environment)
    if url and not re.match(r"https?://[^\s/?#]+", url):
        raise UserError(f"'{url[:80]}' is no http:// or https:// address", where="--url")
    detail = {"env": environment, "url": scrub_url(url), "reason": reason, "metrics": _figures(target)}
    return _place(store, target, DEPLOY, detail)


def objections(store: Store, target: Target) -> tuple[str, ...]:
    """Why a run should not be promoted: unfinished, a gate of it failed, or it was altered."""
    from evalrun.tracking.audit import verify

    manifest = target.folder.read_manifest()
    found = []
    status = target.folder.status()
    if status != "complete":
        found.append(f"its sweep is {status}, not complete")
    strict = manifest.get("inconclusive") == "fail"
    for gate in manifest["gates"]:
        undecided = gate["verdict"] == "inconclusive" and (strict or gate.get("incomplete"))
        stops = gate["verdict"] == "fail" or undecided
        if stops and gate["run"] in ("", target.run):
            why = f" ({gate['reason']})" if gate.get("reason") else ""
            found.append(f"gate {gate['verdict']}: {gate['gate']}{why}")
    broken = verify(store, [target.folder]).broken
    found += [f"altered: {each.where}: {each.what}" for each in broken]
    return tuple(found)


def placed(store: Store, project: str | None = None, *, in_step: bool = False) -> list[Placed]:
    """All promotions and deployments, the oldest first, those of deleted sweeps included. `in_step`: the
    catalog was brought up to date just now."""
    rows = store.events_of((PROMOTE, DEPLOY), in_step=in_step)
    found = [_read(row, row["sweep"], row["project"], True) for row in rows]
    for event in read_events(store.events_path):
        if event["action"] == "delete":
            of = str(event["detail"].get("project"))
            kept = _listed(event["detail"].get("placed"))
            found += [_read(each, event["target"], of, False) for each in kept]
    found = [each for each in found if project in (None, each.project)]
    return sorted(found, key=lambda each: each.ts)


def current(places: Iterable[Placed]) -> dict[tuple[str, str, str], Placed]:
    """What stands now, by (project, kind, name), from places in order of time."""
    return {(place.project, place.kind, place.name): place for place in places}


def whatis(store: Store, name: str, project: str | None = None) -> list[Placed]:
    """What stands for a name: its history, the newest first. A promotion's name goes before an environment's.

    Raises UserError where the name is unknown, or is one of several projects and none is given.
    """
    places = placed(store, project)
    for kind in (PROMOTE, DEPLOY):
        named = [place for place in places if place.kind == kind and place.name == name]
        projects = sorted({each.project for each in named})
        if len(projects) > 1:
            raise UserError(
                f"'{name}' stands for something in {len(projects)} projects",
                remedy=f"Say which: --project {' or '.join(projects[:10])}.",
            )
        if named:
            return named[::-1]
    known = sorted({place.name for place in places})
    near = nearest(name, known)
    listed = f"There are: {', '.join(known[:20])}." if known else f"Set it: evalrun promote RUN --as {name}"
    raise UserError(
        f"nothing was promoted or deployed as '{name}'",
        where=str(store.root),
        remedy=f"Did you mean '{near}'?" if near else listed,
    )


def kept_of(folder: SweepFolder) -> list[dict[str, Any]]:
    """The promotions and deployments of a sweep, as a tombstone keeps them."""
    names = ("action", "target", "actor", "ts", "detail")
    return [
        {name: event[name] for name in names}
        for event in folder.events()
        if event["action"] in (PROMOTE, DEPLOY)
    ]


def check_not_placed(store: Store, folder: SweepFolder) -> None:
    """Raise a UserError where a run of the sweep stands for a name now."""
    for each in current(placed(store)).values():
        if each.sweep == folder.ulid and each.kind == PROMOTE:
            raise UserError(
                f"its run {each.run} stands for '{each.name}'",
                where=folder.path.name,
                remedy=f"Promote another first: evalrun promote RUN --as {each.name} --reason …",
            )


def _place(store: Store, target: Target, action: str, detail: Mapping[str, Any]) -> Placed:
    with store.changing(target.folder):
        event = target.folder.append_event(action, detail, target=target.run)
    return _read(event, target.folder.ulid, target.folder.manifest().project, True)


def _read(event: Mapping[str, Any], sweep: str, project: str, present: bool) -> Placed:
    detail = event["detail"]
    if isinstance(detail, str):  # as the catalog has it
        detail = orjson.loads(detail)
    if not isinstance(detail, Mapping):
        detail = {}
    return Placed(
        kind="promote" if event["action"] == PROMOTE else "deploy",
        name=str(detail.get("as") or detail.get("env") or ""),
        project=project,
        sweep=sweep,
        run=str(event["target"]),
        actor=str(event["actor"]),
        ts=str(event["ts"]),
        reason=str(detail.get("reason") or ""),
        url=str(detail.get("url") or ""),
        overridden=tuple(map(str, _listed(detail.get("overridden")))),
        metrics=tuple(each for each in _listed(detail.get("metrics")) if isinstance(each, Mapping)),
        present=present,
    )


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _figures(target: Target) -> list[dict[str, JSON]]:
    """The run's first figures over all samples, and those of speed and cost that people ask for."""
    from evalrun.results import HEADLINES  # which take a while to import

    whole = [
        metric
        for metric in target.folder.run(target.run).metrics
        if not metric.slice and metric.value is not None
    ]
    systems = ("performance.", "memory.", "energy.", "cpu.", "gpu.", "disk.", "network.")
    chosen = [each for each in whole if not each.name.startswith(systems)]
    chosen = chosen[: _MOST_METRICS - len(HEADLINES)] + [each for each in whole if each.name in HEADLINES]
    names = ("name", "value", "n", "ci_low", "ci_high", "unit", "direction")
    found = {each.name: {name: getattr(each, name) for name in names} for each in chosen}
    return list(found.values())


def _check_name(name: str) -> None:
    if not _NAME.match(name):
        raise UserError(
            f"'{name[:80]}' cannot be such a name", remedy="Use letters, digits, '.', '_' and '-'."
        )


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


def log(store: Store, target: Target, figures: Mapping[str, float]) -> None:
    """Keep figures of one's own with a run. Raises UserError for a name that the run measures itself."""
    done = target.run in target.folder.run_ids()  # one that is running may be told of too, for its gates
    known = {metric.name for metric in target.folder.run(target.run).metrics} if done else set()
    taken = sorted(known.intersection(figures))
    if taken:
        raise UserError(
            f"the run has a metric '{taken[0]}' of its own",
            where=f"{target.folder.path.name}/{target.run}",
            remedy="Give the figure another name.",
        )
    with store.changing(target.folder):
        target.folder.append_event(LOG, {"figures": dict(figures)}, target=target.run)


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
    from evalrun.tracking.audit import hold_of

    if (held := hold_of(folder)) is not None:
        raise UserError(
            f"the sweep is on hold ({held})",
            where=str(folder.path),
            remedy=f"evalrun privacy release {folder.ulid} ends the hold.",
            exit_code=ExitCode.GATE_FAILED,
        )
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


@frozen
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
    event = store.append_event(BASELINE, detail, target=folder.ulid)
    return Baseline(name, manifest.project, folder.ulid, event["actor"], event["ts"])


def list_baselines(store: Store) -> list[Baseline]:
    """All names as they stand, by project and name."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for event in read_events(store.events_path):
        if event["action"] == BASELINE:
            found[str(event["detail"].get("project")), str(event["detail"].get("name"))] = event
    present = set(store.ulids()) if found else set()
    return [
        Baseline(name, project, event["target"], event["actor"], event["ts"], event["target"] in present)
        for (project, name), event in sorted(found.items())
    ]


def find_baseline(store: Store, name: str, project: str) -> SweepFolder:
    """The sweep that a name stands for in a project; else the sweep that `Store.resolve` finds by it.

    Raises UserError where there is neither, or the sweep was deleted.
    """
    known = {baseline.name: baseline for baseline in list_baselines(store) if baseline.project == project}
    if name in known:
        return _folder_of(store, known[name])
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
    for baseline in list_baselines(store):
        if (baseline.project, baseline.name) == (project, DEFAULT_BASELINE) and baseline.present:
            return _folder_of(store, baseline)
    return None


def choose_baseline(
    store: Store, name: str | None, project: str, *, first: bool = False
) -> SweepFolder | None:
    """What gates compare with: the named baseline or sweep, else the project's `main`, else None.

    Raises UserError where a name was given and there is no such thing; not so for the `first` sweep, which
    may become the baseline of that name.
    """
    if first and name is not None and _NAME.match(name):
        known = [each for each in list_baselines(store) if (each.project, each.name) == (project, name)]
        return _folder_of(store, known[0]) if known else _sweep_of(store, name)
    return default_baseline(store, project) if name is None else find_baseline(store, name, project)


def _sweep_of(store: Store, name: str) -> SweepFolder | None:
    with contextlib.suppress(UserError):
        return store.resolve(name)
    return None


def _folder_of(store: Store, baseline: Baseline) -> SweepFolder:
    for folder in store.folders():
        if folder.ulid == baseline.sweep:
            return folder
    raise UserError(
        f"the sweep of baseline '{baseline.name}' ({baseline.sweep}) is not in the store any more",
        where=str(store.root),
        remedy=f"Set another: evalrun baseline set {baseline.name} SWEEP",
    )
