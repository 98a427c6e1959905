"""Trainings in a store: a folder each, like a sweep's, with a manifest, a trail, tags and notes.

training.json what was trained, how and from what events.jsonl what happened to it, hash-chained
metrics.parquet its series, one row a point checkpoints.json its checkpoints, with digests metrics.jsonl the
journal while it is tracked lock held by the process that trains
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from evalrun.atomic import disk_errors, private_folder, write_private
from evalrun.documents import read
from evalrun.errors import ExitCode, Problem, UserError
from evalrun.registry import nearest
from evalrun.secrets import scrub_json
from evalrun.tracking.folder import EVENTS, SweepFolder, file_sha256, new_ulid
from evalrun.tracking.people import MAX_NAME
from evalrun.tracking.plain import document_bytes, plain, read_document
from evalrun.tracking.store import Store, slug
from evalrun.types import JSON

if TYPE_CHECKING:
    import sqlalchemy as sa

TRAINING, METRICS, CHECKPOINTS, JOURNAL = (
    "training.json",
    "metrics.parquet",
    "checkpoints.json",
    "metrics.jsonl",
)
SEALED = (TRAINING, METRICS, CHECKPOINTS)
"""Files whose digests the trail keeps when a training ends."""

Status: TypeAlias = Literal["running", "finished", "diverged", "interrupted", "failed", "complete"]
"""How a training stands. `complete` is what earlier folders say for `finished`."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that a training was read from, as it was then."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A checkpoint of a training. `kept` says that it was on the disk when it was looked at; `bytes` are
    those of all its files; `sha256` is `providers.downloads.checkpoint_sha256`; `base` the model that an
    adapter was trained on; `lacks` what it had not, where it was not whole."""

    step: int
    path: str
    sha256: str = ""
    bytes: int = 0
    kept: bool = True
    kind: str = "model"
    base: str = ""
    lacks: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class LastValue:
    """A metric of a training in short: the last step and value (None where it is no number, `reason` says
    which), the least and the greatest finite value, and how many points there are."""

    name: str
    step: int
    value: float | None
    low: float | None = None
    high: float | None = None
    points: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TrainingManifest:
    """`training.json`. Steps count optimizer steps done; `planned_steps` is None where it is not known.

    `hyperparameters` keep their types; `architecture` is the model's card; `data` and `seeds` what was given
    of them; `sources` the files that it was read from; `notes` what reading them brought up; `system` figures
    of the machine over the whole training; `resumed` the steps it was taken up again at.
    """

    training: str
    name: str
    project: str
    status: Status = "running"
    framework: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    steps: int = 0
    planned_steps: int | None = None
    hyperparameters: Mapping[str, JSON] = field(default_factory=dict)
    architecture: Mapping[str, JSON] = field(default_factory=dict)
    data: Mapping[str, JSON] = field(default_factory=dict)
    seeds: Mapping[str, JSON] = field(default_factory=dict)
    sources: tuple[SourceFile, ...] = ()
    notes: tuple[str, ...] = ()
    last: tuple[LastValue, ...] = ()
    system: Mapping[str, JSON] = field(default_factory=dict)
    resumed: tuple[int, ...] = ()
    provenance: Mapping[str, JSON] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = 1


class TrainingFolder(SweepFolder):
    """One training on disk: the trail and the lock are those of a sweep."""

    def has_manifest(self) -> bool:
        """Whether there is a `training.json`."""
        return (self.path / TRAINING).exists()

    def training(self) -> TrainingManifest:
        """The manifest. Raises UserError that names the file if it is missing, broken or later."""
        where = self.path / TRAINING
        document = read_document(where)
        if document.get("schema_version", 1) != 1:
            raise UserError(
                "written by a later evalrun", where=str(where), remedy="Upgrade evalrun to read it."
            )
        return read(TrainingManifest, document, where)

    manifest = training  # type: ignore[assignment]  # what people say of it is told as of a sweep

    def status(self) -> Any:
        """How it stands: `interrupted` where it says `running` and no living process holds it."""
        written = self.training().status
        if written == "running" and not self.is_locked():
            return "interrupted"
        return "finished" if written == "complete" else written

    def write_training(self, manifest: TrainingManifest) -> None:
        """Write `training.json`, whole or not at all, without anything that looks like a secret."""
        self._write_document(self.path / TRAINING, plain(manifest))

    def update(self, **changes: Any) -> TrainingManifest:
        """Change some fields of the manifest."""
        changed = replace(self.training(), **changes)
        self.write_training(changed)
        return changed

    def checkpoints(self) -> list[CheckpointRow]:
        """The checkpoints by their steps; none where there is no list."""
        where = self.path / CHECKPOINTS
        if not where.exists():
            return []
        document = read_document(where)
        rows = [read(CheckpointRow, each, where) for each in document.get("checkpoints") or ()]
        return sorted(rows, key=lambda row: row.step)

    def write_checkpoints(self, rows: Sequence[CheckpointRow]) -> None:
        """Write `checkpoints.json`: of each step the last one given."""
        by_step = {row.step: row for row in rows}
        listed = [asdict(by_step[step]) for step in sorted(by_step)]
        write_private(self.path / CHECKPOINTS, document_bytes(scrub_json({"checkpoints": listed})))

    def seal(self, action: str, detail: Mapping[str, Any]) -> None:
        """Append an event that keeps the digests of the files as they are now."""
        digests = {name: file_sha256(self.path / name) for name in SEALED if (self.path / name).exists()}
        self.append_event(action, {**detail, "files_sha256": digests})


def trainings_root(store: Store) -> Path:
    """Where the store keeps trainings."""
    return store.root / "trainings"


def create_training(store: Store, name: str) -> TrainingFolder:
    """A new, empty folder. Raises UserError (exit 3) when it cannot be made."""
    store.create_root()
    path = trainings_root(store) / f"{new_ulid()}-{slug(name)}"
    return TrainingFolder(private_folder(path))


def training_folders(store: Store) -> list[TrainingFolder]:
    """All trainings that have a manifest, the newest first."""
    return _folders(trainings_root(store))


def _folders(root: Path) -> list[TrainingFolder]:
    from evalrun.tracking.folder import PATTERN

    if not root.is_dir():
        return []
    names = sorted((each.name for each in root.iterdir() if PATTERN.match(each.name)), reverse=True)
    found = [TrainingFolder(root / name) for name in names]
    return [folder for folder in found if folder.has_manifest()]


def resolve_training(store: Store, name: str) -> TrainingFolder:
    """The training that a person means: `latest`, a beginning of its id, its name (the newest of that name,
    renamed ones too), or the path of its folder. Raises UserError that lists what there is."""
    folders = training_folders(store)
    if name == "latest" and folders:
        return folders[0]
    matches = [each for each in folders if name and each.path.name.upper().startswith(name.upper())]
    if len(matches) == 1:
        return matches[0]
    known: list[str] = []
    for folder in folders:
        with contextlib.suppress(UserError):
            known.append(name_of(folder))
            if known[-1] == name or folder.training().name == name:
                return folder
    as_path = Path(name)
    if name and (as_path / TRAINING).is_file():
        return TrainingFolder(as_path.resolve())
    near = nearest(name, known)
    listed = (
        f"There are: {', '.join(dict.fromkeys(known[:10]))}."
        if known
        else "Import one: evalrun training import FOLDER"
    )
    raise UserError(
        f"'{name}' fits {len(matches)} trainings" if matches else f"there is no training '{name}'",
        where=str(store.root),
        remedy=f"Did you mean '{near}'?" if near else listed,
    )


def fit_name(name: str) -> str:
    """A name that lists and queries can take: one line of printable characters, never empty."""
    printable = "".join(char if char.isprintable() else " " for char in name)
    return " ".join(printable.split())[:MAX_NAME] or "training"


def name_of(folder: TrainingFolder) -> str:
    """What the training is called now."""
    from evalrun.tracking.people import fold

    manifest = folder.training()
    return fold(manifest.tags, folder.events()).name or manifest.name


def delete_training(store: Store, folder: TrainingFolder, reason: str = "") -> None:
    """Delete a training's folder for good; a tombstone stays in the store's trail."""
    import shutil

    if folder.is_locked():
        raise UserError(
            "the training is running",
            where=str(folder.path),
            remedy="End it first.",
            exit_code=ExitCode.INCOMPLETE,
        )
    manifest, last = folder.training(), folder.last_event()
    detail = {
        "folder": folder.path.name, "training": manifest.name, "project": manifest.project, "reason": reason,
        "events": last["seq"] if last else 0, "head": last["hash"] if last else "",
    }  # fmt: skip
    store.append_event("delete", detail, target=folder.ulid)
    with disk_errors(trainings_root(store)):
        trash = folder.path.with_name(f".deleted-{folder.path.name}")
        folder.path.rename(trash)
        shutil.rmtree(trash)
    store.list(1)


def sealed_files(folder: TrainingFolder) -> Mapping[str, str]:
    """The digests of the files as they were when the training ended."""
    seal: Mapping[str, str] = {}
    for event in folder.events():
        if event["action"] in ("resume", "start"):
            seal = {}
        seal = event["detail"].get("files_sha256") or seal
    return seal


def verify_training(folder: TrainingFolder) -> list[tuple[Path, str]]:
    """What is not as the trail says: the file and what is wrong with it."""
    path = folder.path / EVENTS
    first = folder.verify_events()
    if first is not None:
        return [(path, f"event {first} is not what was written")]
    wrong = []
    for name, digest in sealed_files(folder).items():
        file = folder.path / Path(name).name
        if not file.is_file():
            wrong.append((file, "is gone"))
        elif file_sha256(file) != digest:
            wrong.append((file, "was altered after the training had ended"))
    return wrong


# The catalog


def sync_trainings(connection: sa.Connection, root: Path, *, anew: bool = False) -> tuple[Problem, ...]:
    """Enter what the catalog lacks of the trainings in `root` or holds in an older state, and drop what is
    gone. Returns what could not be read. For whoever may write."""
    import sqlalchemy as sa

    from evalrun.tracking.tables import training

    folders = {folder.ulid: folder for folder in _folders(root)}
    known = {row.ulid: row.stamp for row in connection.execute(sa.select(training.c.ulid, training.c.stamp))}
    problems: list[Problem] = []
    for ulid in known.keys() - folders.keys():
        connection.execute(training.delete().where(training.c.ulid == ulid))
    for ulid, folder in folders.items():
        if anew or known.get(ulid) != training_stamp(folder):
            try:
                enter_training(connection, folder)
            except (UserError, OSError) as error:
                problems += error.problems if isinstance(error, UserError) else [Problem(str(error))]
    return tuple(problems)


def trainings_changed(connection: sa.Connection, root: Path) -> bool:
    """Whether the catalog has to be brought up to date with the trainings in `root`. Writes nothing."""
    import sqlalchemy as sa

    from evalrun.tracking.tables import training

    known = {row.ulid: row.stamp for row in connection.execute(sa.select(training.c.ulid, training.c.stamp))}
    return known != {folder.ulid: training_stamp(folder) for folder in _folders(root)}


def training_stamp(folder: TrainingFolder) -> str:
    """Changes whenever the manifest or the trail is written, and when a process takes or leaves it."""
    parts = []
    for name in (TRAINING, EVENTS):
        with contextlib.suppress(OSError):
            state = (folder.path / name).stat()
            parts.append(f"{state.st_mtime_ns}:{state.st_size}")
    return ":".join([*parts, "held" if folder.is_locked() else ""])


def enter_training(connection: sa.Connection, folder: TrainingFolder) -> None:
    """Put a training in the place of what was known of it."""
    from evalrun.tracking.people import fold
    from evalrun.tracking.tables import TableRows, training, training_metric_last, training_tag

    stamp, manifest = training_stamp(folder), folder.training()
    said = fold(manifest.tags, folder.events())
    connection.execute(training.delete().where(training.c.ulid == folder.ulid))
    same = ("framework", "started_at", "finished_at")
    row = {
        "ulid": folder.ulid,
        "project_id": TableRows(connection).id_of("project", {"name": manifest.project}),
        "name": said.name or manifest.name,
        "folder": folder.path.name,
        "status": folder.status(),
        **{key: getattr(manifest, key) for key in same},
        "steps": min(manifest.steps, (1 << 31) - 1),
        "stamp": stamp,
        "archived": int(said.archived),
        "note": said.notes_of()[-1].text if said.notes_of() else None,
    }
    connection.execute(training.insert(), [row])
    tags = [{"training": folder.ulid, "key": key, "value": value} for key, value in said.tags.items()]
    if tags:
        connection.execute(training_tag.insert(), tags)
    last = {
        each.name: {
            "training": folder.ulid,
            "name": each.name,
            "step": min(each.step, (1 << 31) - 1),
            **{key: getattr(each, key) for key in ("value", "low", "high")},
        }
        for each in manifest.last
    }
    if last:
        connection.execute(training_metric_last.insert(), list(last.values()))
