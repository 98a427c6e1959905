"""The files that a prompt may read: those in the folder of its own file, and below."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from evalrun.errors import UserError
from evalrun.registry import nearest

MAX_BYTES = 4_000_000


class PromptFolder:
    """A folder as the templates of one prompt see it: nothing outside it exists for them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def show(self, name: str) -> str:
        """A file's path for messages: relative where it lies below the current folder."""
        path = self.root / name
        full = path.resolve()
        return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(path)

    def read(self, name: str, where: str) -> str:
        """The text of a file by its path from the folder.

        `where` is the place that names it. Raises UserError for a path that leaves the folder (also by a
        symbolic link), a missing file, one that is too big, and one that is not UTF-8.
        """
        path = self._inside(name, where)
        if not path.is_file():
            near = nearest(name, [entry.name for entry in self.root.glob("*") if entry.is_file()])
            raise UserError(
                f"there is no prompt file '{name}' in {self.show('.')}",
                where=where,
                remedy=f"Did you mean '{near}'?"
                if near
                else "Paths start at the folder of the prompt's file.",
            )
        try:
            data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
        except OSError as error:
            raise UserError(
                f"the prompt file cannot be read: {error.strerror}", where=self.show(name)
            ) from error
        if data is None:
            raise UserError(f"the prompt file is larger than {MAX_BYTES:,} bytes", where=self.show(name))
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise UserError(
                f"the prompt file is not UTF-8 (byte 0x{data[error.start]:02x})",
                where=f"{self.show(name)}:{line}",
                remedy="Save it as UTF-8.",
            ) from error

    def _inside(self, name: str, where: str) -> Path:
        parts = PurePosixPath(name)
        path = self.root / name
        outside = parts.is_absolute() or ".." in parts.parts or "\\" in name or "\0" in name
        if outside or not path.resolve().is_relative_to(self.root.resolve()):
            raise UserError(
                f"the prompt file '{name}' lies outside the prompt's folder",
                where=where,
                remedy=f"Prompts may read only what lies in {self.show('.')} and below; copy the file there.",
            )
        return path


def open_prompt_file(file: Path, base_dir: Path, where: str) -> tuple[PromptFolder, str]:
    """The folder and the name of a prompt's own file, as the suite names it.

    Raises UserError for an absolute path, unless it lies in the suite's own folder.
    """
    path = base_dir / file
    if file.is_absolute() and not path.resolve().is_relative_to(base_dir.resolve()):
        raise UserError(
            f"the prompt file '{file}' is an absolute path outside the suite's folder",
            where=where,
            remedy="Name it by a path that starts at the suite's folder, such as ../prompts/direct.j2.",
        )
    return PromptFolder(path.parent), path.name
