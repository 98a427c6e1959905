"""What a sweep folder says of its numbers is shown as it stands there, whatever evalrun would say today."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.recorded import document_of, leaderboards, output_of, recorded_suite, tables_below

OTHER = "The share of answers that pleased the people of that day."


@pytest.fixture
def folder(project: Path) -> Path:
    """The folder of a sweep of two runs that are tied: one answer of twelve differs."""
    rows = [{"id": f"s{at}", "want": "yes", "a": "yes", "b": "no" if at == 3 else "yes"} for at in range(12)]
    return Path(document_of(recorded_suite(project, rows, "ab"), "--no-report")["folder"])


def edit_documents(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """Apply `change` to every mapping in the JSON documents of a sweep; how many it changed."""
    changed = 0

    def edited(node: Any) -> Any:
        nonlocal changed
        if isinstance(node, list):
            return [edited(each) for each in node]
        if not isinstance(node, dict):
            return node
        after = change(node)
        changed += after != node
        return {key: edited(each) for key, each in after.items()}

    for path in sorted(folder.rglob("*.json")):
        if (text := path.read_text()).startswith("{"):
            path.write_text(json.dumps(edited(json.loads(text))))
    return changed


def definition_of(page: Path, metric: str) -> str:
    """The definition of a metric as a report gives it, without notes on its interval."""
    tables = tables_below(page, "Method")
    (found,) = [row[1] for rows in tables for row in rows if row[0] == metric]
    return str(found.partition(" Note: ")[0])


def test_definitions_are_those_of_its_day(project: Path, folder: Path) -> None:
    page = project / "page.html"
    output_of("report", "latest", "--out", page)
    today = definition_of(page, "exact_match")
    assert today.startswith("Share of samples whose answer is the target")

    def other(node: dict[str, Any]) -> dict[str, Any]:
        return {key: OTHER if value == today else value for key, value in node.items()}

    assert edit_documents(folder, other) > 0, "the folder holds the definition"
    output_of("report", "latest", "--out", page)
    assert definition_of(page, "exact_match") == OTHER
    assert today not in page.read_text()
    assert OTHER in output_of("show", "latest", "--json")


def test_verdicts_are_those_of_its_day(project: Path, folder: Path) -> None:
    def behind(node: dict[str, Any]) -> dict[str, Any]:
        is_b = str(node.get("run")).startswith("b-") and node.get("verdict") == "tied"
        return {**node, "verdict": "behind"} if is_b else node

    assert edit_documents(folder, behind) > 0, "the folder holds the verdict"
    page = project / "page.html"
    output_of("report", "latest", "--out", page)
    (rows,) = leaderboards(page)
    assert [row[0] for row in rows[1:] if row[0].startswith("b")] == ["b"], "without the word tied"
    shown = document_of("show", "latest")["standings"]
    assert [each["verdict"] for each in shown if each["run"].startswith("b-")] == ["behind"]
