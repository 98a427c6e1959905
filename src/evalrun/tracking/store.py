"""A store: the folders of many sweeps, and the catalog that indexes them.

The folders are the truth. Whatever the catalog lacks is read from them, and it can be made anew at any time.
Nothing here imports the database layer until the catalog is asked for something.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from evalrun.atomic import (
    FOLDER_MODE,
    GROUP_FOLDER_MODE,
    disk_errors,
    is_shared,
    open_private,
    private_folder,
    write_private,
)
from evalrun.errors import ExitCode, UserError
from evalrun.tracking.events import append_event
from evalrun.tracking.folder import ENDED, MANIFEST, PATTERN, SweepFolder, names_of, new_ulid
from evalrun.tracking.glance import SQLITE, SweepRow, events_of, folder_named, glance, sweep_rows

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from evalrun.tracking.catalog import Catalog, Reindexed
    from evalrun.tracking.database import CopiedPlace, Place
    from evalrun.tracking.finding import Found, Search

Folders: TypeAlias = list[SweepFolder]
Names: TypeAlias = list[str]
Paths: TypeAlias = list[Path]
SweepRows: TypeAlias = list[SweepRow]
Events: TypeAlias = list[dict[str, Any]]

_Answer = TypeVar("_Answer")
_SLUG_LENGTH = 60
_LEAST_ROOM = 1 << 16
"""Bytes; with less free the catalog is read from a copy elsewhere."""
_log = logging.getLogger(__name__)


def slug(name: str) -> str:
    """A name made fit for a folder: lower case, letters, digits, `.`, `_` and `-`; never empty."""
    words = re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-._")
    return words[:_SLUG_LENGTH].rstrip("-._") or "sweep"


@contextlib.contextmanager
def _held(mark: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a mark, made where it is not there; the kernel lets go of it when the process ends. Without
    waiting: False where another holds it."""
    while True:
        with disk_errors(mark.parent):
            descriptor = open_private(mark, os.O_RDWR | os.O_CREAT)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            if _is_there(mark, descriptor):
                yield True
                return
            # Whoever held it has taken it away: the next is another file.
        finally:
            os.close(descriptor)


