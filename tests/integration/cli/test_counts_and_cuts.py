"""What commands count is said in words that fit, and what a list leaves out is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.program import evalrun

SUITE = """\
name: small
models: [{id: m, provider: recorded, column: o}]
prompts: [{id: p, text: "{{ q }}"}]
datasets: [{id: d, path: rows.jsonl, key: id, target: t}]
scorers: [exact_match]
"""


@pytest.fixture
def suite(project: Path) -> Path:
    (project / "suite.yaml").write_text(SUITE)
    return project


def _rows(folder: Path, count: int, wrong: int = 0, question: str = "q") -> None:
    rows = [
        {"id": f"r{at:03}", "q": question, "t": "yes", "o": "no" if at < wrong else "yes"}
        for at in range(count)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_one_is_not_several(suite: Path) -> None:
    _rows(suite, 1, wrong=1)
    assert "is valid: 1 run; d 1 sample.\n" in evalrun("validate", "suite.yaml").stdout
    assert evalrun("suite.yaml", "--no-report", "--quiet").returncode == 0
    assert "1 sample found\n" in evalrun("samples", "m-p-d", "score.exact_match == 0").stderr
    assert "0 samples found\n" in evalrun("samples", "m-p-d", "score.exact_match == 1").stderr
    assert "1 run found\n" in evalrun("find", "metric.exact_match == 0").stderr


def test_a_diff_says_how_many_rows_it_does_not_show(suite: Path) -> None:
    for count, question in ((10, "q"), (60, "other")):
        _rows(suite, count, question=question)
        assert evalrun("suite.yaml", "--no-report", "--quiet").returncode == 0
    (newer, older) = (each["sweep"] for each in json.loads(evalrun("list", "--json").stdout))
    said = evalrun("diff", older, newer).stdout
    assert "50 added, 0 removed, 10 changed" in said
    shown = sum(line.startswith("  + r") for line in said.splitlines())
    assert 0 < shown < 50
    assert f"  + and {50 - shown} more\n" in said
    assert "- and" not in said
    assert "~ and" not in said
    back = evalrun("diff", newer, older).stdout
    assert f"  - and {50 - shown} more\n" in back


def test_a_gate_on_a_stored_sweep_names_the_metric_that_was_meant(suite: Path) -> None:
    _rows(suite, 2)
    assert evalrun("suite.yaml", "--no-report", "--quiet").returncode == 0
    held = evalrun("gate", "latest", "--gate", "exact_mach >= 0.5")
    assert held.returncode == 1
    assert "no metric 'exact_mach' in this run (did you mean 'exact_match'?)" in held.stdout


def test_gates_of_a_new_scoring_are_read_before_it_begins(suite: Path) -> None:
    _rows(suite, 2)
    assert evalrun("suite.yaml", "--no-report", "--quiet").returncode == 0
    (suite / "new.yaml").write_text(
        "scorers: [includes]\ngates:\n  - exact_match >= 0.5\n  - includes >= 0 for prompt=q\n"
    )
    done = evalrun("rescore", "latest", "--scorers", "new.yaml", "--no-report")
    assert done.returncode == 2
    assert "new.yaml:3: no run of this suite has the metric 'exact_match'" in done.stderr
    assert "new.yaml:4: the gate 'includes >= 0 for prompt=q' speaks of the prompt 'q'" in done.stderr
    (suite / "new.yaml").write_text("scorers: [includes]\ngates: [includes >= 0 for prompt=p]\n")
    assert evalrun("rescore", "latest", "--scorers", "new.yaml", "--no-report").returncode == 0
