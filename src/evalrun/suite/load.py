"""From a suite file to a validated suite: everything that is wrong with it is reported at once, by line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evalrun.errors import Problem, UserError
from evalrun.suite import overrides as changes
from evalrun.suite.checks import check_data, nearest_file
from evalrun.suite.components import PYTHON
from evalrun.suite.environment import expand
from evalrun.suite.findings import Finding, from_pydantic
from evalrun.suite.overrides import Overrides
from evalrun.suite.plan import EMPTY_MATRIX, matrix
from evalrun.suite.schema import Suite
from evalrun.suite.tree import Node, parse_yaml

__all__ = ["LoadedSuite", "Overrides", "load_suite", "parse_suite"]


@dataclass(frozen=True, slots=True)
class LoadedSuite:
    """A suite, the file it came from, and the way back from a value to its line.

    `text` is the file as read, `base_dir` the folder that relative paths start at. `declared` are the ids of
    each section ("models"), also those that the command line left out.
    """

    suite: Suite
    path: Path
    text: str
    base_dir: Path
    tree: Node
    declared: Mapping[str, Sequence[str]]

    def locate(self, *path: str | int) -> str:
        """The file:line of the value at a path such as ("gates", 0), or of the nearest value above it.

        Where an option of the command line put the value there, that option is named instead.
        """
        return str(self.tree.deepest(path).shown_place())


def load_suite(
    path: Path, overrides: Overrides | None = None, env: Mapping[str, str] | None = None
) -> LoadedSuite:
    """Read, change by the command line's options, and validate a suite.

    `env` is where `${NAME}` is looked up (default: the process environment). Raises UserError with every
    problem found, in the order of lines, those of options first.
    """
    env = os.environ if env is None else env
    text = _read(path)
    tree, problems = parse_yaml(text.removeprefix("\ufeff"), str(path))
    if tree is None:
        raise UserError(problems or [Problem("the suite is empty", str(path), "'evalrun init' writes one.")])
    if not isinstance(tree.value, dict):
        raise UserError(
            "a suite is a mapping: name, models, prompts, datasets, scorers", where=str(tree.place)
        )
    declared, found = changes.apply(tree, overrides or Overrides(), env)
    expansion = expand(tree, env)
    problems += [expansion.redacted(item, ()) for item in found] + expansion.problems
    base_dir = path.parent.resolve()
    suite, findings = _validate(tree.plain(), base_dir, declared)
    problems += [
        expansion.redacted(Problem(item.what, _where(tree, item), item.remedy), item.path)
        for item in findings
        if item.path not in expansion.failed
    ]
    if suite is None or problems:
        raise UserError(_in_order(problems, str(path)))
    suite.hide(expansion.secrets())
    loaded = LoadedSuite(suite, path, text, base_dir, tree, declared)
    if not matrix(suite):
        raise UserError(EMPTY_MATRIX, where=loaded.locate("include" if suite.include else "exclude"))
    return loaded


def parse_suite(data: Mapping[str, Any], base_dir: Path | None = None) -> Suite:
    """A suite from data in the shape of the YAML, as Python code makes it.

    Environment variables are not expanded. Local files are looked for only when `base_dir` is given.
    Raises UserError with every problem; each names its place as a dotted path.
    """
    suite, findings = _validate(dict(data), base_dir, None)
    if suite is None or findings:
        raise UserError([Problem(item.what, ".".join(map(str, item.path)), item.remedy) for item in findings])
    return suite


def _validate(
    data: dict[str, Any], base_dir: Path | None, declared: Mapping[str, Sequence[str]] | None
) -> tuple[Suite | None, list[Finding]]:
    findings = check_data(data, base_dir, declared)
    try:
        with _own_code(data, base_dir):
            return Suite.model_validate(data), findings
    except ValidationError as error:
        return None, [*from_pydantic(error.errors(), data, Suite), *findings]


@contextmanager
def _own_code(data: Mapping[str, Any], base_dir: Path | None) -> Iterator[None]:
    """Let `python:` find modules beside the suite and in the current folder, after all installed ones."""
    entries = [*_listed(data.get("parse")), *_listed(data.get("scorers"))]
    if not any(isinstance(entry, dict) and PYTHON in entry for entry in entries):
        yield
        return
    before = list(sys.path)
    sys.path += [str(folder) for folder in (base_dir, Path.cwd()) if folder is not None]
    try:
        yield
    finally:
        sys.path[:] = before


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _where(tree: Node, item: Finding) -> str:
    node = tree.deepest(item.path)
    return str(node.key_place if item.at_key and node.key_place else node.shown_place())


def _in_order(problems: Iterable[Problem], source: str) -> list[Problem]:
    """Each problem once; those of options first, then by line."""

    def line(problem: Problem) -> int:
        name, _, number = problem.where.rpartition(":")
        return int(number) if name == source and number.isdecimal() else 0

    return sorted(dict.fromkeys(problems), key=line)


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"there is no suite '{path}'", remedy=_similar_file(path)) from None
    except IsADirectoryError:
        raise UserError(f"'{path}' is a folder, not a suite", remedy="Name the YAML file in it.") from None
    except OSError as error:
        raise UserError(f"the suite '{path}' cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"byte 0x{data[error.start]:02x} is not UTF-8",
            where=f"{path}:{line}",
            remedy="Save the file as UTF-8.",
        ) from None


def _similar_file(path: Path) -> str:
    near = nearest_file(path)
    return f"Did you mean '{path.parent / near}'?" if near else "'evalrun init' writes one to begin with."