def _is_there(mark: Path, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(mark.stat(), os.fstat(descriptor))
    return False


class Store:
    """The store at `root`. Folders are made (0700) when first needed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sweeps = root / "sweeps"
        self.events_path = root / "events.jsonl"
        self.marks = root / "changed"
        self._copy: CopiedPlace | None = None

    @property
    def is_read_only(self) -> bool:
        """Whether there is a store and this user may not write it: another's, an archive, a mounted image."""
        catalog = self.root / SQLITE
        return self.sweeps.is_dir() and not (
            os.access(self.root, os.W_OK | os.X_OK)
            and os.access(self.sweeps, os.W_OK | os.X_OK)
            and (os.access(catalog, os.R_OK | os.W_OK) or not catalog.exists())
        )

    def _is_full(self) -> bool:
        """Whether SQLite could not even read here: it makes files beside a database that is looked at."""
        with contextlib.suppress(OSError):
            disk = os.statvfs(self.root)
            return self.sweeps.is_dir() and disk.f_bavail * disk.f_frsize < _LEAST_ROOM
        return False

    def create_root(self) -> None:
        """Make the store's folders. Raises UserError (exit 3) when they cannot be made."""
        self._prepare()

    @property
    def mode(self) -> str:
        """Who may use the store: `private` (its owner) or `group`; fixed when it was made."""
        return "group" if self.root.exists() and is_shared(self.root) else "private"

    def create(self, mode: str, group: str | None = None) -> None:
        """Make the store for its owner (`private`) or for a group (`group`: that one, else the user's own).

        Raises UserError where it holds sweeps already, and for a group that is not there or not the user's.
        """
        if self.sweeps.exists():
            raise UserError(
                f"there is a store already, and it is {self.mode}",
                where=str(self.root),
                remedy="A store's mode is fixed when it is made: make another one.",
            )
        private_folder(self.root)
        with disk_errors(self.root):
            if mode == "group" and group is not None:
                try:
                    shutil.chown(self.root, group=group)
                except (LookupError, PermissionError) as error:
                    what = f"the store cannot be given to the group '{group}': {error}"
                    raise UserError(what, where=str(self.root)) from error
            self.root.chmod(GROUP_FOLDER_MODE if mode == "group" else FOLDER_MODE)
        self._prepare()

    # Sweeps

    def create_sweep(self, name: str) -> SweepFolder:
        """A new, empty sweep folder. Raises UserError (exit 3) when it cannot be made."""
        self._prepare()
        path = self.sweeps / f"{new_ulid()}-{slug(name)}"
        private_folder(path / "runs")
        return SweepFolder(path)

    def folders(self) -> Folders:
        """All sweeps, the newest first. Reads names only; a folder may still lack its manifest."""
        return [SweepFolder(self.sweeps / name) for name in self._names()]

    def ulids(self) -> Names:
        """The ids of all sweeps, the newest first; to make ten thousand folders would take a while."""
        return [name[:26] for name in self._names()]

    def _names(self) -> Names:
        """The names of all sweep folders, the newest first. Paths would take ten times as long to make."""
        if not self.sweeps.is_dir():
            return []
        with os.scandir(self.sweeps) as entries:
            return sorted((entry.name for entry in entries if PATTERN.match(entry.name)), reverse=True)

    def find_incomplete(self, work_digest: str) -> SweepFolder | None:
        """The newest sweep of the same work that is not complete and that no living process holds."""
        for folder in self.folders():
            if folder.unfinished_digest() != work_digest or folder.is_locked():
                continue
            # The mark may have outlived the sweep's completion by a crash: the manifest decides.
            with contextlib.suppress(UserError, OSError):
                manifest = folder.manifest()
                done = manifest.status in ENDED and folder.is_sealed()
                if not done and manifest.spec_digest == work_digest:
                    return folder
        return None

    def resolve(self, name: str) -> SweepFolder:
        """The sweep that a person means.

        `latest`, any unique prefix of an id, the name of a sweep or project (its newest sweep), a baseline
        that only one project has, the path of a sweep folder, or a short name (`naming.short_sweep`).
        Raises UserError that lists the candidates when there are several or none.
        """
        folders = self.folders()
        if name == "latest":
            folders = [folder for folder in folders if folder.has_manifest()]
            matches = folders[:1]
        else:
            matches = [folder for folder in folders if folder.path.name == name]
            matches = matches or [
                each for each in folders if name and each.path.name.startswith(name.upper())
            ]
            matches = [folder for folder in matches if folder.has_manifest()]
        if len(matches) == 1:
            return matches[0]
        from evalrun.tracking.naming import is_place, short_sweep

        # `previous`, `#12` and `latest~1` need no catalog, which takes half of a second to open.
        placed = is_place(name) and not matches and not self._called(name, folders)
        named = None if placed else self._named(name, folders) or self._baseline(name, folders)
        if named is not None:
            return named
        as_path = Path(name)
        if name and (as_path / MANIFEST).is_file():
            return SweepFolder(as_path.resolve())
        short = None if matches else short_sweep(self, name, folders)
        if short is not None:
            return short
        raise self._unresolved(name, matches, folders)

    def _called(self, name: str, folders: Folders) -> SweepFolder | None:
        """The newest sweep of that name, by the folders alone."""
        wanted = slug(name)
        for folder in folders:
            if folder.path.name[27:] == wanted:
                with contextlib.suppress(UserError):
                    if folder.manifest().name == name:
                        return folder
        return None

    def _named(self, name: str, folders: Folders) -> SweepFolder | None:
        if (called := self._called(name, folders)) is not None:
            return called
        return self._renamed(name) or self._of_project(name, folders)

    def _renamed(self, name: str) -> SweepFolder | None:
        """The newest sweep that was given this name after it ended; the catalog knows."""
        if not name or not self.sweeps.is_dir():
            return None
        with contextlib.suppress(UserError):
            quick = glance(self, self._names(), lambda asked: folder_named(asked, name))
            found = quick[0] if quick is not None else self._folder_named(name)
            return SweepFolder(self.sweeps / found) if found else None
        return None

    def _folder_named(self, name: str) -> str | None:
        from evalrun.tracking.finding import folder_named as of_catalog

        return self.read(lambda connection: of_catalog(connection, name))

    def _baseline(self, name: str, folders: Folders) -> SweepFolder | None:
        """What the name stands for where gates compare with it (`tracking.changes` sets such names)."""
        from evalrun.tracking.changes import list_baselines

        named = [baseline for baseline in list_baselines(self) if baseline.name == name] if folders else []
        if len(named) > 1:
            projects = ", ".join(each.project for each in named)
            raise UserError(
                f"'{name}' is a baseline of {len(named)} projects: {projects}",
                where=str(self.root),
                remedy="Give the sweep's id: `evalrun baseline list` tells it.",
            )
        return next((folder for folder in folders if named and folder.ulid == named[0].sweep), None)

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
        self.record(folder)
        if folder.path.parent.name == "trainings":  # entered with the next question, by its stamp
            self._ask(self._sync)
            return
        if not (self.is_read_only or self._is_full()):
            from evalrun.tracking.rows import enter

            self._prepare()
            if enter(self.root, folder):
                return
        self._ask(lambda catalog: catalog.index(folder))

    def record(self, folder: SweepFolder) -> None:
        """Note the head of the sweep's audit trail in the store's: a cut in the one shows in the other, and
        that the whole sweep is gone. Of a folder elsewhere nothing is noted."""
        if folder.path.parent.resolve() not in (self.sweeps.resolve(), (self.root / "trainings").resolve()):
            return
        last = folder.last_event()
        if last is not None:
            detail = {"seq": last["seq"], "head": last["hash"], "name": folder.path.name[27:]}
            self.append_event("record", detail, target=folder.ulid)

    def list(self, limit: int | None = 50, project: str | None = None, *, archived: bool = True) -> SweepRows:
        """The newest sweeps first. What the folders have and the catalog lacks is entered on the way.

        A sweep whose process was killed is shown as `interrupted`.
        """
        if not self.sweeps.is_dir():
            return []

        quick = glance(self, self._names(), lambda asked: sweep_rows(asked, self, limit, project, archived))
        if quick is not None:
            return quick

        def read(catalog: Catalog) -> SweepRows:
            self._sync(catalog)
            return catalog.sweeps(limit, project, archived=archived)

        return self._ask(read)

    def events_of(self, actions: Sequence[str], *, in_step: bool = False) -> Events:
        """The events of these kinds with their project, the oldest first; `detail` as JSON text. `in_step`
        as for `read`."""
        quick = glance(self, None if in_step else self._names(), lambda asked: events_of(asked, actions))
        if quick is not None:
            return quick
        from evalrun.tracking.finding import events_of as of_catalog

        return self.read(lambda connection: of_catalog(connection, actions), in_step=in_step)

    def find(self, search: Search) -> Found:
        """The runs that a search asks for; what the catalog lacks is entered on the way.

        Raises UserError that points at an unknown name or a wrong type in the query.
        """
        from evalrun.tracking.finding import find

        return self.read(lambda connection: find(connection, search))

    def read(self, question: Callable[[Connection], _Answer], *, in_step: bool = False) -> _Answer:
        """Put a question of one's own to the catalog, brought up to date first unless it is `in_step` with
        the folders by another question just now. It may change nothing."""

        def ask(catalog: Catalog) -> _Answer:
            if not in_step:
                self._sync(catalog)
            return catalog.read(question)

        return self._ask(ask)

    def entered(self) -> set[str]:
        """The ids of the sweeps that the catalog holds, as it is: it is not brought up to date."""
        return self._ask(lambda catalog: catalog.entered())

    @property
    def catalog_shown(self) -> str:
        """Where the catalog is, for messages; without any password."""
        from evalrun.tracking.database import catalog_place

        return catalog_place(self.root).shown

    def reindex(self) -> Reindexed:
        """Make the catalog anew from the folders. Folders that cannot be read are named in the result."""
        done = self._ask(lambda catalog: catalog.rebuild(self.folders()))
        for mark in self._marked():
            mark.unlink(missing_ok=True)
        from evalrun.tracking.reuse import rebuild_index

        rebuild_index(self)
        return done

    @contextlib.contextmanager
    def changing(self, folder: SweepFolder) -> Iterator[None]:
        """Around a change to a finished sweep: should this process die in it, the catalog learns it later."""
        mark = private_folder(self.marks) / folder.path.name
        with _held(mark):
            yield
            self.index(folder)
            mark.unlink(missing_ok=True)

    def append_event(
        self, action: str, detail: Mapping[str, Any] | None = None, *, target: str = ""
    ) -> dict[str, Any]:
        """Append to the store's own audit trail, which outlives every sweep in it."""
        self._prepare()
        return append_event(self.events_path, action, detail, target=target)

    def _sync(self, catalog: Catalog) -> None:
        unread = catalog.sync(self._names())
        for mark in self._marked():
            folder = SweepFolder(self.sweeps / mark.name)
            if self._copy is not None:  # for this process alone: the mark stays for whoever may write
                if folder.has_manifest():
                    with contextlib.suppress(UserError):
                        catalog.index(folder)
                continue
            # The mark of a change that is being made at this moment is its maker's to take away.
            with _held(mark, wait=False) as free:
                if free and folder.has_manifest():
                    try:
                        catalog.index(folder)
                    except UserError as error:
                        unread += error.problems
                if free:
                    mark.unlink(missing_ok=True)
        if unread:
            _log.warning("some sweeps cannot be read; `evalrun reindex` names them: %s", unread[0])

    def _marked(self) -> Paths:
        return [*self.marks.iterdir()] if self.marks.is_dir() else []

    def _ask(self, question: Callable[[Catalog], _Answer]) -> _Answer:
        """Put a question to the catalog. A broken one, which holds nothing of its own, is made anew first."""
        from evalrun.tracking.catalog import Catalog
        from evalrun.tracking.database import BrokenCatalog

        place = self._place()
        try:
            with Catalog.open(place, self.sweeps) as catalog:
                return question(catalog)
        except BrokenCatalog as broken:
            kept = Catalog.set_aside(place)
            _log.warning("the catalog was broken (%s): kept as %s and made anew", broken, kept)
        try:
            with Catalog.open(place, self.sweeps) as catalog:
                catalog.sync(self._names())
                return question(catalog)
        except BrokenCatalog as broken:
            raise UserError(
                f"the catalog cannot be made anew: {broken}",
                where=place.shown,
                remedy="The sweep folders hold everything; look at the disk, then run `evalrun reindex`.",
                exit_code=ExitCode.INCOMPLETE,
            ) from broken

    def _place(self) -> Place:
        from evalrun.tracking.database import CopiedPlace, SqlitePlace, catalog_place

        if not (self.is_read_only or self._is_full()):
            self._prepare()
            return catalog_place(self.root)
        place = catalog_place(self.root)
        if not isinstance(place, SqlitePlace):
            return place
        if self._copy is None:
            self._copy = CopiedPlace(self.root / SQLITE)
        return self._copy

    def _prepare(self) -> None:
        private_folder(self.sweeps)
        ignore = self.root / ".gitignore"
        if not ignore.exists():
            # A store inside a repository must neither be committed nor count as a change of the code.
            write_private(ignore, b"*\n")
