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


def test_limits_are_one_number_for_all_models_at_an_address(tmp_path: Path) -> None:
    """The evaluated model and a grader on the same server share the stricter of their limits."""
    import asyncio

    from evalrun.integrations.inspect_ai import _budget_of
    from evalrun.suite.load import load_suite

    one = "provider: openai_compatible, base_url: 'http://127.0.0.1:1/v1', model: m"
    (tmp_path / "suite.yaml").write_text(
        f"name: s\nmodels:\n  - {{id: a, {one}, limits: {{requests_per_minute: 60}}}}\n"
        f"  - {{id: b, {one}, limits: {{requests_per_minute: 30}}}}\n"
        "  - {id: c, provider: openai_compatible, base_url: 'http://127.0.0.1:2/v1', model: m}\n"
        "prompts: [{id: p, text: '{{ q }}'}]\ndatasets: [{id: d, rows: [{q: a}]}]\nscorers: [exact_match]\n"
    )
    suite = load_suite(tmp_path / "suite.yaml").suite

    async def budgets() -> list[object]:
        return [_budget_of(suite, model, model.options.base_url) for model in suite.models]

    first, second, third = asyncio.run(budgets())
    assert first is second and third is None
    assert first.requests.per_minute == 30  # type: ignore[attr-defined]
    assert asyncio.run(budgets())[0] is not first  # another loop, whose turns are its own
