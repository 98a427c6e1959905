"""What goes over the wire of a sweep, for both ends: which names, which digests, and when it is whole."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalrun.atomic import private_folder
from evalrun.errors import ExitCode, UserError
from evalrun.tracking.folder import SweepFolder, file_sha256
from evalrun.tracking.store import Store

FOLDER_NAME = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}-[a-z0-9._-]{1,80}\Z")
_RUN = r"runs/(?!\.)[^/\\\x00-\x1f\x7f]{1,200}"
_PLAIN = r"(?!\.)[^/\\\x00-\x1f\x7f]{1,200}"
ALLOWED = re.compile(
    rf"(?:sweep\.json|events\.jsonl|inputs/{_PLAIN}|labels/{_PLAIN}\.jsonl|signatures/\d{{1,9}}\.json(?:\.sig)?"
    rf"|{_RUN}/(?:run\.json|identity\.json|samples\.parquet|system\.parquet|judge\.parquet|journal\.jsonl))\Z"
)
"""What a sweep may hold that comes from elsewhere: documents and tables, never a page or a program."""

INCOMING = "incoming"
_DOCUMENT_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class File:
    """One file of a sweep."""

    path: str
    bytes: int
    sha256: str


def files_of(folder: SweepFolder) -> list[File]:
    """The files of a sweep that are sent, in the order of their names."""
    found = []
    for path in sorted(folder.path.rglob("*")):
        name = path.relative_to(folder.path).as_posix()
        if path.is_file() and not path.is_symlink() and ALLOWED.match(name):
            found.append(File(name, path.stat().st_size, file_sha256(path)))
    return found


def read_files(values: Any, most_bytes: int, most_files: int) -> list[File]:
    """A list of files as it was sent. Raises UserError for names, sizes and digests that are not taken."""
    if not isinstance(values, list) or not 1 <= len(values) <= most_files:
        raise UserError(f"'files' is a list of 1 to {most_files:,} files")
    found: dict[str, File] = {}
    for each in values:
        path, size, digest = (
            each.get(key) if isinstance(each, dict) else None for key in ("path", "bytes", "sha256")
        )
        if not isinstance(path, str) or not ALLOWED.match(path):
            raise UserError(f"'{str(path)[:120]}' is no file of a sweep")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise UserError(f"{path}: 'bytes' is not its size")
        if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise UserError(f"{path}: 'sha256' is no digest")
        if path.endswith((".json", ".jsonl")) and size > _DOCUMENT_BYTES and "journal" not in path:
            raise UserError(f"{path} is too large for what it is")
        if path.lower() in found:
            raise UserError(f"{path} is there twice")
        found[path.lower()] = File(path, size, digest)
    if sum(file.bytes for file in found.values()) > most_bytes:
        raise UserError(f"a sweep has at most {most_bytes:,} bytes here")
    if not {"sweep.json", "events.jsonl"} <= found.keys():
        raise UserError("a sweep has a sweep.json and an events.jsonl")
    return list(found.values())


def check(folder: SweepFolder, files: Sequence[File], ulid: str) -> None:
    """That what arrived is what was announced, and a sweep whose trail holds. Raises UserError."""
    from evalrun.tracking.audit import verify_folder

    for file in files:
        path = folder.path / file.path
        if not path.is_file() or path.stat().st_size != file.bytes or file_sha256(path) != file.sha256:
            raise UserError(f"{file.path} is not what was announced (its SHA-256 is another)")
    manifest = folder.manifest()
    if manifest.sweep != ulid or folder.ulid != ulid:
        raise UserError(f"the manifest is that of another sweep, {manifest.sweep[:40]}")
    broken = verify_folder(folder).broken
    if broken:
        what = "; ".join(f"{Path(each.where).name}: {each.what}" for each in broken[:3])
        raise UserError(f"the sweep was altered: {what}")


def take_in(store: Store, folder: SweepFolder) -> str:
    """Move a checked folder into the store: `new`, `extended` (its trail goes on from the one there), or
    `present` (the one there is the same or further on). Raises UserError where they went apart."""
    there = next((each for each in store.folders() if each.ulid == folder.ulid), None)
    if there is None:
        private_folder(store.sweeps)
        folder.path.rename(store.sweeps / folder.path.name)
        store.index(SweepFolder(store.sweeps / folder.path.name))
        return "new"
    old, new = [e["hash"] for e in there.events()], [e["hash"] for e in folder.events()]
    if old[: len(new)] == new:
        return "present"
    if new[: len(old)] != old or there.is_locked():
        raise UserError(
            "another sweep with this id is in the store: both were changed since they were one",
            where=folder.path.name,
            exit_code=ExitCode.GATE_FAILED,
        )
    aside = store.sweeps / f".replaced-{there.path.name}"
    shutil.rmtree(aside, ignore_errors=True)
    there.path.rename(aside)
    folder.path.rename(there.path)
    shutil.rmtree(aside, ignore_errors=True)
    store.index(there)
    return "extended"


def mend(store: Store) -> None:
    """Put back what a crash in `take_in` left aside."""
    for aside in store.sweeps.glob(".replaced-*") if store.sweeps.is_dir() else ():
        place = aside.with_name(aside.name.removeprefix(".replaced-"))
        if place.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(place)


def plan_document(project: str, folder: str, files: Sequence[File]) -> Mapping[str, Any]:
    """What a push announces."""
    listed = [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in files]
    return {"project": project, "folder": folder, "files": listed}
