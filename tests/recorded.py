"""Suites of recorded answers, run in the process of the test, and what came out as other programs see it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tests.program import evalrun


def recorded_suite(
    folder: Path, rows: Sequence[Mapping[str, Any]], columns: Iterable[str], **parts: Any
) -> Path:
    """A suite whose models are columns of the rows, which have `id` and `want`; `parts` replace sections."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = {
        "name": "recorded",
        "models": [{"id": name, "provider": "recorded", "column": name} for name in columns],
        "prompts": [{"id": "p", "text": "{{ id }}"}],
        "datasets": [{"id": "d", "path": "rows.jsonl", "key": "id", "target": "want"}],
        "scorers": ["exact_match"],
        **parts,
    }
    path = folder / "suite.yaml"
    path.write_text(json.dumps(suite))
    return path


def yes_no(hits: Iterable[bool], **columns: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows whose right answer is yes; the column `m` answers yes where `hits` says so."""
    return [
        {"id": f"s{at:04d}", "want": "yes", "m": "yes" if hit else "no"}
        | {name: values[at] for name, values in columns.items()}
        for at, hit in enumerate(hits)
    ]


def output_of(*words: str | Path, code: int = 0) -> str:
    """What a command prints."""
    done = evalrun(*words)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def document_of(*words: str | Path, code: int = 0) -> dict[str, Any]:
    """The JSON document that a command prints."""
    document: dict[str, Any] = json.loads(output_of(*words, "--json", code=code))
    return document


class _Tables(HTMLParser):
    """The tables below each heading of second order."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.below: dict[str, list[list[list[str]]]] = {}
        self._heading, self._inside = "", ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        tables = self.below.setdefault(self._heading, [])
        if tag == "h2":
            self._heading = ""
        elif tag == "table":
            tables.append([])
        elif tag == "tr":
            tables[-1].append([])
        elif tag in ("td", "th"):
            tables[-1][-1].append("")
        if tag in ("h2", "td", "th"):
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside == "h2":
            self._heading += data
        elif self._inside:
            cells = self.below[self._heading][-1][-1]
            cells[-1] = f"{cells[-1]} {' '.join(data.split())}".strip()


def tables_below(page: Path, heading: str) -> list[list[list[str]]]:
    """The tables of a section of a report: for each its rows, the head first, each a list of cells' words."""
    return _Tables(page).below[heading]


def leaderboards(page: Path) -> list[list[list[str]]]:
    """The leaderboards of a report, as tables."""
    tables = tables_below(page, "Leaderboard")
    return [rows for rows in tables if rows[0][0].startswith("run") and rows[0][1].endswith("is better")]
