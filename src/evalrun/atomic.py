"""Files that are either whole or not there, for nobody's eyes but the owner's, or those of a group.

Everything of value is written beside its place, made durable, and then moved into it. Files are 0600 and
folders 0700 from the first byte on, not made so afterwards. Within a folder that a group shares (its members
may write, and what is made in it becomes the group's: mode 2770) files are 0660 and folders 2770, whatever
the umask.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from evalrun.errors import ExitCode, UserError

FILE_MODE = 0o600
FOLDER_MODE = 0o700
GROUP_FILE_MODE = 0o660
GROUP_FOLDER_MODE = 0o2770

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.ENOENT,
    errno.EEXIST,
    errno.EISDIR,
}


def is_shared(folder: Path) -> bool:
    """Whether a group shares this folder: the group may read, write and enter, and inherits what is made."""
    bits = folder.stat().st_mode
    return bool(bits & stat.S_ISGID) and bits & stat.S_IRWXG == stat.S_IRWXG


def open_private(path: Path, flags: int) -> int:
    """`os.open` for a file of a store: what is made has the mode that its folder asks for."""
    shared = bool(flags & os.O_CREAT) and is_shared(path.parent)
    descriptor = os.open(path, flags | os.O_CLOEXEC, GROUP_FILE_MODE if shared else FILE_MODE)
    if shared:
        found = os.fstat(descriptor)
        if stat.S_IMODE(found.st_mode) != GROUP_FILE_MODE and found.st_uid == os.geteuid():
            os.fchmod(descriptor, GROUP_FILE_MODE)  # the umask took some of it away
    return descriptor


def make_private(path: Path) -> None:
    """Give a file that was copied into a store the mode that its folder asks for."""
    path.chmod(GROUP_FILE_MODE if is_shared(path.parent) else FILE_MODE)


def private_folder(path: Path) -> Path:
    """The folder, made durably (with its parents, for the owner or the group) when it is not there. Raises
    UserError."""
    if path.is_dir():
        return path
    with disk_errors(path):
        # One by one: `mkdir(parents=True)` would make the parents readable by others.
        missing = list(itertools.takewhile(lambda each: not each.exists(), (path, *path.parents)))
        for each in reversed(missing):
            shared = is_shared(each.parent)
            with contextlib.suppress(FileExistsError):
                each.mkdir(mode=FOLDER_MODE)
                if shared:
                    each.chmod(GROUP_FOLDER_MODE)
            sync(each.parent)
        path.mkdir(exist_ok=True)  # raises where a file is in the way
    return path


def private_folders(parent: Path, names: Iterable[str]) -> None:
    """Folders of these names in `parent`, which is made too: durably, with one wait for the disk for all."""
    private_folder(parent)
    shared = is_shared(parent)
    with disk_errors(parent):
        for name in names:
            with contextlib.suppress(FileExistsError):
                (parent / name).mkdir(mode=FOLDER_MODE)
                if shared:
                    (parent / name).chmod(GROUP_FOLDER_MODE)
        sync(parent)


def place_for(path: Path) -> Path:
    """`path`, in a folder that is there and can be written: to be known before the work begins whose result
    is to go there. Raises UserError (exit 2)."""
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        why = "" if os.access(folder, os.W_OK | os.X_OK) or path.exists() else "no permission"
    except (FileExistsError, NotADirectoryError):
        why = "what should be its folder is a file"
    except OSError as error:
        why = error.strerror or str(error)
    if not why and path.is_dir():
        why = "it is a folder"
    if why:
        raise UserError(f"nothing can be written there: {why}", where=str(path), remedy="Name another place.")
    return path


def write_private(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Put `data` at `path` so that a reader, or a crash at any moment, sees the old file or the new one.

    Where it need not be `durable`, a loss of power may leave it empty. Raises UserError (exit 3) when the
    disk is full or the folder cannot be written.
    """
    with replacing(path, durable=durable, named=durable) as temporary, temporary.open("wb") as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True, named: bool = True) -> Iterator[Path]:
    """A temporary file (0600, empty) beside `path` to write into; at the end it is synced and moved there.

    Without `named` its name becomes durable only with the next file of its folder that is; without `durable`
    nothing is synced.
    On any error it is removed and `path` stays as it was. A link is followed. What is no file (a device, a
    pipe) is not replaced: the text is written into it. Raises UserError (exit 3) when the disk is full.
    """
    if _is_no_file(path):
        import tempfile  # drags much in, and is hardly ever needed

        with disk_errors(path), tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / path.name
            temporary.touch(mode=FILE_MODE)
            yield temporary
            path.write_bytes(temporary.read_bytes())
        return
    path = path.resolve() if path.is_symlink() else path
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    with disk_errors(path.parent):
        try:
            os.close(open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            yield temporary
            if durable:
                sync(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if named:
            sync(path.parent)


def _is_no_file(path: Path) -> bool:
    """Whether something lies there that is no file."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


_LEFTOVER = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp\Z")


def remove_leftovers(*folders: Path) -> None:
    """Remove what `replacing` left in folders when its process was killed. Nobody else may write there."""
    for folder in folders:
        with contextlib.suppress(OSError):
            for path in folder.iterdir():
                if _LEFTOVER.match(path.name):
                    path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file, or a folder's list of names, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk, or a place that cannot be written, into a UserError (exit 3) naming the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise no_room(folder) from error
        if error.errno in _NOT_ALLOWED:
            raise UserError(
                f"cannot write here: {error.strerror}",
                where=str(folder),
                remedy="Make that place writable, or name another one.",
                exit_code=ExitCode.INCOMPLETE,
            ) from error
        raise


def no_room(folder: Path) -> UserError:
    """The error of a full disk (or quota, or file size limit)."""
    return UserError(
        "the disk is full",
        where=str(folder),
        remedy="Make room, then run the same command again: what was done is kept.",
        exit_code=ExitCode.INCOMPLETE,
    )
