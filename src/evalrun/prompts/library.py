"""The templates of one prompt and all that they include, read once and parsed.

What is read here is what is rendered later: a file that changes during a run changes nothing. Included and
imported files alike see the row's columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import jinja2
from jinja2 import nodes

from evalrun.errors import Problem, UserError
from evalrun.frozen import frozen
from evalrun.prompts.sections import allow_sections
from evalrun.registry import nearest
from evalrun.sandbox import SandboxEnvironment
from evalrun.templates import UNREADABLE, Variables, renderer, syntax_error, variables
from evalrun.types import JSON

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


_MARKS = (".git", ".hg", "pyproject.toml")
"""What says that a folder is a project's. Not what evalrun writes itself (a store, a lock beside the suite):
a suite must not be refused because it was run or pinned."""
_OF_SUITES = frozenset({"suites", "suite", "evals", "eval", "evaluations"})


def project_folder(base_dir: Path) -> Path:
    """The folder of a suite's project: the nearest one from the suite's own upwards that says so (`_MARKS`).

    Without one: the current folder where the suite lies in it, else the suite's own, or the one above where
    that is a folder of suites (`suites/` beside `prompts/`).
    """
    own = base_dir.resolve()
    for folder in (own, *own.parents):
        if any((folder / mark).exists() for mark in _MARKS):
            return folder
    own = own.parent if own.name in _OF_SUITES else own
    here = Path.cwd().resolve()
    return here if own.is_relative_to(here) and here != Path(here.anchor) else own


def open_prompt_file(
    file: Path, base_dir: Path, where: str, *, allow_outside: bool = False
) -> tuple[PromptFolder, str]:
    """The folder and the name of a prompt's own file, as the suite names it.

    Raises UserError for a file outside the suite's project, also by a symbolic link, and for an absolute
    path outside the suite's folder, unless that is allowed.
    """
    path = base_dir / file
    project = project_folder(base_dir)
    own = base_dir.resolve()
    if not allow_outside and file.is_absolute() and not path.resolve().is_relative_to(own):
        raise UserError(
            f"the prompt file '{file}' is an absolute path outside the suite's folder",
            where=where,
            remedy="Name it by a path that starts at the suite's folder, such as ../prompts/direct.j2, or "
            "write allow_outside: true beside it.",
        )
    if not allow_outside and not path.resolve().is_relative_to(project):
        raise UserError(
            f"the prompt file '{file}' lies outside the suite's project, {project}",
            where=where,
            remedy="Copy it there, or write allow_outside: true beside it.",
        )
    return PromptFolder(path.parent), path.name


_References = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


@frozen
class Use:
    """The variables that one template reads. `place` gives where a line of it stands."""

    place: Callable[[int], str]
    variables: Variables


class Library:
    """Compiles the templates of one prompt in an environment of their own."""

    def __init__(self, folder: PromptFolder, left_out: Sequence[str] = (), *, marked: bool = False) -> None:
        """`left_out` are the marked sections that are not to be there; with `marked` the others stand between
        marks in what is rendered."""
        self.included: dict[str, str] = {}
        self.uses: list[Use] = []
        self.problems: list[Problem] = []
        self._folder = folder
        self._environment = SandboxEnvironment(jinja2.DictLoader(self.included))
        self._sections = allow_sections(self._environment, left_out, marked=marked)

    @property
    def sections(self) -> tuple[str, ...]:
        """The names of the marked sections, in the order in which they were found."""
        return tuple(self._sections)

    def add(self, source: str, place: Callable[[int], str]) -> Callable[[Mapping[str, JSON]], str] | None:
        """Compile a template with all that it includes. Gives None where problems were found."""
        before = len(self.problems)
        self._follow(source, place, frozenset())
        if len(self.problems) > before:
            return None
        render = renderer(self._environment.from_string(source))
        if "{" in source:
            return render
        text = render({})  # a text without any template in it, such as most system messages
        return lambda values: text

    def _follow(self, source: str, place: Callable[[int], str], defined: frozenset[str]) -> None:
        """Parse a template and what it refers to. `defined` are the names that surrounding templates set."""
        try:
            tree = self._environment.parse(source)
            found = variables(tree)
        except UNREADABLE as error:
            self.problems += syntax_error(error, place(getattr(error, "lineno", 1))).problems
            return
        lines = {name: line for name, line in found.lines.items() if name not in defined}
        self.uses.append(Use(place, Variables(lines, found.tested, found.attributes, found.guarded)))
        defined |= _assigned(tree)
        for node in tree.find_all(_References):
            for name in self._names(node, place):
                self._include(name, place(node.lineno), defined)

    def _include(self, name: str, where: str, defined: frozenset[str]) -> None:
        if name in self.included:
            return
        try:
            text = self.included[name] = self._folder.read(name, where)
        except UserError as error:
            self.problems += error.problems
            return
        shown = self._folder.show(name)
        self._follow(text, lambda line: f"{shown}:{line}", defined)

    def _names(self, node: nodes.Node, place: Callable[[int], str]) -> Iterator[str]:
        """The files that an include, import or extends names."""
        template: nodes.Expr = node.template  # type: ignore[attr-defined]
        choices = template.items if isinstance(template, nodes.List | nodes.Tuple) else [template]
        optional = getattr(node, "ignore_missing", False) or len(choices) > 1
        for choice in choices:
            if not isinstance(choice, nodes.Const) or not isinstance(choice.value, str):
                self.problems.append(
                    Problem(
                        "the name of an included file must be a fixed text",
                        place(node.lineno),
                        "What a prompt consists of must be known before anything is sent.",
                    )
                )
            elif not optional or (self._folder.root / choice.value).exists():
                yield choice.value


def _assigned(tree: nodes.Template) -> frozenset[str]:
    """Names that a template sets itself anywhere, and that files included by it therefore see."""
    found = {node.name for node in tree.find_all(nodes.Name) if node.ctx in ("store", "param")}
    found |= {node.name for node in tree.find_all(nodes.Macro)}
    found |= {node.target for node in tree.find_all(nodes.Import)}
    for node in tree.find_all(nodes.FromImport):
        found |= {name if isinstance(name, str) else name[1] for name in node.names}
    return frozenset(found)
