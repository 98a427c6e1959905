"""A nightly job as people run it: baseline, unchanged night, a drop; exit codes and what CI is shown."""

from __future__ import annotations

import json
import random
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from tests import program

ROWS = 400
SUITE = """
name: nightly
models: [{{id: m, provider: recorded, path: {answers}}}]
prompts: [{{id: p, text: "{{{{ question }}}}"}}]
datasets: [{{id: d, path: rows.jsonl, key: id, target: "{{{{ label }}}}"}}]
scorers: [exact_match]
gates: ["exact_match no worse than baseline by 0.02", "exact_match >= baseline - 0.03"]
"""


def write_answers(folder: Path, name: str, wrong: set[int]) -> None:
    with (folder / name).open("w") as file:
        for at in range(ROWS):
            file.write(json.dumps({"sample_id": str(at), "output": "no" if at in wrong else "yes"}) + "\n")


@pytest.fixture
def nightly(project: Path) -> Path:
    """Three nights of recorded answers: 80 wrong; other 80 nearly; 20 more wrong (a drop of 5 points)."""
    with (project / "rows.jsonl").open("w") as file:
        for at in range(ROWS):
            file.write(json.dumps({"id": str(at), "question": f"q{at}", "label": "yes"}) + "\n")
    order = random.Random(3).sample(range(ROWS), ROWS)
    write_answers(project, "first.jsonl", set(order[:80]))
    write_answers(project, "noise.jsonl", set(order[4:84]))
    write_answers(project, "drop.jsonl", set(order[:100]))
    for name in ("first", "noise", "drop"):
        (project / f"{name}.yaml").write_text(SUITE.format(answers=f"{name}.jsonl"))
    return project


def evalrun(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return program.evalrun(*arguments, env=environment)


def night(name: str, *arguments: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    done = evalrun(f"{name}.yaml", "--no-report", "--quiet", "--json", *arguments, **environment)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def test_a_nightly_job(nightly: Path) -> None:
    code, first, _ = night("first")
    assert code == 1, "without a baseline nothing passes"
    assert all("no baseline" in gate["reason"] for gate in first["gates"])
    assert evalrun("baseline", "set", "main", first["sweep"]).returncode == 0

    code, again, _ = night("first", "--fresh")
    assert (code, [gate["verdict"] for gate in again["gates"]]) == (0, ["pass", "pass"])
    code, noise, _ = night("noise")
    assert code == 0 and "fail" not in [gate["verdict"] for gate in noise["gates"]]

    summary, xml = nightly / "step.md", nightly / "gates.xml"
    actions = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    code, drop, stderr = night("drop", "--junit", str(xml), **actions)
    assert (code, [gate["verdict"] for gate in drop["gates"]]) == (1, ["fail", "fail"])
    assert "over 400 pairs" in drop["gates"][0]["reason"] and "sees" in drop["gates"][0]["reason"]
    assert stderr.count("::error title=evalrun gate,file=") == 2
    assert "❌ fail" in summary.read_text()
    assert ElementTree.parse(xml).getroot().get("failures") == "2"

    found = json.loads(evalrun("find", "metric.exact_match < 0.78", "--json").stdout)
    assert [row["sweep"] for row in found["runs"]] == [drop["sweep"]]
    wrong = json.loads(evalrun("samples", "m", "score.exact_match == 0", "--limit", "5", "--json").stdout)
    assert (wrong["total"], len(wrong["samples"])) == (100, 5)
    counted = evalrun("sql", 'select count(*), avg("score.exact_match") from samples', "--json")
    assert json.loads(counted.stdout)["rows"][0][0] == 4 * ROWS
    verified = evalrun("audit", "verify", "--json")
    assert verified.returncode == 0, verified.stdout


def test_a_baseline_that_is_not_there_stops_the_job_before_anything_is_asked(nightly: Path) -> None:
    done = evalrun("first.yaml", "--baseline", "mian", "--no-report")
    assert (done.returncode, "no baseline 'mian'" in done.stderr) == (2, True)
    assert not list((nightly / ".evalrun" / "sweeps").glob("*")) if (nightly / ".evalrun").exists() else True
