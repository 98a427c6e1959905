"""Verifying what the store holds against what was written down when it was made.

Three things hold each other: the events of a sweep form a chain of hashes; the events hold the digests of the
manifest, of every `run.json` and of the Parquet files; the store's own chain holds the head of each sweep's.
Someone who may write all files can make all of it anew: only a head that was kept elsewhere (`anchor`) tells.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa

from evalrun.errors import UserError
from evalrun.tracking import tables as t
from evalrun.tracking.changes import DELETE
from evalrun.tracking.database import connect
from evalrun.tracking.entries import insert, read_entry
from evalrun.tracking.events import read_events, utc_now, verify_events
from evalrun.tracking.folder import (
    ASKED,
    EVENTS,
    INPUT_DIGESTS,
    INPUTS,
    LEAVES_ROOT,
    MANIFEST,
    MANIFEST_DIGEST,
    RUN,
    RUN_DIGEST,
    SAMPLES,
    SIGN,
    SIGNATURES,
    SYSTEM,
    SweepFolder,
    file_sha256,
)
from evalrun.tracking.people import ANSWER, FEEDBACK, LABEL, LABELS_DIGEST, LABELS_FOLDER
from evalrun.tracking.plain import read_document
from evalrun.tracking.store import Store

_FILES: Mapping[str, str] = {
    "samples_sha256": SAMPLES,
    "system_sha256": SYSTEM,
    "judge_sha256": ASKED,
    RUN_DIGEST: RUN,
}


@dataclass(frozen=True, slots=True)
class Broken:
    """One thing that is not as it was written. `sweep` is empty for the store's own trail."""

    sweep: str
    where: str
    what: str


ERASE = "erase"
"""The event of an erasure: which files it changed, from which digest to which, and which rows went."""


HOLD, RELEASE = "hold", "release"
"""Events of a legal hold."""


def hold_of(folder: SweepFolder) -> str | None:
    """The reason of the legal hold on a sweep; None where there is none."""
    held = None
    for event in folder.events():
        if event["action"] == HOLD:
            held = str(event["detail"].get("reason") or "no reason given")
        elif event["action"] == RELEASE:
            held = None
    return held


