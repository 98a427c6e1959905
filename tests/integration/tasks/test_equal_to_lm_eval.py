"""Values, standard errors and group aggregates of published tasks are lm_eval's own, to the last digit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.lm_eval_server import LmEvalServer
from tests.lm_eval_tasks import write_tasks

from evalrun.errors import UserError
from evalrun.tasks.lmeval import interpreter

try:
    PYTHON = interpreter()
except UserError as missing:
    pytest.skip(f"{missing} (extra: lmeval)", allow_module_level=True)

BOOTSTRAP = 200
TASKS = ("group", "generate", "likelihood", "rolling")


def simple_evaluate(folder: Path, server: LmEvalServer, tasks: list[str], **more: Any) -> dict[str, Any]:
    """What lm_eval itself says, in a process of its own."""
    out = folder / "oracle.json"
    job = {"url": f"{server.url}/completions", "tasks": tasks, "folder": str(folder), "bootstrap": BOOTSTRAP,
           "out": str(out), **more}  # fmt: skip
    script = Path(__file__).parents[2] / "lm_eval_oracle.py"
    done = subprocess.run([PYTHON, str(script), json.dumps(job)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(out.read_text())  # type: ignore[no-any-return]


def suite_text(server: LmEvalServer, more: str = "", entry: str = "") -> str:
    model = (
        f'{{id: served, provider: openai_compatible, base_url: "{server.url}", model: m, api: completions}}'
    )
    tasks = "\n".join(f"  - {{lm_eval: tasks/{name}.yaml, bootstrap: {BOOTSTRAP}{entry}}}" for name in TASKS)
    return f"name: own\nmodels: [{model}]\ntasks:\n{tasks}\n{more}\n"


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "evalrun", str(folder / "suite.yaml"), "--store", str(folder / "store"),
            "--json", "--no-report", "--quiet", *more]  # fmt: skip


def run(folder: Path, *more: str) -> dict[str, Any]:
    done = subprocess.run(command(folder, *more), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def assert_equal(document: Mapping[str, Any], expected: Mapping[str, Any], at_least: int) -> None:
    """Every value and standard error of every task and group, by `==`."""
    compared = 0
    for part in (*document["runs"], *document.get("groups", ())):
        metrics = {each["name"]: each for each in part["metrics"] if not each["slice"]}
        for key, value in expected[part["dataset"]].items():
            name, comma, of = key.partition(",")
            if not comma or name.endswith("_stderr"):
                continue
            ours = metrics[name if of == "none" else f"{name}.{of.replace('-', '_')}"]
            error = expected[part["dataset"]].get(f"{name}_stderr,{of}")
            assert ours["value"] == value, (part["dataset"], key)
            assert ours["se"] == (None if error == "N/A" else error), (part["dataset"], key)
            compared += 1
    assert compared >= at_least


@pytest.fixture(scope="module", params=["words", "merging"])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server, a folder with tasks, and what lm_eval says of them. The merging tokenizer takes a colon and
    the word behind it for one token, so that tokens reach over the end of contexts."""
    folder = tmp_path_factory.mktemp(request.param)
    write_tasks(folder / "tasks")
    server = LmEvalServer(merging=request.param == "merging")
    results: dict[str, Any] = {}
    # Two loads: lm_eval refuses a task that comes directly and through a group.
    said = simple_evaluate(
        folder / "tasks", server, ["own_group", "own_generate", "own_likelihood", "own_rolling"]
    )
    results.update(said["results"])
    yield server, folder, results
    server.close()


def test_every_value_is_the_same(asked: Any) -> None:
    server, folder, results = asked
    (folder / "suite.yaml").write_text(suite_text(server))
    document = run(folder)
    assert_equal(document, results, at_least=19)
    assert [each["group"] for each in document["groups"]] == ["own_group"]
    again = run(folder)  # from the cache
    assert all(each["counts"]["cached"] == 14 for each in again["runs"])
    assert_equal(again, results, at_least=19)


