"""A store: the folders of many sweeps, and the catalog that indexes them.

The folders are the truth. Whatever the catalog lacks is read from them, and it can be made anew at any time.
Nothing here imports the database layer until the catalog is asked for something.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from evalrun.atomic import private_folder, write_private
from evalrun.errors import ExitCode, UserError
from evalrun.tracking.folder import MANIFEST, SweepFolder, names_of
from evalrun.tracking.ulid import PATTERN, new_ulid

if TYPE_CHECKING:
    from evalrun.tracking.catalog import Catalog
    from evalrun.tracking.rows import Reindexed, SweepRow

Folders: TypeAlias = list[SweepFolder]
SweepRows: TypeAlias = "list[SweepRow]"

_Answer = TypeVar("_Answer")
_SLUG_LENGTH = 60
_log = logging.getLogger(__name__)


def slug(name: str) -> str:
    """A name made fit for a folder: lower case, letters, digits, `.`, `_` and `-`; never empty."""
    words = re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-._")
    return words[:_SLUG_LENGTH].rstrip("-._") or "sweep"


def _has_manifest(folder: SweepFolder) -> bool:
    return (folder.path / MANIFEST).exists()


class Store:
    """The store at `root`. Folders are made (0700) when first needed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sweeps = root / "sweeps"
        self.catalog_path = root / "catalog.db"

    # Sweeps

    def create_sweep(self, name: str) -> SweepFolder:
        """A new, empty sweep folder. Raises UserError (exit 3) when it cannot be made."""
        self._prepare()
        path = self.sweeps / f"{new_ulid()}-{slug(name)}"
        private_folder(path / "runs")
        return SweepFolder(path)

    def folders(self) -> Folders:
        """All sweeps, the newest first. Reads names only; a folder may still lack its manifest."""
        if not self.sweeps.is_dir():
            return []
        found = [path for path in self.sweeps.iterdir() if PATTERN.match(path.name)]
        return [SweepFolder(path) for path in sorted(found, key=lambda path: path.name, reverse=True)]

    def find_incomplete(self, work_digest: str) -> SweepFolder | None:
        """The newest sweep of the same work that is not complete and that no living process holds."""
        for folder in self.folders():
            if folder.unfinished_digest() != work_digest or folder.is_locked():
                continue
            # The mark may have outlived the sweep's completion by a crash: the manifest decides.
            with contextlib.suppress(UserError):
                manifest = folder.manifest()
                if manifest.status != "complete" and manifest.spec_digest == work_digest:
                    return folder
        return None

    def resolve(self, name: str) -> SweepFolder:
        """The sweep that a person means.

        `latest`, any unique prefix of an id, the name of a sweep or project (its newest sweep), or the path
        of a sweep folder. Raises UserError that lists the candidates when there are several or none.
        """
        folders = self.folders()
        if name == "latest":
            folders = [folder for folder in folders if _has_manifest(folder)]
            matches = folders[:1]
        else:
            matches = [folder for folder in folders if folder.path.name == name]
            matches = matches or [
                each for each in folders if name and each.path.name.startswith(name.upper())
            ]
            matches = [folder for folder in matches if _has_manifest(folder)]
        if len(matches) == 1:
            return matches[0]
        named = self._named(name, folders)
        if named is not None:
            return named
        as_path = Path(name)
        if name and (as_path / MANIFEST).is_file():
            return SweepFolder(as_path.resolve())
        raise self._unresolved(name, matches, folders)

    def _named(self, name: str, folders: Folders) -> SweepFolder | None:
        wanted = slug(name)
        for folder in folders:
            if folder.path.name[27:] == wanted:
                with contextlib.suppress(UserError):
                    if folder.manifest().name == name:
                        return folder
        return self._of_project(name, folders)

    def _of_project(self, project: str, folders: Folders) -> SweepFolder | None:
        with contextlib.suppress(UserError):
            rows = self.list(1, project)
            return SweepFolder(rows[0].folder) if rows else None
        # Without a usable catalog the manifests tell, more slowly.
        for folder in folders:
            with contextlib.suppress(UserError):
                if folder.manifest().project == project:
                    return folder
        return None

    def _unresolved(self, name: str, matches: Folders, folders: Folders) -> UserError:
        if len(matches) > 1:
            return UserError(
                f"'{name}' fits {len(matches)} sweeps: {names_of(matches)}",
                where=str(self.root),
                remedy="Give more characters of the id.",
            )
        return UserError(
            f"there is no sweep '{name}'",
            where=str(self.root),
            remedy=f"The newest are: {names_of(folders[:5])}."
            if folders
            else "The store holds no sweep yet.",
        )

    # The catalog

    def index(self, folder: SweepFolder) -> None:
        """Enter one sweep, as its folder is now, into the catalog; again as often as you like.

        Raises UserError where the catalog is of a later version, the disk is full or it stays locked.
        """
        self._ask(lambda catalog: catalog.index(folder))

    def list(self, limit: int | None = 50, project: str | None = None) -> SweepRows:
        """The newest sweeps first. What the folders have and the catalog lacks is entered on the way.

        A sweep whose process was killed is shown as `interrupted`.
        """
        if not self.sweeps.is_dir():
            return []

        def read(catalog: Catalog) -> SweepRows:
            catalog.sync(self.folders())
            return catalog.sweeps(limit, project)

        return [
            replace(row, status="interrupted")
            if row.status == "running" and not SweepFolder(row.folder).is_locked()
            else row
            for row in self._ask(read)
        ]

    def reindex(self) -> Reindexed:
        """Make the catalog anew from the folders. Folders that cannot be read are named in the result."""
        return self._ask(lambda catalog: catalog.rebuild(self.folders()))

    def _ask(self, question: Callable[[Catalog], _Answer]) -> _Answer:
        """Put a question to the catalog. A broken one, which holds nothing of its own, is made anew first."""
        from evalrun.tracking.catalog import BrokenCatalog, Catalog

        self._prepare()
        try:
            with Catalog.open(self.catalog_path, self.sweeps) as catalog:
                return question(catalog)
        except BrokenCatalog as broken:
            kept = Catalog.set_aside(self.catalog_path)
            _log.warning("the catalog was broken (%s): kept as %s and made anew", broken, kept)
        try:
            with Catalog.open(self.catalog_path, self.sweeps) as catalog:
                catalog.sync(self.folders())
                return question(catalog)
        except BrokenCatalog as broken:
            raise UserError(
                f"the catalog cannot be made anew: {broken}",
                where=str(self.catalog_path),
                remedy="The sweep folders hold everything; look at the disk, then run `evalrun reindex`.",
                exit_code=ExitCode.INCOMPLETE,
            ) from broken

    def _prepare(self) -> None:
        private_folder(self.sweeps)
        ignore = self.root / ".gitignore"
        if not ignore.exists():
            # A store inside a repository must neither be committed nor count as a change of the code.
            write_private(ignore, b"*\n")