@dataclass(slots=True)
class Erasures:
    """What the trail of a sweep says was erased: by file the digests that others took the place of, and lines
    that went; by run the places of rows."""

    files: dict[str, dict[Any, Any]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    rows: dict[str, set[int]] = field(default_factory=dict)
    absent: dict[str, set[int]] = field(default_factory=dict)
    """Those of `rows` that did not keep their numbers: they are not in the table any more."""
    events: list[Mapping[str, Any]] = field(default_factory=list)

    def now(self, path: Path, digest: Any) -> Any:
        """The digest that a file has by now, of the one that it was sealed with."""
        later, seen = self.files.get(str(path), {}), set()
        while digest in later and digest not in seen:
            seen.add(digest)
            digest = later[digest]
        return digest


@dataclass(slots=True)
class Verified:
    """What was looked at, and what was found. `mended` are rows that the catalog lacked, or had too many of,
    before it was brought up to date with the folders."""

    sweeps: int = 0
    events: int = 0
    files: int = 0
    broken: list[Broken] = field(default_factory=list)
    mended: list[Broken] = field(default_factory=list)
    erased: list[Broken] = field(default_factory=list)
    """Sweeps that rows were erased from, as their trails say it: not broken."""

    def found(self, sweep: str, where: Path | str, what: str) -> None:
        """One thing more that is wrong."""
        self.broken.append(Broken(sweep, str(where), what))


def verify(
    store: Store, folders: Sequence[SweepFolder] | None = None, anchor: Path | None = None
) -> Verified:
    """Check sweeps (all by default, then also the store's own trail), and both against an anchor if given.

    Raises UserError where the anchor cannot be read.
    """
    result = Verified()
    heads = _recorded(store)
    if folders is None:
        result.mended = [Broken(ulid, store.catalog_shown, what) for ulid, what in gaps(store, heads)]
    for folder in store.folders() if folders is None else folders:
        if folder.has_manifest() or (folder.path / EVENTS).exists():
            result.sweeps += 1
            try:
                _verify_sweep(folder, heads.get(folder.ulid), result)
            except (OSError, UserError) as error:
                # One that cannot be read is not verified; the others are.
                where = getattr(error, "filename", None) or folder.path
                result.found(folder.ulid, where, f"cannot be verified: {error}")
        elif folder.ulid in heads:
            result.found(folder.ulid, folder.path, "its manifest and its trail are gone")
    for ulid, tables in altered_tables(store, store.folders() if folders is None else folders, heads).items():
        what = f"differs from the folder of {ulid} in: {', '.join(tables)} (`evalrun reindex` makes it anew)"
        result.found(ulid, store.catalog_shown, what)
    if folders is None:
        _verify_trainings(store, heads, result)
        _verify_store(store, heads, result)
    if anchor is not None:
        _verify_anchor(store, read_document(anchor), anchor, folders, result)
    return result


def verify_folder(folder: SweepFolder, head: Mapping[str, Any] | None = None) -> Verified:
    """Check one sweep folder by itself, wherever it lies: its trail (against `head`, if given), manifest,
    runs and labels."""
    result = Verified(sweeps=1)
    _verify_sweep(folder, head, result)
    return result


def make_anchor(store: Store) -> dict[str, Any]:
    """The heads of all trails at this moment, to be kept where nobody who writes the store can write."""
    sweeps = {}
    for folder in store.folders():
        last = folder.last_event()
        if last is not None:
            sweeps[folder.ulid] = {"seq": last["seq"], "head": last["hash"]}
    *_, last = [None, *read_events(store.events_path)]
    head = {"seq": last["seq"], "head": last["hash"]} if last else None
    return {"schema_version": 1, "made_at": utc_now(), "store": head, "sweeps": sweeps}


def _verify_sweep(folder: SweepFolder, head: Mapping[str, Any] | None, result: Verified) -> None:
    ulid, path = folder.ulid, folder.path / EVENTS
    first = verify_events(path)
    events = folder.events()
    result.events += len(events)
    if first is not None:
        result.found(ulid, path, f"event {first} is not what was written: {_described(path, first)}")
        return
    if head is not None:
        _check_head(ulid, path, events, head, "the store's trail", result)
    told = erasures_of(folder, events)
    _verify_manifest(folder, events, result, told)
    _verify_runs(folder, events, result, told)
    _verify_labels(folder, events, result, told)
    _verify_signed(folder, events, result)


def _verify_trainings(store: Store, heads: Mapping[str, Mapping[str, Any]], result: Verified) -> None:
    from evalrun.tracking.trainings import sealed_files, training_folders, verify_training

    for folder in training_folders(store):
        events = folder.events()
        result.events += len(events)
        result.files += len(sealed_files(folder))
        for path, what in verify_training(folder):
            result.found(folder.ulid, path, what)
        head = heads.get(folder.ulid)
        if head is not None:
            _check_head(folder.ulid, folder.path / EVENTS, events, head, "the store's trail", result)


def _described(path: Path, number: int) -> str:
    lines = path.read_bytes().splitlines() if path.exists() else []
    if not lines:
        return "the file is missing or empty"
    if number > len(lines):
        return "the trail ends before it"
    for at, event in enumerate(read_events(path), 1):
        if at == number:
            return (
                f"it reads seq {event['seq']}, '{event['action']}' by {event['actor']} at {event['ts']}; "
                "it, or one before it, was edited, removed or moved"
            )
    return "the line is no event"


def _check_head(
    ulid: str,
    path: Path,
    events: Sequence[Mapping[str, Any]],
    head: Mapping[str, Any],
    source: str,
    result: Verified,
) -> None:
    """The event of that number must be there, with that hash."""
    seq = head.get("seq")
    if not isinstance(seq, int) or seq < 1 or len(events) < seq:
        result.found(ulid, path, f"cut off: {source} knows {seq} events, {len(events)} are left")
    elif events[seq - 1]["hash"] != head.get("head"):
        result.found(ulid, path, f"written anew: event {seq} is not the one that {source} knows")


def _verify_manifest(
    folder: SweepFolder, events: Sequence[Mapping[str, Any]], result: Verified, told: Erasures
) -> None:
    """As the last `finish` sealed it, unless the sweep was taken up again since; and so its inputs."""
    seal: Mapping[str, Any] = {}
    for event in events:
        if event["action"] in ("start", "resume"):
            seal = {}
        elif event["action"] == "finish":
            seal = event["detail"]
    for name, digest in (seal.get(INPUT_DIGESTS) or {}).items():
        _verify_file(
            folder, folder.path / INPUTS / Path(name).name, digest, "the sweep had finished", result, told
        )
    path, sealed = folder.path / MANIFEST, seal.get(MANIFEST_DIGEST)
    result.files += sealed is not None
    if not path.exists():
        result.found(folder.ulid, path, "is gone")
    elif sealed is not None and file_sha256(path) != told.now(path, sealed):
        result.found(folder.ulid, path, "was altered after the sweep had finished")
    else:
        _verify_identity(folder, sealed is not None, result)


def _verify_identity(folder: SweepFolder, sealed: bool, result: Verified) -> None:
    """The manifest is of this sweep, and calls nothing complete that its trail does not."""
    path = folder.path / MANIFEST
    try:
        manifest = folder.manifest()
    except UserError as error:
        result.found(folder.ulid, path, error.problems[0].what)
        return
    if manifest.sweep != folder.ulid:
        result.found(folder.ulid, path, f"is the manifest of another sweep, {manifest.sweep}")
    if manifest.status == "complete" and not sealed:
        result.found(folder.ulid, path, "says that the sweep is complete, and no event tells of its end")


def _verify_runs(
    folder: SweepFolder, events: Sequence[Mapping[str, Any]], result: Verified, told: Erasures
) -> None:
    finished = {
        event["target"]: event["detail"].get("digests") or {}
        for event in events
        if event["action"] == "finish_run"
    }
    for run_id, digests in finished.items():
        for key, name in _FILES.items():
            path = folder.path / "runs" / run_id / name
            if key not in digests:
                if path.exists() and key != RUN_DIGEST:
                    result.found(folder.ulid, path, "was added after the run had finished")
                continue
            _verify_file(folder, path, digests[key], "the run had finished", result, told)
    _verify_erased(folder, finished, told, result)
    root = folder.path / "runs"
    for path in sorted(root.glob(f"*/{RUN}")) if root.is_dir() else ():
        if path.parent.name not in finished:
            result.found(folder.ulid, path, "no event tells of this run")


def erasures_of(folder: SweepFolder, events: Sequence[Mapping[str, Any]]) -> Erasures:
    """What the trail says was erased from a sweep."""
    told = Erasures()
    for event in events:
        if event["action"] != ERASE:
            continue
        told.events.append(event)
        for changed in event["detail"].get("files") or ():
            path = str(folder.path / str(changed.get("path")))
            told.files.setdefault(path, {})[changed.get("old")] = changed.get("new")
            told.lines[path] = told.lines.get(path, 0) + int(changed.get("lines") or 0)
        for run_id, places in (event["detail"].get("touched") or {}).items():
            told.rows.setdefault(run_id, set()).update(places)
        for run_id, places in (event["detail"].get("erased") or {}).items():
            told.rows.setdefault(run_id, set()).update(places)
            if not event["detail"].get("numbers_kept"):
                told.absent.setdefault(run_id, set()).update(places)
    return told


def _verify_erased(
    folder: SweepFolder, runs: Mapping[str, Mapping[str, Any]], told: Erasures, result: Verified
) -> None:
    """Of every run that rows were erased from: only these went, and every other is what it was."""
    from evalrun.tracking.leaves import check_leaves

    for event in told.events:
        detail = event["detail"]
        left = [
            each for each in (folder.path / f".erase-{detail.get('erasure')}").rglob("*") if each.is_file()
        ]
        if left:
            what = "an erasure was ended half way: `evalrun erase --resume` goes on with it"
            result.found(folder.ulid, folder.path, what)
        touched = sum(map(len, (detail.get("touched") or {}).values()))
        others = f", texts of theirs taken out of {touched} others" if touched else ""
        said = f"{detail.get('n')} rows erased{others} {event['ts'][:10]} ({detail.get('rule')}): "
        said += str(detail.get("reason"))
        result.erased.append(Broken(folder.ulid, str(folder.path), said))
    for run_id, places in told.rows.items():
        root = (runs.get(run_id) or {}).get(LEAVES_ROOT)
        table = folder.path / "runs" / run_id / SAMPLES
        if root is None:
            what = (
                "rows were erased from a run that was finished without leaves: the others cannot be checked"
            )
            result.erased.append(Broken(folder.ulid, str(table), what))
        elif table.exists():
            for problem in check_leaves(table, str(root), places, told.absent.get(run_id, set())):
                result.found(folder.ulid, table, problem)


def _verify_file(
    folder: SweepFolder, path: Path, digest: Any, since: str, result: Verified, told: Erasures | None = None
) -> None:
    result.files += 1
    if told is not None:
        digest = told.now(path, digest)
    if not path.exists():
        result.found(folder.ulid, path, "is gone")
    elif file_sha256(path) != digest:
        result.found(folder.ulid, path, f"was altered after {since}")


def _verify_labels(
    folder: SweepFolder, events: Sequence[Mapping[str, Any]], result: Verified, told: Erasures
) -> None:
    _verify_lines(folder, events, result, told)
    for event in events:
        name = event["detail"].get("file") if event["action"] == LABEL else None
        if not isinstance(name, str):
            continue
        path = folder.path / LABELS_FOLDER / Path(name).name
        _verify_file(folder, path, event["detail"].get(LABELS_DIGEST), "it was kept", result, told)


def _verify_signed(folder: SweepFolder, events: Sequence[Mapping[str, Any]], result: Verified) -> None:
    """The files of signatures are those that were made; whose they are is for `evidence.signing` to say."""
    for event in events:
        name = event["detail"].get("file") if event["action"] == SIGN else None
        if isinstance(name, str):
            path = folder.path / SIGNATURES / Path(name).name
            _verify_file(folder, path, event["detail"].get("sha256"), "it was signed", result)
            signature = path.with_name(f"{path.name}.sig")
            _verify_file(folder, signature, event["detail"].get("signature_sha256"), "it was made", result)


def _verify_lines(
    folder: SweepFolder, events: Sequence[Mapping[str, Any]], result: Verified, told: Erasures
) -> None:
    """Files that grow line by line: each line that an event tells of is there, and no other. (A last one more
    may be what a crash left before its event.)"""
    by_file: dict[str, list[str]] = {}
    for event in events:
        if event["action"] in (ANSWER, FEEDBACK) and isinstance(event["detail"].get("file"), str):
            by_file.setdefault(event["detail"]["file"], []).append(str(event["detail"].get("line")))
    for name, expected in by_file.items():
        path = folder.path / LABELS_FOLDER / Path(name).name
        result.files += 1
        lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        there = [hashlib.sha256(line).hexdigest() for line in lines]
        missing = set(expected) - set(there)
        if len(missing) > told.lines.get(str(path), 0):
            result.found(folder.ulid, path, f"{len(missing)} of its lines were altered or are gone")
        elif len(set(there) - set(expected)) > 1 + told.lines.get(str(path), 0):
            result.found(folder.ulid, path, "it has lines that no event tells of")


# The store


def _recorded(store: Store) -> dict[str, dict[str, Any]]:
    """The last head of each sweep's trail that the store's own trail knows."""
    return {
        event["target"]: event["detail"]
        for event in read_events(store.events_path)
        if event["action"] == "record"
    }


def _verify_store(store: Store, heads: Mapping[str, Mapping[str, Any]], result: Verified) -> None:
    path = store.events_path
    if not path.exists():
        if result.sweeps:
            result.found("", path, "is missing")
        return
    events = list(read_events(path))
    result.events += len(events)
    first = verify_events(path)
    if first is not None:
        result.found("", path, f"event {first} is not what was written: {_described(path, first)}")
    deleted = {event["target"] for event in events if event["action"] == DELETE}
    from evalrun.tracking.trainings import training_folders

    present = {folder.ulid for folder in (*store.folders(), *training_folders(store))}
    for ulid, head in heads.items():
        if ulid not in present and ulid not in deleted:
            result.found(ulid, store.sweeps, f"the sweep ({head.get('name')}) is gone without a tombstone")


def _verify_anchor(
    store: Store,
    anchor: Mapping[str, Any],
    path: Path,
    folders: Sequence[SweepFolder] | None,
    result: Verified,
) -> None:
    if not isinstance(anchor.get("sweeps"), Mapping):
        raise UserError("is no anchor", where=str(path), remedy="Make one by: evalrun audit anchor > FILE")
    if folders is None and isinstance(anchor.get("store"), Mapping):
        events = list(read_events(store.events_path))
        _check_head("", store.events_path, events, anchor["store"], "the anchor", result)
    by_id = {folder.ulid: folder for folder in (store.folders() if folders is None else folders)}
    deleted = {event["target"] for event in read_events(store.events_path) if event["action"] == DELETE}
    for ulid, head in anchor["sweeps"].items():
        if ulid in by_id:
            file = by_id[ulid].path / EVENTS
            _check_head(ulid, file, by_id[ulid].events(), head, "the anchor", result)
        elif folders is None and ulid not in deleted:
            result.found(ulid, store.sweeps, "the sweep is gone without a tombstone; the anchor knows it")


def log(store: Store, folder: SweepFolder | None = None) -> Iterator[dict[str, Any]]:
    """The events of a sweep, or of the store and all its sweeps by time, oldest first."""
    if folder is not None:
        yield from ({**event, "sweep": folder.ulid} for event in folder.events())
        return
    events = [
        {**event, "sweep": event["target"]}
        for event in read_events(store.events_path)
        if event["action"] != "record"
    ]
    for each in store.folders():
        with contextlib.suppress(OSError):  # of one that cannot be read, `verify` says so
            events += [{**event, "sweep": each.ulid} for event in each.events()]
    yield from sorted(events, key=lambda event: (event["ts"], event["seq"]))


Rows: TypeAlias = list[tuple[Any, ...]]

_BATCH = 500
"""So many sweeps are compared at a time."""
_HIDDEN = {"id", "run_id", "project_id", "dataset_version_id", "stamp"}
"""Keys that a database gives, and the times of files."""


def altered_tables(
    store: Store, folders: Sequence[SweepFolder], heads: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[str]]:
    """The tables whose rows differ from what the folder says, by sweep. Folders that cannot be read are
    passed over: they are named by what reads them.

    `heads` are the last events that the store's trail knows of: so many at least were entered.
    """
    altered: dict[str, list[str]] = {}
    for expected in _expected(folders):
        actual = store.read(partial(_rows, ulids=list(expected)))
        for ulid, rows in expected.items():
            known = heads.get(ulid, {}).get("seq")
            names = [name for name in rows if not _agree(name, rows[name], actual[ulid][name], known)]
            if names:
                altered[ulid] = names
    return altered


def gaps(store: Store, heads: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Complete sweeps that were entered once and that the catalog lacks, and sweeps in it that have no
    folder: id and words. To be asked before anything else brings the catalog up to date."""
    known = store.entered()
    if not known:
        return []  # a catalog that was thrown away is made anew: that is nobody's alteration
    present = {folder.ulid: folder for folder in store.folders()}
    lost = [
        (ulid, f"lacked {ulid}, which was entered again from its folder")
        for ulid in sorted(present.keys() & heads.keys() - known)
        if _readable(present[ulid])
    ]
    made_up = [(ulid, f"held {ulid}, which has no folder") for ulid in sorted(known - present.keys())]
    return lost + made_up


def _readable(folder: SweepFolder) -> bool:
    """Whether a sweep's manifest can be read; one whose can not is broken, and no fault of the catalog."""
    try:
        folder.manifest()
    except (OSError, UserError):
        return False
    return True


def _agree(name: str, expected: Rows, actual: Rows, known: Any) -> bool:
    """Events may be newer in the folder than in the catalog; those that are in both must be the same."""
    if name != "event":
        return Counter(actual) == Counter(expected)
    at = [column.name for column in _shown(t.event)].index("seq")
    entered = {row for row in expected if isinstance(known, int) and row[at] <= known}
    return entered <= set(actual) <= set(expected)


def _expected(folders: Sequence[SweepFolder]) -> Iterator[dict[str, dict[str, Rows]]]:
    """What a catalog made from the folders alone would hold, a batch of sweeps at a time. Those that run are
    left out: they change between two looks."""
    engine = connect(Path(":memory:"))
    with engine.connect() as connection:
        t.metadata.create_all(connection)
        for start in range(0, len(folders), _BATCH):
            entries = []
            for folder in folders[start : start + _BATCH]:
                with contextlib.suppress(UserError):
                    if not folder.is_locked():
                        entries.append(read_entry(folder))
            insert(t.TableRows(connection), *entries)
            yield _rows(connection, [entry.folder.ulid for entry in entries])
            connection.execute(t.sweep.delete())  # and what hangs on it
    engine.dispose()


def _rows(connection: sa.Connection, ulids: Sequence[str]) -> dict[str, dict[str, Rows]]:
    """The rows of sweeps by table, by sweep; in no order."""
    queries = {
        "sweep": sa.select(t.sweep.c.ulid, *_shown(t.sweep), t.project.c.name.label("of"))
        .join(t.project)
        .where(t.sweep.c.ulid.in_(ulids)),
        "run": sa.select(
            t.run.c.sweep,
            *_shown(t.run),
            t.dataset_version.c.digest.label("of"),
            t.dataset_version.c.name.label("data"),
        )
        .outerjoin(t.dataset_version, t.run.c.dataset_version_id == t.dataset_version.c.id)
        .where(t.run.c.sweep.in_(ulids)),
        **{
            table.name: sa.select(t.run.c.sweep, *_shown(table), t.run.c.run.label("of"))
            .join(t.run)
            .where(t.run.c.sweep.in_(ulids))
            for table in (t.run_metric, t.run_param)
        },
        **{
            table.name: sa.select(table.c.sweep, *_shown(table)).where(table.c.sweep.in_(ulids))
            for table in (t.sweep_tag, t.event)
        },
    }
    found: dict[str, dict[str, Rows]] = {ulid: {name: [] for name in queries} for ulid in ulids}
    for name, query in queries.items():
        for ulid, *row in connection.execute(query):
            found[ulid][name].append(tuple(row))
    return found


def _shown(table: sa.Table) -> list[sa.Column[Any]]:
    return [column for column in table.c if column.name not in _HIDDEN]
