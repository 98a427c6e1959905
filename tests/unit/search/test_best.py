"""The winner as a suite of its own, wherever it is written."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import yaml
from tests.recorded import recorded_suite

from evalrun.search.main import SearchOutcome, write_best
from evalrun.search.space import space_of
from evalrun.suite.load import load_suite


def test_files_are_found_from_where_it_is_written_and_prompts_are_written_out(tmp_path: Path) -> None:
    (tmp_path / "p.j2").write_text("Sort this.\n{{ id }}\n")
    (tmp_path / "q.j2").write_text("{% include 'p.j2' %}")
    (tmp_path / "shots.jsonl").write_text(json.dumps({"id": "x", "want": "yes"}))
    few_shot = {"first": 1, "path": "shots.jsonl"}
    prompts: list[dict[str, Any]] = [
        {"id": "p", "file": "p.j2", "few_shot": few_shot, "parse": ["first_line"]},
        {"id": "q", "file": "q.j2"},
        {"id": "r", "text": "rows.jsonl"},
    ]
    rows = [{"id": f"r{at}", "want": "yes", "m": "yes"} for at in range(4)]
    search = {"metric": "exact_match", "baseline": "p"}
    suite = load_suite(recorded_suite(tmp_path, rows, ["m"], prompts=prompts, search=search))
    space = space_of(suite)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    written = {}
    for candidate in space.candidates:
        for folder in (tmp_path, tmp_path / "deep" / "er"):
            outcome = SimpleNamespace(results=SimpleNamespace(winner=candidate.run_id), space=space)
            write_best(cast("SearchOutcome", outcome), out := folder / f"{candidate.prompt.id}.yaml")
            load_suite(out)
            written[candidate.prompt.id] = yaml.safe_load(out.read_text())
    (prompt,) = written["p"]["prompts"]
    assert prompt["text"] == "Sort this.\n{{ id }}\n" and "file" not in prompt
    assert prompt["few_shot"]["path"] == "../../shots.jsonl" and prompt["parse"] == ["first_line"]
    assert written["p"]["datasets"][0]["path"] == "../../rows.jsonl" and "search" not in written["p"]
    assert written["q"]["prompts"][0]["file"] == "../../q.j2", "what includes others is read where it lies"
    assert written["r"]["prompts"][0]["text"] == "rows.jsonl", "a text is no file's name"