def test_the_same_after_being_killed_and_by_two_workers(asked: Any) -> None:
    server, folder, results = asked
    if server.pattern.pattern.startswith("<s>|</s>|:"):
        pytest.skip("one tokenizer is enough")
    (folder / "suite.yaml").write_text(
        suite_text(server, "performance: {workers: 2, concurrency: 4}", ", max_length: 2047")
    )
    # Another context length, which no text of these reaches: another key of the cache.
    process = subprocess.Popen(
        command(folder, "--no-cache"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    before = len(server.asked)
    deadline = time.monotonic() + 120
    while len(server.asked) < before + 40 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    document = run(folder, "--no-cache")
    assert document["resumed"]
    short = {name: each for name, each in results.items() if name != "own_rolling"}
    document["runs"] = [each for each in document["runs"] if each["dataset"] in short]
    assert_equal(document, short, at_least=16)


def test_failed_documents_are_left_out_and_counted(tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks")
    server = LmEvalServer(fails="apples are 3 and")
    try:
        (tmp_path / "suite.yaml").write_text(
            f'name: own\nmodels: [{{id: m, provider: openai_compatible, base_url: "{server.url}", model: m, '
            "api: completions}]\ntasks: [tasks/likelihood.yaml]\nerrors: {tolerate: 1}\n"
        )
        document = run(tmp_path)
    finally:
        server.close()
    (only,) = document["runs"]
    failed = only["counts"]["failed"]
    assert 0 < failed < 14
    acc = next(each for each in only["metrics"] if each["name"] == "acc")
    assert acc["n"] == 14 - failed
    assert f"{14 - failed} of 14 documents; lm-eval would have stopped" in acc["note"]


def test_without_a_tokenizer_the_run_says_that_it_is_not_comparable(tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks")
    server = LmEvalServer(tokenizes=False)
    try:
        (tmp_path / "suite.yaml").write_text(suite_text(server))
        document = run(tmp_path)
    finally:
        server.close()
    by_task = {each["dataset"]: each for each in document["runs"]}
    note = next(each["note"] for each in by_task["own_choice"]["metrics"] if each["name"] == "acc")
    assert "not comparable to lm_eval" in note
    assert all(each["counts"]["failed"] == 0 for each in document["runs"])


def test_programs_of_models_run_by_leave_and_locked_down(tmp_path: Path) -> None:
    """HumanEval with local rows and without the Hub's code_eval: two of four answers are right, one would
    write outside its folder."""
    rows = tmp_path / "data" / "openai_humaneval" / "test.jsonl"
    rows.parent.mkdir(parents=True)
    check = "def check(candidate):\n    assert candidate(2, 3) == 5\n"
    rows.write_text("".join(
        json.dumps({"task_id": f"H/{at}", "prompt": f"def add{at}(a, b):\n", "canonical_solution": "",
                    "test": check, "entry_point": f"add{at}"}) + "\n"
        for at in range(4)
    ))  # fmt: skip
    server = LmEvalServer()
    mark = tmp_path / "written"
    wrong = f"    open({str(mark)!r}, 'w').close()\n    return 5\n"
    said = {"add0": "    return a + b\n", "add1": "    return a - b\n", "add2": "    return b + a\n"}

    def answer(prompt: str, body: dict[str, Any]) -> str:
        return next((text for name, text in said.items() if f"def {name}(" in prompt), wrong)

    server.said = answer  # type: ignore[method-assign]
    text = (
        f'name: own\nmodels: [{{id: m, provider: openai_compatible, base_url: "{server.url}", model: m, '
        f'api: completions}}]\ntasks: [humaneval]\ntask_data: "{tmp_path / "data"}"\n'
    )
    try:
        (tmp_path / "suite.yaml").write_text(text)
        refused = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=240)
        assert refused.returncode == 2 and "allow: [code_execution]" in refused.stderr
        assert not server.asked
        (tmp_path / "suite.yaml").write_text(text + "allow: [code_execution]\n")
        (only,) = run(tmp_path)["runs"]
    finally:
        server.close()
    figure = next(each for each in only["metrics"] if each["name"] == "pass_1.create_test")
    assert (figure["value"], figure["n"]) == (0.5, 4)
    assert not mark.exists()
