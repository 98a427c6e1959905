"""The code that a suite brings with it: which files a function of its own depends on, and their digests.

Followed are import statements, wherever they stand in a file, to modules in the suite's folder or beside the
file itself; nothing is run. Installed packages are not followed: the environment's packages are recorded by
name and version.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sysconfig
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

_HOME = Path(__file__).resolve().parent
_INSTALLED = tuple(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def code_digests(targets: Iterable[Any], base_dir: Path) -> dict[str, str]:
    """SHA-256 by file of the code that functions, classes or objects are made of, with what it imports.

    Files are named by their path below `base_dir` (the suite's folder) or below the folder they are found in.
    A function that has no file (a cell of a notebook) is named by its module and name. evalrun's own code is
    not among them, nor built-in functions.
    """
    digests: dict[str, str] = {}
    by_target = [(target, source_file(target)) for target in targets]
    for target in (target for target, source in by_target if source is None):
        digests |= _typed_in(target)
    for source in {source for _, source in by_target if source is not None}:
        if _HOME not in source.parents:
            for name, path in _with_imports(source, base_dir.resolve()).items():
                digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return {name: digests[name] for name in sorted(digests)}


def source_file(target: Any) -> Path | None:
    """The file in which a function, a class or the class of an object is written, if there is one."""
    code = _code(target)
    try:
        path = Path(inspect.getsourcefile(code) or "").resolve()
    except TypeError:
        return None
    return path if path.is_file() else None


def _code(target: Any) -> Any:
    """The function or class that a target is made of."""
    while isinstance(target, partial):
        target = target.func
    target = inspect.unwrap(target) if callable(target) else target
    return target if inspect.isroutine(target) or inspect.isclass(target) else type(target)


def _typed_in(target: Any) -> dict[str, str]:
    """The digest of code that stands in no file, by its name: of its source where Python has kept it, else of
    what it was compiled to."""
    code = _code(target)
    try:
        text = inspect.getsource(code).encode()
    except (OSError, TypeError):
        compiled = getattr(code, "__code__", None)
        if compiled is None:
            return {}
        text = _compiled(compiled)
    return {f"{code.__module__}:{code.__qualname__}": hashlib.sha256(text).hexdigest()}


def _compiled(code: CodeType) -> bytes:
    """What a function was compiled to, with those inside it; without addresses and line numbers."""
    constants = [_compiled(c) if isinstance(c, CodeType) else repr(c).encode() for c in code.co_consts]
    return b"\0".join([code.co_code, repr(code.co_names).encode(), *constants])


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
    files, unread = {source}, [source]
    while unread:
        for path in _imported_files(unread.pop(), roots) - files:
            files.add(path)
            unread.append(path)
    return {
        path.relative_to(next(root for root in roots if root in path.parents)).as_posix(): path
        for path in files
        if _HOME not in path.parents
    }


def _imported_files(file: Path, roots: Sequence[Path]) -> set[Path]:
    """The files below the roots that the import statements of a file may read; packages without an
    `__init__.py` too."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    files: set[Path] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                files |= _module_files(roots, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            parts = node.module.split(".") if node.module else []
            within = [file.parents[node.level - 1]] if 0 < node.level <= len(file.parents) else roots
            for alias in node.names:
                files |= _module_files(within, [*parts, alias.name])
    return {path for path in files if any(root in path.parents for root in roots)}


def _module_files(folders: Sequence[Path], parts: Sequence[str]) -> set[Path]:
    """What importing a dotted name reads in the first of the folders that has it: the packages on the way,
    and the module. The last part may be a name within the module before it."""
    for folder in folders:
        files: set[Path] = set()
        for end in range(1, len(parts) + 1):
            place = folder.joinpath(*parts[:end])
            files |= {path for path in (place / "__init__.py", place.with_name(f"{place.name}.py"))
                      if path.is_file()}  # fmt: skip
        if files:
            return {path.resolve() for path in files}
    return set()
