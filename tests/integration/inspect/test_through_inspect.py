"""inspect_ai asks by evalrun's provider, and its log comes back as a sweep with the same values."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.lm_eval_server import LmEvalServer

pytest.importorskip("inspect_ai", reason="needs inspect_ai (extra: inspect)")

PROGRAM = """
import sys
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

samples = [Sample(input=f"{at} apples?", target=str(at % 5), id=at) for at in range(8)]
task = Task(dataset=samples, solver=generate(), scorer=includes(), name="apples")
log = eval(task, model=f"evalrun/served@{sys.argv[1]}", log_dir=sys.argv[2], display="none")[0]
assert log.status == "success", log.error
print(log.results.scores[0].metrics["accuracy"].value)
"""


def test_a_log_of_inspect_becomes_a_sweep(tmp_path: Path) -> None:
    server = LmEvalServer()
    try:
        suite = tmp_path / "suite.yaml"
        suite.write_text(
            f'name: s\nmodels: [{{id: served, provider: openai_compatible, base_url: "{server.url}", '
            "model: m, "
            'params: {temperature: 0}}]\nprompts: [{id: p, text: "{{ q }}"}]\n'
            "datasets: [{id: d, rows: [{q: a}]}]\nscorers: [exact_match]\n"
        )
        words = [sys.executable, "-c", PROGRAM, str(suite), str(tmp_path / "logs")]
        said = [
            subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=True)
            for _ in range(2)
        ]
    finally:
        server.close()
    assert len(server.asked) == 8  # the second time they came from evalrun's cache
    accuracy = float(said[0].stdout.split()[-1])
    log = next((tmp_path / "logs").glob("*.eval"))
    done = subprocess.run(
        [sys.executable, "-m", "evalrun", "import", "inspect", str(log), "--store", "st", "--json"],
        capture_output=True, text=True, cwd=tmp_path, timeout=60, check=True,
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert document["taken_over"] == 8
    run = json.loads(next((tmp_path / document["folder"] / "runs").glob("*/run.json")).read_text())
    assert next(each["value"] for each in run["metrics"] if each["name"] == "includes") == accuracy
