"""Published tasks on a cluster: documents come from the driver, and lm_eval scores there; the figures are one
process's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster.test_same_as_one_process import OF_THE_MACHINE
from tests.lm_eval_server import LmEvalServer
from tests.lm_eval_tasks import write_tasks
from tests.program import evalrun

from evalrun.errors import UserError
from evalrun.tasks.lmeval import interpreter

pytest.importorskip("ray", reason="needs ray (extra: ray)")
pytest.importorskip("obstore", reason="needs obstore (extra: ray)")


def figures(document: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """The metrics by dataset and name, those of the machine left out."""
    return {
        (run["dataset"], each["name"]): (each["value"], each["se"], each["n"])
        for run in (*document["runs"], *document["groups"])
        for each in run["metrics"]
        if not each["name"].startswith(OF_THE_MACHINE)
    }


def test_the_figures_of_tasks_are_those_of_one_process(on: str, tmp_path: Path) -> None:
    try:
        interpreter()
    except UserError as missing:
        pytest.skip(f"{missing} (extra: lmeval)")
    write_tasks(tmp_path / "tasks")
    server = LmEvalServer(merging=False)
    model = {"id": "m", "provider": "openai_compatible", "base_url": server.url, "model": "m"}
    suite = tmp_path / "suite.json"
    tasks = [{"lm_eval": f"tasks/{name}.yaml", "bootstrap": 200} for name in ("group", "generate")]
    suite.write_text(json.dumps({"name": "own", "models": [{**model, "api": "completions"}], "tasks": tasks}))
    words = (suite, "--json", "--no-report", "--fresh", "--no-cache", "--store", tmp_path / "store")
    alone = evalrun(*words, cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    there = evalrun(*words, "--on", on, "--at", tmp_path / "at", "--shard", "5", cwd=tmp_path)
    assert there.returncode == 0, there.stderr
    here = figures(json.loads(alone.stdout))
    assert len(here) > 10
    assert figures(json.loads(there.stdout)) == here
    server.close()
