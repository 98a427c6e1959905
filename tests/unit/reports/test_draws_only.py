"""Nothing that draws computes: no statistics in reports, and no key looked up in results."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import evalrun.reports

ROOT = Path(evalrun.reports.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

COMPUTES = {"numpy", "scipy", "statistics", "pandas", "sklearn", "fairlearn", "evaluate", "random"}
"""Nothing of reports needs these."""

READS = {
    "compare", "conclude", "definitions", "judged", "measures", "over_time", "previous", "standings",
    "trainings",
}  # fmt: skip
"""Modules of analysis that reports may import: types, what reads a folder, words of definitions."""

FOREIGN: Mapping[str, set[str]] = {
    "gates.py": {  # the environment
        "GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS", "GITHUB_WORKSPACE", "CI_PROJECT_DIR",
    },
    "sample_chunks.py": {"content", "top_logprobs", "messages", "prompt", "role"},  # what servers said
    # What a manifest says of where a sweep came from is shown as it is, and so are options of a suite.
    "details.py": {
        "args", "git", "machine", "python", "argv", "evalrun", "branch", "version", "user", "ci_url", "root",
        "commit", "unavailable", "dirty", "packages", "name", "arrivals", "rates", "requests", "right",
        "search", "seconds", "slo",
    },
    "charts/resources.py": {"t_s", "phase"},  # rows of system.parquet
    "charts/speed.py": {"concurrency"},  # a parameter of the suite
    "prompts.py": {"source"},  # the prompts of a manifest, shown as they are
    # The card of a model: what its own configuration says.
    "card.py": {"architectures", "parameters", "adapter", "base"},
    "notebook.py": {"height"},  # a chart's specification
    "terminal.py": {"judge_requests", "load", "seconds"},  # the document of an estimate
}  # fmt: skip
"""Keys that are looked up in what evalrun did not write as results."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def looked_up(tree: ast.AST) -> set[str]:
    """The texts that `.get` is called with."""
    return {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "get"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_statistics_and_no_keys_of_results(path: Path) -> None:
    tree = ast.parse(path.read_text())
    modules = set(imported(tree))
    assert not {module.partition(".")[0] for module in modules} & COMPUTES
    analysis = {module.split(".")[2] for module in modules if module.startswith("evalrun.analysis.")}
    assert analysis <= READS, "results are concluded in analysis and only shown here"
    assert looked_up(tree) <= FOREIGN.get(name_of(path), set()), "results are typed: read their fields"


def test_the_check_finds_what_it_looks_for() -> None:
    tree = ast.parse('def f(d):\n    import numpy as np\n    return np.mean(d.get("metrics"))')
    assert "numpy" in set(imported(tree)) and looked_up(tree) == {"metrics"}
