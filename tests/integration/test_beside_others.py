"""Two evaluations at a time on one server: both say so beside their speed; and the stages of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.program import evalrun
from tests.recorded import recorded_suite, yes_no
from tests.servers import ChatServer


def test_both_are_told_and_the_report_has_a_bar_of_stages(
    tmp_path: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVALRUN_RUNNING", str(tmp_path / "running"))
    chat_server.delay_s = 0.02
    model = {"id": "m", "provider": "openai_compatible", "base_url": chat_server.base_url, "model": "x"}
    (tmp_path / "long").mkdir()
    (tmp_path / "short").mkdir()
    parts = {"models": [model], "performance": {"concurrency": 2}}
    long = recorded_suite(tmp_path / "long", yes_no([True] * 250), [], **parts)
    short = recorded_suite(tmp_path / "short", yes_no([True] * 60), [], **parts)
    words = [
        sys.executable,
        "-m",
        "evalrun",
        str(long),
        "-q",
        "--no-cache",
        "--store",
        "a",
        "--report",
        "a.html",
    ]
    first = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=os.environ)
    while len(chat_server.bodies) < 20 and first.poll() is None:
        pass
    second = evalrun(short, "-q", "--no-report", "--no-cache", "--store", "b", "--json")
    _, said = first.communicate(timeout=60)
    told = "another evaluation asked the same endpoint for"
    assert second.returncode == 0 and told in second.stderr
    assert first.returncode == 0 and told in said, said
    (run,) = json.loads(second.stdout)["runs"]
    noted = {each["name"] for each in run["metrics"] if told in (each.get("note") or "")}
    assert {"performance.e2e_s.p50", "performance.requests_per_s"} <= noted
    page = Path("a.html").read_text()
    assert "Where the time went" in page and '<rect class="decode" x=' in page and told in page
    (stored,) = Path("a/sweeps").glob("*/runs/*/run.json")
    document = json.loads(stored.read_text())
    stages = {each["stage"]: each["seconds"] for each in document["details"]["stages"]}
    asked = sum(seconds for name, seconds in stages.items() if name not in ("load", "write"))
    assert asked == pytest.approx(document["timings"]["wall_s"], rel=0.01)


def test_a_sweep_alone_says_nothing(
    tmp_path: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVALRUN_RUNNING", str(tmp_path / "running"))
    model = {"id": "m", "provider": "openai_compatible", "base_url": chat_server.base_url, "model": "x"}
    done = evalrun(recorded_suite(tmp_path, yes_no([True] * 5), [], models=[model]), "-q", "--no-report")
    assert done.returncode == 0 and "another evaluation" not in done.stderr + done.stdout
    assert list((tmp_path / "running").iterdir()) == []
