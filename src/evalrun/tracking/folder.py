"""The folder of one sweep: complete, portable, and the only truth about it.

sweep.json      the manifest          events.jsonl   what happened to it, hash-chained
runs/<run>/     run.json, samples.parquet, system.parquet (journals while running)
unfinished      stands here until the sweep is complete and its trail says so; holds the digest of its work
lock            locked by the process that runs it; a process that dies lets go of it
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.atomic import (
    disk_errors,
    open_private,
    private_folder,
    private_folders,
    remove_leftovers,
    write_private,
)
from evalrun.errors import ExitCode, UserError
from evalrun.secrets import scrub_json
from evalrun.tracking import events
from evalrun.tracking.events import utc_now
from evalrun.tracking.parts import files_of
from evalrun.tracking.plain import document_bytes, plain, read_document

if TYPE_CHECKING:
    from evalrun.results import RunResults
    from evalrun.tracking.model import SweepManifest, SweepStatus


_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PATTERN = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def new_ulid() -> str:
    """A new ULID for this moment."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(_DIGITS[number >> shift & 31] for shift in range(125, -1, -5))


MANIFEST, EVENTS, UNFINISHED, LOCK = "sweep.json", "events.jsonl", "unfinished", "lock"
CLUSTER = "cluster.json"
"""Says where the segments of a sweep lie that a cluster asks: answers may be there that are not yet here."""
SAMPLES, SYSTEM, RUN = "samples.parquet", "system.parquet", "run.json"
ASKED = "judge.parquet"
"""What models that score were asked about a run, and said."""
RAW = "raw.bin"
"""Texts as they were before they were redacted, encrypted, until a run is scored."""
SIGN, SIGNATURES = "sign", "signatures"
"""The action of an event that tells of a signature, and the folder of what was signed and by what."""
INPUTS = "inputs"
"""The folder of what a sweep was made from and its samples do not hold."""
RUN_DIGEST, MANIFEST_DIGEST, INPUT_DIGESTS = "run_sha256", "manifest_sha256", "inputs_sha256"
"""Keys of digests in events: of `run.json` when a run is finished, of `sweep.json` and of each file in
`inputs/` when a sweep is."""

LEAVES_ROOT = "samples_leaves"
"""Key of the root over the salted leaves of a run's rows (`tracking.leaves`)."""

ENDED = ("complete", "failed")
"""Statuses of sweeps that there is nothing left to do in."""

_RUN_ID = re.compile(r"[^/\\\x00-\x1f\x7f.][^/\\\x00-\x1f\x7f]*\Z")
_RUN_ID_BYTES = 200
_LOCK_TRIES, _LOCK_PAUSE_S = 10, 0.02


