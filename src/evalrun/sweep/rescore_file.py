"""The file that says how a finished sweep is scored again: read, and put into the sweep's suite."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.errors import Problem, UserError
from evalrun.suite.load import parse_suite

if TYPE_CHECKING:
    from evalrun.gates.conditions import Gate
    from evalrun.scoring.pipeline import Pipeline
    from evalrun.suite.schema import Suite
    from evalrun.suite.tree import Node

KEYS = ("scorers", "parse", "derive", "judges", "gates", "unparsed", "fairness", "allow")
"""What a file of scorers may say."""


@dataclass(frozen=True, slots=True)
class NewScoring:
    """A file of scorers as read, and the suite of the sweep with what it says put in."""

    path: Path
    text: str
    suite: Suite
    pipeline: Pipeline
    gates: tuple[Gate, ...]


def read_scoring(file: Path, manifest: Mapping[str, Any]) -> NewScoring:
    """Read and check a file of scorers against the suite in a sweep's manifest. Raises UserError by line."""
    from evalrun.gates.conditions import parse_gate
    from evalrun.scoring.pipeline import Pipeline, suite_scorers
    from evalrun.suite.tree import expand, parse_yaml

    text = _text(file)
    tree, problems = parse_yaml(text, str(file))
    if tree is not None:
        problems += expand(tree, os.environ).problems
    if tree is None or problems:
        raise UserError(problems or [Problem("the file is empty", str(file), "List scorers in it.")])
    given = _given(tree, file)
    data = {**manifest["suite"]["resolved"], "gates": [], **given}
    if "scorers" in given and "derive" not in given:
        data["derive"] = {}  # formulas over scores that are gone would be errors
    with _located(tree), _modules_beside(file):
        suite = parse_suite(data)
        pipeline = Pipeline([each.build() for each in suite.parse], suite_scorers(suite))
        gates = [parse_gate(gate) for gate in suite.gates]
        wrong = [gate for gate in gates if isinstance(gate, Problem)]
        if not wrong and gates:
            wrong = _unknown(gates, suite, pipeline, manifest)
        if wrong:
            raise UserError(wrong)
    return NewScoring(
        file, text, suite, pipeline, tuple(gate for gate in gates if not isinstance(gate, Problem))
    )


def _unknown(
    gates: Sequence[Gate | Problem], suite: Suite, pipeline: Pipeline, manifest: Mapping[str, Any]
) -> list[Problem]:
    """Gates that speak of what the new scores do not have, or of no run of the sweep."""
    from evalrun.gates.conditions import speakable, unknown

    planned = manifest["plan"]
    scopes = {axis: {str(run[axis]) for run in planned} for axis in ("model", "prompt", "dataset")}
    about = speakable(suite, pipeline.scorers, scopes)
    return [
        replace(problem, where=f"gates.{at}")
        for at, gate in enumerate(gates)
        if not isinstance(gate, Problem)
        for problem in unknown(gate, about)
    ]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no file '{file}'") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{file}' cannot be read: {error}") from None


def _given(tree: Node, file: Path) -> dict[str, Any]:
    from evalrun.suite.findings import did_you_mean

    value = tree.plain()
    if isinstance(value, list):
        return {"scorers": value}
    if not isinstance(value, dict) or not value:
        remedy = f"Write a list of scorers, or a mapping with any of {', '.join(KEYS)}."
        raise UserError("the file names no scorers", where=str(file), remedy=remedy)
    unknown = [key for key in value if key not in KEYS]
    if unknown:
        raise UserError(
            [
                Problem(f"unknown key '{key}'", str(_key_place(tree, key)), did_you_mean(key, KEYS))
                for key in unknown
            ]
        )
    return dict(value)


def _key_place(tree: Node, key: str) -> object:
    node = tree.child(key)
    return (node.key_place or node.place) if node is not None else tree.place


@contextmanager
def _located(tree: Node) -> Iterator[None]:
    """Places such as scorers.0.includes become file:line."""
    try:
        yield
    except UserError as error:
        raise UserError(
            [
                Problem(problem.what, _place(tree, problem.where), problem.remedy)
                for problem in error.problems
            ],
            exit_code=error.exit_code,
        ) from error


def _place(tree: Node, where: str) -> str:
    path: tuple[str | int, ...] = tuple(int(each) if each.isdecimal() else each for each in where.split("."))
    if path[:1] == ("scorers",) and isinstance(tree.value, list):
        path = path[1:]
    elif tree.child(path[0]) is None:
        return where or tree.place.source
    return str(tree.deepest(path).shown_place())


@contextmanager
def _modules_beside(file: Path) -> Iterator[None]:
    """Let `python:` find modules beside the file and in the current folder, after all installed ones."""
    before = list(sys.path)
    sys.path += [str(file.resolve().parent), str(Path.cwd())]
    try:
        yield
    finally:
        sys.path[:] = before
