"""Reading a training from what another program wrote, into a folder of the store: whole, or not at all."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalrun.checkpoints import STATE, missing_of, step_of
from evalrun.errors import UserError
from evalrun.providers.downloads import checkpoint_sha256
from evalrun.registry import nearest
from evalrun.tracking.folder import file_sha256, new_ulid
from evalrun.tracking.store import Store, slug
from evalrun.tracking.trainings import (
    METRICS,
    CheckpointRow,
    SourceFile,
    TrainingFolder,
    TrainingManifest,
    fit_name,
    training_folders,
    trainings_root,
)
from evalrun.training.alerts import TrainingAlert, watched
from evalrun.training.architecture import architecture_of
from evalrun.training.readers import Reading, services, tables, tensorboard, trainer_state, wandb_file
from evalrun.training.series import Points, Series
from evalrun.types import JSON

FRAMEWORKS = ("huggingface", "tensorboard", "lightning", "table", "trackio", "mlflow", "wandb")
_STEPS_LEFT = "it ended at step {steps:,} of {planned:,}"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What to import and as what. `source` is a folder, a file, the address of an MLflow run, or a W&B run
    (entity/project/run); `framework` is "auto" or one of FRAMEWORKS; `run` chooses among several; `mapped`
    names columns of a table; `data` are files that the model was trained on, whose digests are kept."""

    source: str
    framework: str = "auto"
    name: str = ""
    project: str = ""
    run: str = ""
    mapped: Mapping[str, str] = field(default_factory=dict)
    data: tuple[Path, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    digests: bool = True


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of it. `again` says that the very same files had been imported before, into this folder."""

    folder: TrainingFolder
    manifest: TrainingManifest
    checkpoints: tuple[CheckpointRow, ...]
    alerts: tuple[TrainingAlert, ...]
    again: bool = False


def import_training(store: Store, options: ImportOptions) -> Imported:
    """Read a training and keep it. Raises UserError with the file and the remedy; nothing is kept then."""
    reading = read_training(options)
    if not len(reading.points):
        raise UserError(
            "; ".join(["nothing was logged in it", *reading.notes]),
            where=str(reading.files[0] if reading.files else options.source),
            remedy="Import it when the training has logged something.",
        )
    sources = tuple(SourceFile(str(path), file_sha256(path), path.stat().st_size) for path in reading.files)
    folder = Path(options.source) if Path(options.source).is_dir() else None
    checkpoints = _checkpoints(folder, reading, digests=options.digests) if folder is not None else []
    known = _known(store, sources, checkpoints, options)
    if known is not None:
        return known
    series = reading.points.series()
    reading.points = Points()  # a million of them need not be held twice
    manifest = _manifest(options, reading, series, sources, _architecture(folder, checkpoints))
    alerts, diverged = watched(series, manifest.planned_steps)
    if diverged is not None:
        manifest = replace(manifest, status="diverged")
    return _keep(store, manifest, series, checkpoints, alerts)


def read_training(options: ImportOptions) -> Reading:
    """Read the source, by the framework that is named or the one that it looks like. Raises UserError."""
    framework, source = options.framework, options.source
    if framework not in ("auto", *FRAMEWORKS):
        near = nearest(framework, FRAMEWORKS)
        remedy = f"Did you mean '{near}'?" if near else f"There are: auto, {', '.join(FRAMEWORKS)}."
        raise UserError(f"there is no framework '{framework}'", where="--framework", remedy=remedy)
    if source.startswith(("http://", "https://")):
        return services.read_mlflow(source, options.run)
    if source.startswith("wandb:") or (framework == "wandb" and not Path(source).exists()):
        return services.read_wandb(source.removeprefix("wandb:"))
    path = Path(source)
    if not path.exists():
        raise UserError(
            "there is no such file or folder", where=source, remedy="Name the folder that the training wrote."
        )
    try:
        return _read(path, options)
    except OSError as error:
        where = str(error.filename or source)
        raise UserError(f"cannot be read: {error.strerror or error}", where=where) from error


def _read(path: Path, options: ImportOptions) -> Reading:
    framework = options.framework
    for name, find, read in _readers(options):
        if framework not in ("auto", name):
            continue
        files = (
            find(path) if path.is_dir() else [path] if framework == name or _looks_like(name, path) else []
        )
        if files:
            reading = read(files)
            if name == "huggingface" and path.is_dir():
                _more_of_huggingface(reading, path)
            return reading
    if path.is_dir() and (below := [each for each in sorted(path.iterdir()) if _holds_one(each)]):
        return _read(_only(below, "folders with trainings"), options)
    raise UserError(
        f"holds nothing that {'a training' if framework == 'auto' else framework} wrote",
        where=str(path),
        remedy="Known are trainer_state.json, TensorBoard's event files, Lightning's metrics.csv, a CSV or "
        "JSONL file, trackio's .db, W&B's .wandb, the address of an MLflow run, and "
        "wandb:ENTITY/PROJECT/RUN.",
    )


_Find = Callable[[Path], list[Path]]
_Read = Callable[[list[Path]], Reading]


def _readers(options: ImportOptions) -> list[tuple[str, _Find, _Read]]:
    """What is looked for, in this order."""

    def table(files: list[Path]) -> Reading:
        return tables.read_table(_only(files, "tables"), options.mapped)

    def trackio(files: list[Path]) -> Reading:
        return services.read_trackio(_only(files, "files of trackio"), options.run)

    def wandb(files: list[Path]) -> Reading:
        return wandb_file.read(_only(files, "runs of W&B"))

    return [
        ("huggingface", trainer_state.find, trainer_state.read),
        ("lightning", tables.find_lightning, lambda files: tables.read_lightning(files[0])),
        ("tensorboard", tensorboard.find, tensorboard.read),
        ("trackio", services.find_trackio, trackio),
        (services.WANDB, wandb_file.find, wandb),
        ("table", tables.find_table, table),
    ]


def _holds_one(folder: Path) -> bool:
    """Whether a folder is the output of a trainer: people name the folder above it."""
    return folder.is_dir() and bool(trainer_state.find(folder))


def _only(paths: list[Path], what: str) -> Path:
    """The one that there is. Raises UserError that lists them where there are several."""
    if len(paths) > 1:
        listed = ", ".join(path.name for path in paths[:20])
        where = str(paths[0].parent)
        raise UserError(f"holds {len(paths)} {what}", where=where, remedy=f"Name one: {listed}.")
    return paths[0]


def _looks_like(framework: str, path: Path) -> bool:
    """Whether a single file is of a framework, by its name."""
    return {
        "huggingface": path.name == STATE,
        "lightning": path.name == "metrics.csv" and (path.with_name("hparams.yaml")).exists(),
        "tensorboard": ".tfevents." in path.name,
        "trackio": path.suffix == ".db",
        services.WANDB: path.suffix == ".wandb",
        "table": path.suffix.lower() in tables.SUFFIXES,
    }.get(framework, False)


def _more_of_huggingface(reading: Reading, folder: Path) -> None:
    """Hyperparameters that the state has not: a user's `args.json`, else those in TensorBoard's files."""
    own = folder / "args.json"
    if own.is_file():
        with contextlib.suppress(ValueError, RecursionError):
            values = json.loads(own.read_bytes())
            if isinstance(values, dict):
                reading.files.append(own)
                reading.hyperparameters = {**values, **reading.hyperparameters}
                return
    files = tensorboard.find(folder)
    if files:
        told = tensorboard.read(files).hyperparameters
        reading.hyperparameters = {**told, **reading.hyperparameters}


def _known(
    store: Store, sources: tuple[SourceFile, ...], checkpoints: list[CheckpointRow], options: ImportOptions
) -> Imported | None:
    """The training that the very same files are in already, under the same name, with these checkpoints or
    more: a trainer deletes older ones."""
    digests = {source.sha256 for source in sources}
    for folder in training_folders(store) if sources else ():
        with contextlib.suppress(UserError):
            manifest = folder.training()
            kept = {(row.step, row.sha256, row.lacks) for row in folder.checkpoints()}
            same = {source.sha256 for source in manifest.sources} == digests
            same = same and {(row.step, row.sha256, row.lacks) for row in checkpoints} <= kept
            if same and (not options.name or manifest.name == fit_name(options.name)):
                return Imported(folder, manifest, tuple(folder.checkpoints()), (), again=True)
    return None


def _checkpoints(folder: Path, reading: Reading, *, digests: bool) -> list[CheckpointRow]:
    rows = []
    places = [folder, folder / "checkpoints", *folder.glob("*/checkpoints")]
    if reading.files:
        places.append(reading.files[0].parent / "checkpoints")
    seen: set[int] = set()
    for place in dict.fromkeys(each.resolve() for each in places if each.is_dir()):
        paths = sorted((each for each in place.iterdir() if _is_checkpoint(each)), key=_written)
        for order, path in enumerate(paths, 1):
            step = step_of(path)
            note = "" if step is not None else "its name has no step: counted in the order of time"
            if path.suffix == ".ckpt":
                note = "only its own framework can load it: named and digested, never opened"
            if (step or order) not in seen:
                seen.add(step or order)
                rows.append(checkpoint_row(path, order if step is None else step, note, digests=digests))
    return sorted(rows, key=lambda row: row.step)


def _written(path: Path) -> float:
    return path.stat().st_mtime


def _is_checkpoint(path: Path) -> bool:
    names = ("config.json", "adapter_config.json", STATE)
    return path.suffix in (".gguf", ".ckpt") or any((path / name).exists() for name in names)


def checkpoint_row(path: Path, step: int, note: str = "", *, digests: bool = True) -> CheckpointRow:
    """What is kept of a checkpoint. Raises UserError where it claims to be whole and is not."""
    lacks = missing_of(path, time.time()) if path.is_dir() or path.suffix == ".gguf" else ""
    if "not whole" in lacks and (path / STATE).exists():
        remedy = "The checkpoint is damaged: copy it again, or move it out of the folder."
        raise UserError(lacks, where=str(path), remedy=remedy)
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    kind = "gguf" if path.suffix == ".gguf" else "model" if path.is_dir() else "other"
    base = ""
    if (path / "adapter_config.json").exists():
        kind = "adapter"
        base = "" if lacks else str(architecture_of(path).get("base") or "")
    return CheckpointRow(
        step=step,
        path=str(path),
        sha256=checkpoint_sha256(path) if digests and not lacks else "",
        bytes=sum(each.stat().st_size for each in files),
        kind=kind,
        base=base,
        lacks=lacks,
        note=note,
    )


def _architecture(folder: Path | None, checkpoints: list[CheckpointRow]) -> dict[str, JSON]:
    if folder is None:
        return {}
    whole = [Path(row.path) for row in checkpoints if not row.lacks and Path(row.path).is_dir()]
    for place in (folder, *reversed(whole)):
        card = architecture_of(place)
        if card:
            return card
    return {}


def _manifest(
    options: ImportOptions,
    reading: Reading,
    series: Series,
    sources: tuple[SourceFile, ...],
    architecture: dict[str, JSON],
) -> TrainingManifest:
    source = Path(options.source)
    name = (
        options.name
        or reading.name
        or (source.resolve().name if source.exists() else "")
        or reading.framework
    )
    name = fit_name(name)
    steps, planned = max(reading.steps, int(series.step.max())), reading.planned_steps
    short = planned is not None and steps < planned
    if short and planned is not None:
        reading.note(_STEPS_LEFT.format(steps=steps, planned=planned))
    walls = [wall for wall in (series.wall_s[series.wall_s == series.wall_s]).tolist() if wall > 0]
    hyper = reading.hyperparameters
    return TrainingManifest(
        training=new_ulid(),
        name=name,
        project=options.project or name,
        status="interrupted" if short else "finished",
        framework=reading.framework,
        started_at=_iso(min(walls)) if walls else None,
        finished_at=_iso(max(walls)) if walls else None,
        steps=steps,
        planned_steps=planned,
        hyperparameters=hyper,
        architecture=architecture,
        data={str(path): file_sha256(path) for path in options.data},
        seeds={key: hyper[key] for key in ("seed", "data_seed") if hyper.get(key) is not None},
        sources=sources,
        notes=tuple(reading.notes),
        last=series.last(),
        tags=options.tags,
    )


def _iso(unix_s: float) -> str | None:
    with contextlib.suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")
    return None


def _keep(
    store: Store,
    manifest: TrainingManifest,
    series: Series,
    checkpoints: list[CheckpointRow],
    alerts: list[TrainingAlert],
) -> Imported:
    """Write the folder beside its place, and move it there when it is whole."""
    from evalrun.atomic import private_folder

    store.create_root()
    root = private_folder(trainings_root(store))
    final = root / f"{manifest.training}-{slug(manifest.name)}"
    folder = TrainingFolder(private_folder(root / f".importing-{final.name}"))
    try:
        folder.write_training(manifest)
        series.write(folder.path / METRICS)
        folder.write_checkpoints(checkpoints)
        detail: dict[str, Any] = {
            "framework": manifest.framework,
            "steps": manifest.steps,
            "points": len(series),
        }
        folder.append_event("import", {**detail, "sources": [asdict(each) for each in manifest.sources]})
        for row in checkpoints:
            folder.append_event(
                "checkpoint", {"step": row.step, "path": row.path, "sha256": row.sha256}, durable=False
            )
        for alert in alerts:
            folder.append_event("alert", asdict(alert), durable=False)
        folder.seal("finish", {"status": manifest.status})
        folder.path.rename(final)
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    kept = TrainingFolder(final)
    store.index(kept)
    return Imported(kept, manifest, tuple(checkpoints), tuple(alerts))
