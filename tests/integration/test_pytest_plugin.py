"""Suites as pytest items, in sessions of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.servers import ChatServer

SUITE = """name: demo
models: [{id: m, provider: recorded, column: said}]
prompts: [{id: p, text: "{{ q }}"}]
datasets: [{id: d, path: rows.jsonl, key: id, target: "{{ label }}"}]
scorers: [exact_match]
gates:
  - exact_match >= 0.7
  - exact_match >= 0.9
  - exact_match no worse than baseline by 0.02
"""


@pytest.fixture
def suite(project: Path) -> Path:
    """A suite of 20 rows of which 16 are right, and a test of another kind."""
    with (project / "rows.jsonl").open("w") as file:
        for at in range(20):
            row = {"id": f"r{at}", "q": f"q{at}", "label": "yes", "said": "yes" if at % 5 else "no"}
            file.write(json.dumps(row) + "\n")
    (project / "demo.suite.yaml").write_text(SUITE)
    (project / "test_other.py").write_text("def test_other():\n    pass\n")
    return project


def session(*arguments: str, every_plugin: bool = False) -> subprocess.CompletedProcess[str]:
    """Without the other plugins that are installed, which take longer than the session itself."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", "-W", "ignore"]
    env = dict(os.environ)
    if not every_plugin:
        env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    if not every_plugin or not _installed():
        command += ["-p", "evalrun.integrations.pytest_plugin"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=env)


def _installed() -> bool:
    """Whether the entry point is there (an installation from before the plugin lacks it)."""
    from importlib.metadata import entry_points

    return any(each.name == "evalrun" for each in entry_points(group="pytest11"))


def test_one_item_a_gate_and_a_failure_that_reads_well(suite: Path) -> None:
    done = session("-rA", "--evalrun-store", "kept", every_plugin=True)
    said = done.stdout
    assert done.returncode == 1 and "3 passed" in said and "2 failed" in said, said
    assert "PASSED demo.suite.yaml::the sweep completes" in said
    assert "PASSED demo.suite.yaml::exact_match >= 0.7" in said
    assert "FAILED demo.suite.yaml::exact_match >= 0.9" in said
    assert "demo.suite.yaml:8: gate failed: exact_match >= 0.9\n  m-p-d: value 0.8, compared with 0.9" in said
    assert "there is no baseline" in said and "Traceback" not in said
    sweeps = list((suite / "kept" / "sweeps").iterdir())
    assert len(sweeps) == 1, "one sweep for all gates"
    assert not (suite / "reports").exists() and not (suite / ".evalrun").exists()


def test_collecting_asks_no_model_and_a_broken_suite_is_named_by_its_line(suite: Path) -> None:
    done = session("--collect-only", "-q")
    assert "4/5" not in done.stdout and "5 tests collected" in done.stdout, done.stdout
    assert not (suite / ".evalrun").exists()
    (suite / "bad.suite.yaml").write_text(SUITE.replace("exact_match >= 0.9", "exact_match is good"))
    done = session("-q", "bad.suite.yaml")
    assert "bad.suite.yaml:8: cannot read the gate 'exact_match is good'" in done.stdout
    (suite / "bad.suite.yaml").write_text(SUITE.replace("scorers", "scorrers"))
    done = session("-q", "bad.suite.yaml")
    assert "Did you mean 'scorers'" in done.stdout and "Traceback" not in done.stdout


def test_the_limit_and_the_suites_word_on_undecided_gates(suite: Path) -> None:
    done = session("-q", "-k", "0.7 or completes", "--evalrun-limit", "4")
    assert "2 passed" in done.stdout
    (manifest,) = (suite / ".evalrun" / "sweeps").glob("*/sweep.json")
    assert json.loads(manifest.read_text())["datasets"]["d"]["n"] == 4

    from evalrun.tracking.changes import set_baseline
    from evalrun.tracking.store import Store

    store = Store(suite / ".evalrun")
    set_baseline(store, "main", store.resolve("latest"))
    rows = [json.loads(line) for line in (suite / "rows.jsonl").read_text().splitlines()]
    rows[1]["said"] = "no"
    (suite / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = session("-q", "-rs", "-k", "worse", "--evalrun-limit", "4")
    assert "1 skipped" in done.stdout and "inconclusive" in done.stdout, done.stdout
    (suite / "demo.suite.yaml").write_text(SUITE + "inconclusive: fail\n")
    done = session("-q", "-k", "worse", "--evalrun-limit", "4")
    assert "1 failed" in done.stdout and "(inconclusive)" in done.stdout, done.stdout


def test_a_session_without_suites_imports_nothing_of_evalrun(suite: Path) -> None:
    (suite / "demo.suite.yaml").unlink()
    (suite / "test_other.py").write_text(
        "import sys\n"
        "def test_other():\n"
        "    ours = {name for name in sys.modules if name.split('.')[0] == 'evalrun'}\n"
        "    assert ours <= {'evalrun', 'evalrun._version', 'evalrun.integrations',"
        " 'evalrun.integrations.pytest_plugin'}\n"
        "    assert not {'numpy', 'pydantic', 'yaml', 'click', 'rich'} & set(sys.modules)\n"
    )
    done = session("-q")
    assert done.returncode == 0, done.stdout


def test_models_are_asked_again_where_the_session_says_so(suite: Path, chat_server: ChatServer) -> None:
    text = SUITE.replace(
        "{id: m, provider: recorded, column: said}",
        f"{{id: m, provider: openai_compatible, base_url: '{chat_server.base_url}', model: x}}",
    )
    (suite / "demo.suite.yaml").write_text(text)
    asked = []
    for options in ([], [], ["--evalrun-no-cache"]):
        session("-q", "-k", "completes", *options)
        asked.append(len(chat_server.bodies))
    assert asked == [20, 20, 40]