class SweepFolder:
    """One sweep on disk. Cheap to make; reads and writes only when asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.redact: Callable[[Any], Any] | None = None
        """Removes personal data from the documents and events that are written."""

    @property
    def ulid(self) -> str:
        """The sweep's id: the first 26 characters of the folder's name."""
        return self.path.name[:26]

    def __repr__(self) -> str:
        return f"SweepFolder({str(self.path)!r})"

    # The manifest

    def has_manifest(self) -> bool:
        """Whether there is a `sweep.json`. One that may not be looked at is one: reading it says why."""
        try:
            return _is_there(self.path / MANIFEST)
        except OSError:
            return True

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write `sweep.json`, whole or not at all, without anything that looks like a secret.

        Raises UserError (exit 3) when the disk is full, and where the manifest is not of its form.
        """
        from evalrun.tracking.model import SweepManifest

        where, document = self.path / MANIFEST, plain(dict(manifest))
        checked = SweepManifest.read(document, where)
        if checked.status not in ENDED:
            write_private(self.path / UNFINISHED, checked.spec_digest.encode())
        # The mark of one that is complete now goes when the trail says so: see `append_event`.
        self._write_document(where, plain(checked.document(document)))

    def manifest(self) -> SweepManifest:
        """The manifest, checked. Raises UserError that names the file if it is missing, broken or later."""
        return self._manifest()[0]

    def _manifest(self) -> tuple[SweepManifest, Mapping[str, Any]]:
        from evalrun.tracking.model import SweepManifest

        def checked() -> tuple[SweepManifest, Mapping[str, Any]]:
            document = read_document(where)
            return SweepManifest.read(document, where), document

        where = self.path / MANIFEST
        known: tuple[SweepManifest, Mapping[str, Any]] = _kept(self.path, where, checked)
        return known

    def read_manifest(self) -> dict[str, Any]:
        """The manifest as plain JSON values, with every key of the document's form present."""
        manifest, document = self._manifest()
        values: dict[str, Any] = plain(manifest.document(document))
        return values

    def update_manifest(self, **changes: Any) -> SweepManifest:
        """Change some of the manifest's fields. For the process that holds the lock."""
        self.write_manifest({**self.read_manifest(), **changes})
        return self.manifest()

    def finish(self, status: SweepStatus, exit_code: int) -> None:
        """Write how the sweep ended into the manifest and the events."""
        self.update_manifest(status=status, exit_code=int(exit_code), finished_at=utc_now())
        self.append_event("finish", {"status": status, "exit_code": int(exit_code)})

    def status(self) -> SweepStatus:
        """How the sweep stands: `interrupted` where it says `running` but no living process holds it."""
        written = self.manifest().status
        return "interrupted" if written == "running" and not self.is_locked() else written

    def identity(self, model_id: str) -> dict[str, Any]:
        """What the manifest says of a model's endpoint, weights and engine; empty if nothing."""
        return self.manifest().models.get(model_id, {})

    # Runs

    def run_dir(self, run_id: str) -> Path:
        """The folder of a run, made when it is not there. Raises UserError for an id that names no file, and
        (exit 3) where the sweep's folder is gone."""
        path = self._run_path(run_id)
        self.check_there()
        return private_folder(path)

    def make_run_dirs(self, run_ids: Iterable[str]) -> None:
        """Make the folders of runs together, which takes one wait for the disk and not one for each."""
        self.check_there()
        private_folders(self.path / "runs", [self._run_path(run_id).name for run_id in run_ids])

    def check_there(self) -> None:
        """Raise a UserError (exit 3) where the folder was removed, by whoever it was, while it was in use."""
        if not self.path.is_dir():
            raise UserError(
                "the sweep's folder is gone: it was removed while the sweep ran",
                where=str(self.path),
                remedy="Run the same command again: it begins a new sweep.",
                exit_code=ExitCode.INCOMPLETE,
            )

    def finish_run(self, run_id: str, run: Mapping[str, Any]) -> RunResults:
        """Write `run.json`, with the SHA-256 of the run's Parquet files; the run is finished by that.

        Raises UserError (exit 3) when the disk is full.
        """
        folder = self.run_dir(run_id)
        digests = {
            f"{name.partition('.')[0]}_sha256": file_sha256(folder / name)
            for name in (SAMPLES, SYSTEM, ASKED)
            if (folder / name).exists()
        }
        if (folder / SAMPLES).exists():
            from evalrun.tracking.leaves import write_leaves

            with contextlib.suppress(UserError):  # what cannot be read has no rows to prove
                digests[LEAVES_ROOT] = write_leaves(folder / SAMPLES)
        document: dict[str, Any] = plain({**run, "digests": {**(run.get("digests") or {}), **digests}})
        checked = self._results(document, folder / RUN)
        self._write_document(folder / RUN, with_defaults(document, checked))
        digests = {**checked.digests, RUN_DIGEST: file_sha256(folder / RUN)}
        # Durable with the next event that is: after a loss of power `complete_trail` tells of the run.
        detail = {"status": checked.status, "digests": digests}
        self.append_event("finish_run", detail, target=run_id, durable=False)
        return checked

    def is_finished(self, run_id: str) -> bool:
        """Whether the run has a `run.json` that says it is complete."""
        # Often asked, of many runs: what else the document says is not looked at.
        where = self._run_path(run_id) / RUN
        return where.exists() and read_document(where).get("status") == "complete"

    def run(self, run_id: str) -> RunResults:
        """The results of one run, checked."""
        where = self._run_path(run_id) / RUN
        found: RunResults = _kept(self.path, where, lambda: self._results(read_document(where), where))
        return found

    @staticmethod
    def _results(document: Mapping[str, Any], where: Path) -> RunResults:
        from evalrun.documents import read
        from evalrun.results import RunResults
        from evalrun.tracking.model import check_version

        check_version(document, where)
        return read(RunResults, document, where)

    def read_run(self, run_id: str) -> dict[str, Any]:
        """The results of one run as plain JSON values, with the keys that this version does not know."""
        where = self._run_path(run_id) / RUN
        document = read_document(where)
        return with_defaults(document, self._results(document, where))

    def run_ids(self) -> list[str]:
        """The runs that have results, in the order of the plan."""
        root = self.path / "runs"
        try:
            with os.scandir(root) as entries:
                present = {entry.name for entry in entries if _is_there(root / entry.name / RUN)}
        except FileNotFoundError:
            present = set()
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror}", where=str(error.filename)) from error
        planned = [each.run for each in self.manifest().plan if each.run in present]
        return planned + sorted(present.difference(planned))

    def runs(self) -> list[dict[str, Any]]:
        """The results of all runs that have any, in the order of the plan, as plain JSON values."""
        return [self.read_run(run_id) for run_id in self.run_ids()]

    def samples_path(self, run_id: str) -> Path:
        """Where the samples of a run are, once it is finished."""
        return self._run_path(run_id) / SAMPLES

    # Events and the lock

    def append_event(
        self,
        action: str,
        detail: Mapping[str, Any] | None = None,
        *,
        target: str = "",
        actor: str = "",
        durable: bool = True,
    ) -> dict[str, Any]:
        """Append to the audit trail; see `evalrun.tracking.events`.

        A `finish` seals the manifest and the inputs: the event keeps the SHA-256 of each as it is then.
        """
        if action == "finish" and (self.path / MANIFEST).exists():
            detail = {**(detail or {}), MANIFEST_DIGEST: file_sha256(self.path / MANIFEST)}
            inputs = self.path / INPUTS
            if inputs.is_dir():
                files = sorted(each for each in inputs.iterdir() if each.is_file())
                detail[INPUT_DIGESTS] = {file.name: file_sha256(file) for file in files}
        if self.redact is not None:
            detail = self.redact(dict(detail or {}))
        where = self.path / EVENTS
        event = events.append_event(where, action, detail, target=target, actor=actor, durable=durable)
        if action == "finish" and (detail or {}).get("status") in ENDED:
            (self.path / UNFINISHED).unlink(missing_ok=True)
        return event

    def is_sealed(self) -> bool:
        """Whether an event tells of the end of the sweep with the manifest as it is now."""
        now = file_sha256(self.path / MANIFEST)
        return any(
            event["action"] == "finish" and event["detail"].get(MANIFEST_DIGEST) == now
            for event in self.events()
        )

    def complete_trail(self) -> list[str]:
        """Tell of the runs that a process wrote whole and died before it could tell of them; returns their
        ids. For the process that holds the lock. A run whose files are not those it was written with is left
        as it is."""
        told = {event["target"] for event in self.events() if event["action"] == "finish_run"}
        mended = []
        for run_id in self.run_ids():
            if run_id in told:
                continue
            where, run = self._run_path(run_id), self.run(run_id)
            names = {f"{name.partition('.')[0]}_sha256": name for name in (SAMPLES, SYSTEM, ASKED)}
            wanted = {key: digest for key, digest in run.digests.items() if key in names}
            there = {key: file_sha256(where / name) for key, name in names.items() if (where / name).exists()}
            if there != wanted:
                continue
            digests = {**run.digests, RUN_DIGEST: file_sha256(where / RUN)}
            detail = {"status": run.status, "digests": digests, "told_later": True}
            self.append_event("finish_run", detail, target=run_id)
            mended.append(run_id)
        return mended

    def events(self) -> list[dict[str, Any]]:
        """The audit trail, oldest first, not checked."""
        return list(events.read_events(self.path / EVENTS))

    def last_event(self) -> dict[str, Any] | None:
        """The newest event, or None where there is none."""
        return events.last_event(self.path / EVENTS)

    def verify_events(self) -> int | None:
        """The first broken event, or None."""
        return events.verify_events(self.path / EVENTS)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the sweep, for the one process that runs it. Raises UserError when another has it.

        The kernel frees it when the process ends, however it ends.
        """
        with disk_errors(self.path):
            descriptor = open_private(self.path / LOCK, os.O_RDWR | os.O_CREAT)
        try:
            if not _locked_soon(descriptor):
                raise self._busy(descriptor)
            with disk_errors(self.path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            remove_leftovers(self.path, self.path / "inputs", *(self.path / "runs").glob("*"))
            yield
        finally:
            os.close(descriptor)

    def is_locked(self) -> bool:
        """Whether a living process holds the sweep."""
        try:
            descriptor = os.open(self.path / LOCK, os.O_RDONLY | os.O_CLOEXEC)  # it may be another's
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    def unfinished_digest(self) -> str | None:
        """The digest of the sweep's work if it is not complete, else None. Reads no manifest."""
        try:
            return (self.path / UNFINISHED).read_text()
        except OSError:
            return None

    def _busy(self, descriptor: int) -> UserError:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        return UserError(
            f"another evalrun (process {holder or 'unknown'}) is running this sweep",
            where=str(self.path),
            remedy="Wait for it to end, or start a sweep of its own with --fresh.",
            exit_code=ExitCode.INCOMPLETE,
        )

    def _run_path(self, run_id: str) -> Path:
        if not _RUN_ID.match(run_id) or len(os.fsencode(run_id)) > _RUN_ID_BYTES:
            raise UserError(f"'{run_id[:80]}' cannot name a run: it must be usable as a file name")
        return self.path / "runs" / run_id

    def _write_document(self, where: Path, document: Mapping[str, Any]) -> None:
        if self.redact is not None:
            document = self.redact(document)
        write_private(where, document_bytes(scrub_json(document)))


