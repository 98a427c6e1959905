"""What docs/ci.md shows for dvc, pre-commit and nbconvert, tried with the real tools."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

DOCS = (Path(__file__).parents[3] / "docs" / "ci.md").read_text()
SUITE = """name: s
models: [{id: m, provider: recorded, column: o}]
prompts: [{id: p, text: "{{ q }}"}]
datasets: [{id: d, path: data/rows.jsonl, target: "{{ t }}"}]
scorers: [exact_match]
"""


def _documented(name: str) -> str:
    found = re.search(rf"```text\n(?:# )?({re.escape(name)}.*?)```", DOCS, re.DOTALL)
    assert found is not None
    return found[1].partition("\n")[2] if name in ("dvc.yaml", ".pre-commit-config.yaml") else found[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text('{"q": "a", "t": "x", "o": "x"}\n')
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "evalrun").write_text(f'#!/bin/sh\nexec {sys.executable} -m evalrun "$@"\n')
    (tmp_path / "bin" / "evalrun").chmod(0o755)
    _run(tmp_path, "git", "init", "-q", ".")
    return tmp_path


def _run(project: Path, *words: str, code: int = 0) -> str:
    env = {
        **os.environ, "PATH": f"{project / 'bin'}:{os.environ['PATH']}", "HOME": str(project),
        "PYTHONPATH": ":".join(path for path in sys.path if path), "GIT_CONFIG_NOSYSTEM": "1",
        "DVC_NO_ANALYTICS": "1",
    }  # fmt: skip
    done = subprocess.run(words, cwd=project, env=env, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(find_spec("dvc") is None, reason="needs dvc")
def test_dvc_runs_a_suite_when_its_data_changed_and_reads_the_figures(project: Path) -> None:
    dvc = (sys.executable, "-m", "dvc")
    _run(project, *dvc, "init", "-q")
    (project / "dvc.yaml").write_text(_documented("dvc.yaml"))
    _run(project, *dvc, "repro")
    shown = json.loads(_run(project, *dvc, "metrics", "show", "--json"))
    assert shown[""]["data"]["metrics.json"]["data"]["m-p-d"]["exact_match"]["value"] == 1.0
    assert "didn't change" in _run(project, *dvc, "repro")
    (project / "data" / "rows.jsonl").write_text('{"q": "a", "t": "x", "o": "z"}\n')
    _run(project, *dvc, "repro")
    assert '"value": 0.0' in (project / "metrics.json").read_text()


@pytest.mark.skipif(find_spec("pre_commit") is None, reason="needs pre-commit")
def test_pre_commit_refuses_a_suite_that_is_wrong(project: Path) -> None:
    (project / ".pre-commit-config.yaml").write_text(_documented(".pre-commit-config.yaml"))
    (project / "suites").mkdir()
    good = SUITE.replace("data/rows", "../data/rows")
    for name in "ab":
        (project / "suites" / f"{name}.yaml").write_text(good)
    _run(project, "git", "add", "-A")
    hooks = (sys.executable, "-m", "pre_commit", "run", "--all-files")
    assert "Passed" in _run(project, *hooks)
    (project / "suites" / "b.yaml").write_text(good.replace("exact_match", "exact_mach"))
    assert "Did you mean 'exact_match'" in _run(project, *hooks, code=1)


@pytest.mark.skipif(find_spec("nbconvert") is None, reason="needs nbconvert")
def test_nbconvert_runs_a_notebook_with_a_sweep(project: Path) -> None:
    source = (
        "import evalrun\nsweep = evalrun.run('suite.yaml', write_report=False)\n"
        "print('score', sweep.runs[0].metric('exact_match')['value'])"
    )
    cell = {"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": []}
    cell["source"] = source
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (project / "evaluation.ipynb").write_text(json.dumps(notebook))
    words = _documented("jupyter nbconvert").split()
    _run(project, sys.executable, "-m", "jupyter", *words[1:])
    assert "score 1.0" in (project / "evaluation.html").read_text()
