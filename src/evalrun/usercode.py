"""The code that a suite brings with it: which files a function of its own depends on, and their digests.

Followed are import statements, wherever they stand in a file, to modules in the suite's folder or beside the
file itself; nothing is run. Installed packages are not followed: the environment's packages are recorded by
name and version.
"""

from __future__ import annotations

import hashlib
import inspect
import sysconfig
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

_HOME = Path(__file__).resolve().parent
_INSTALLED = tuple(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def code_digests(targets: Iterable[Any], base_dir: Path) -> dict[str, str]:
    """SHA-256 by file of the code that functions, classes or objects are made of, with what it imports.

    Files are named by their path below `base_dir` (the suite's folder) or below the folder they are found in.
    evalrun's own code is not among them, nor what has no source file.
    """
    digests: dict[str, str] = {}
    for source in {source_file(target) for target in targets}:
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
    if any(folder in source.parents for folder in _INSTALLED):
        return {source.name: source}
    roots = [base_dir]
    if base_dir not in source.parents:
        folder = source.parent
        while (folder / "__init__.py").exists():
            folder = folder.parent
        roots.append(folder)
    from modulefinder import ModuleFinder

    root = next(each for each in roots if each in source.parents)
    finder = ModuleFinder([str(each) for each in roots])
    try:
        finder.import_hook(".".join(source.relative_to(root).with_suffix("").parts))
    except (ImportError, SyntaxError):  # a name that is no module's: then the file alone
        return {source.name: source}
    names = (getattr(module, "__file__", None) for module in finder.modules.values())
    files = [Path(name).resolve() for name in names if name]
    return {
        path.relative_to(next(each for each in roots if each in path.parents)).as_posix(): path
        for path in {source, *files}
        if any(each in path.parents for each in roots) and _HOME not in path.parents
    }