_READ: dict[Path, dict[Path, tuple[tuple[int, int, int], Any]]] = {}
_KEPT_SWEEPS = 2
"""The documents of so many sweeps are kept as they were read: two are compared, and all are not held."""


def _kept(sweep: Path, where: Path, read: Callable[[], Any]) -> Any:
    """What was read of a document, as long as its file stays what it was: at the end of a sweep each is asked
    for many times. Nobody changes what is given out."""
    try:
        status = where.stat()
    except OSError:
        return read()  # which says what is the matter
    seen = (status.st_mtime_ns, status.st_size, status.st_ino)
    of_sweep = _READ.setdefault(sweep, {})
    known = of_sweep.get(where)
    if known is None or known[0] != seen:
        known = of_sweep[where] = (seen, read())
        while len(_READ) > _KEPT_SWEEPS:
            _READ.pop(next(iter(_READ)), None)
    return known[1]


def _is_there(path: Path) -> bool:
    """Whether there is such a file; OSError where that may not be known."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _locked_soon(descriptor: int) -> bool:
    """Take the lock, trying a few times: someone may be looking, for an instant, whether it is held."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        else:
            return True
    return False


def with_defaults(document: Mapping[str, Any], checked: RunResults) -> dict[str, Any]:
    """A run's document with the keys that it lacks; what this version does not know stays as it is."""
    from dataclasses import asdict

    known: dict[str, Any] = {
        "schema_version": 1,
        "params": {},
        "repeats": checked.repeats,
        "status": checked.status,
        "details": {},
        "timings": {},
        "digests": {},
        **document,
        "counts": {**asdict(checked.counts), **(document.get("counts") or {})},
    }
    # What this version wrote lacks nothing: one metric tells what all of them have.
    whole = checked.metrics[0].document().keys() if checked.metrics else set()
    known["metrics"] = [
        given if given.keys() >= whole else {**metric.document(), **given}
        for metric, given in zip(checked.metrics, document.get("metrics") or (), strict=True)
    ]
    return known


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; of a folder of parts that of their names and digests."""
    import hashlib

    if path.is_dir():
        named = (f"{file.name} {file_sha256(file)}\n" for file in files_of(path))
        return hashlib.sha256("".join(named).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(folder: SweepFolder) -> str:
    """Changes whenever the manifest is written (its time and size), when a process takes or leaves the sweep,
    and while that process adds samples. Empty where there is no manifest."""
    try:
        status = (folder.path / MANIFEST).stat()
    except OSError:
        return ""
    if not folder.is_locked():
        return f"{status.st_mtime_ns}:{status.st_size}"
    # Its journals grow: they are looked into again where they have.
    grown = 0
    for journal in (folder.path / "runs").glob("*/journal.jsonl"):
        with contextlib.suppress(OSError):
            grown += journal.stat().st_size
    return f"{status.st_mtime_ns}:{status.st_size}:{grown}:held"


def names_of(folders: Sequence[SweepFolder]) -> str:
    """The folders' names for a message, ten at most."""
    shown = ", ".join(folder.path.name for folder in folders[:10])
    return f"{shown}, … ({len(folders)} in all)" if len(folders) > 10 else shown
