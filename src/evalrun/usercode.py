"""The code that a suite brings with it: which files a function of its own depends on, and their digests.

Followed are the import statements of Python files, wherever they stand in the file, to modules in the suite's
folder or beside the file itself. Installed packages are not followed: the environment's packages are recorded
by name and version.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sysconfig
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

_HOME = Path(__file__).resolve().parent
_INSTALLED = tuple(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def code_digests(targets: Iterable[Any], base_dir: Path) -> dict[str, str]:
    """SHA-256 by file of the code that functions, classes or objects are made of; see the module's docstring.

    Files are named by their path below `base_dir` (the suite's folder) or below the folder they are found in.
    evalrun's own code is not among them, nor what has no source file.
    """
    digests: dict[str, str] = {}
    for target in targets:
        source = source_file(target)
        if source is not None and _HOME not in source.parents:
            for name, path in _with_imports(source, base_dir.resolve()).items():
                digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return {name: digests[name] for name in sorted(digests)}


def source_file(target: Any) -> Path | None:
    """The file in which a function, a class or the class of an object is written, if there is one."""
    while isinstance(target, partial):
        target = target.func
    target = inspect.unwrap(target) if callable(target) else target
    code = target if inspect.isroutine(target) or inspect.isclass(target) else type(target)
    try:
        path = Path(inspect.getsourcefile(code) or "").resolve()
    except TypeError:
        return None
    return path if path.is_file() else None


def _with_imports(source: Path, base_dir: Path) -> dict[str, Path]:
    """The file and all that it imports, directly or through others, by their names."""
    roots = [base_dir]
    installed = any(folder in source.parents for folder in _INSTALLED)
    if not installed and base_dir not in source.parents:
        roots.append(_root_of(source))
    seen: dict[Path, str] = {}
    todo = [source]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        root = next((each for each in roots if each in path.parents), path.parent)
        seen[path] = path.relative_to(root).as_posix()
        if not installed:
            todo += _imported_files(path, roots)
    return {name: path for path, name in seen.items()}


def _root_of(source: Path) -> Path:
    """The folder from which a file is imported: above all packages that it lies in."""
    folder = source.parent
    while (folder / "__init__.py").exists():
        folder = folder.parent
    return folder


def _imported_files(path: Path, roots: Iterable[Path]) -> Iterator[Path]:
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # what does not parse was not imported either
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module_files(alias.name, roots)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                package = path.parents[node.level - 1]
                names, folders = node.module or "", [package]
            else:
                names, folders = node.module or "", list(roots)
            if node.level and not names:
                yield from _module_files("__init__", folders)
            for alias in node.names:
                yield from _module_files(f"{names}.{alias.name}".strip("."), folders)


def _module_files(dotted: str, folders: Iterable[Path]) -> Iterator[Path]:
    """The files of a module and of its packages; the last name may be one that a module defines."""
    parts = dotted.split(".")
    for folder in folders:
        for depth in range(1, len(parts) + 1):
            place = folder.joinpath(*parts[:depth])
            for path in (place.with_suffix(".py"), place / "__init__.py"):
                if path.is_file():
                    yield path.resolve()
