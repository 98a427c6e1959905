"""Ordinary sweeps that end early: when gates or comparisons are decided, or intervals are narrow."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.program import evalrun
from tests.recorded import document_of, recorded_suite

RATES = {"old": 0.85, "new": 0.6}


def rows(count: int = 600) -> list[dict[str, Any]]:
    """Sorted by whether the models are right, as a file sorted by its labels is."""
    rng = random.Random(1)
    drawn = [{name: "yes" if rng.random() < p else "no" for name, p in RATES.items()} for _ in range(count)]
    drawn.sort(key=lambda row: row["old"])
    return [{"id": f"r{at}", "want": "yes", **row} for at, row in enumerate(drawn)]


def _run(suite: Path, *words: str | Path, code: int = 0) -> dict[str, Any]:
    store = suite.parent / "s"
    return document_of(suite, "--store", store, "--no-report", "-q", *words, code=code)


def _metric(run: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in run["metrics"] if each["name"] == "exact_match" and not each["slice"])


def test_a_gate_ends_a_run_when_it_is_decided(tmp_path: Path) -> None:
    gates = ["exact_match no worse than baseline by 0.02", "exact_match >= 0.3"]
    model = [{"id": "m", "provider": "recorded", "column": "old"}]
    suite = recorded_suite(tmp_path, rows(), (), models=model, gates=gates, baseline="first")
    assert _run(suite)["runs"][0]["counts"]["samples"] == 600
    found = _run(suite, "--set", "models.0.column=new", "--stop-when-decided", code=1)
    run, (worse, least) = found["runs"][0], found["gates"]
    assert run["counts"]["samples"] < 300
    assert worse["verdict"] == "fail" and "however often one looks" in worse["reason"]
    assert worse["ci_low"] < worse["difference"] < worse["ci_high"] < 0
    assert least["verdict"] == "pass"
    metric = _metric(run)
    assert metric["method"] == "betting" and "always-valid" in metric["note"]
    said = evalrun("show", "latest", "--store", tmp_path / "s").stdout
    assert "Sequential" in said and "always-valid" in said
    # A later sweep of the whole takes over nothing of what was asked in part.
    again = _run(suite, "--set", "models.0.column=new", "--reuse", code=1)
    assert again["runs"][0]["counts"]["samples"] == 600


def test_without_gates_runs_end_when_they_are_told_apart(tmp_path: Path) -> None:
    found = _run(recorded_suite(tmp_path, rows(), RATES), "--stop-when-decided")
    asked = {run["model"]: run["counts"]["samples"] for run in found["runs"]}
    assert asked["old"] == asked["new"] < 300
    best, behind = found["standings"]
    assert (best["run"], best["verdict"]) == ("old-p-d", "best")
    assert behind["verdict"] == "behind" and behind["p"] <= 0.05 and behind["method"] == "e-value"
    assert 0 < behind["ci_low"] < behind["difference"] < behind["ci_high"]


@pytest.mark.parametrize(("said", "target"), [("±0.08", "data set"), ("8% of population", "population")])
def test_until_an_interval_is_narrow(tmp_path: Path, said: str, target: str) -> None:
    found = _run(recorded_suite(tmp_path, rows(400), ["old"]), "--until", said)
    metric = _metric(found["runs"][0])
    asked = found["runs"][0]["counts"]["samples"]
    assert 100 < asked < 400
    assert (metric["ci_high"] - metric["ci_low"]) / 2 <= 0.08 and target in metric["note"]
    # Rows sorted by what is right are asked in drawn order: the interval holds the score of all of them.
    whole = _metric(_run(recorded_suite(tmp_path, rows(400), ["old"]))["runs"][0])
    assert metric["ci_low"] < whole["value"] < metric["ci_high"]
    assert whole["method"] == "wilson"


@pytest.mark.parametrize(
    ("parts", "words", "said"),
    [
        ({}, ["--stop-when-decided"], "nothing to decide"),
        ({"scorers": [{"correlation": {}}]}, ["--until", "0.03"], "no bounds"),
        ({}, ["--until", "much"], "--until"),
        ({}, ["--until", "0"], "--until"),
        ({}, ["--until", "0.5"], "no precision"),
        ({"stop_early": {}}, [], "when to end"),
        ({"scorers": [{"correlation": {}}]}, ["--stop-when-decided"], "nothing to decide"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_before_anything_is_sent(
    tmp_path: Path, parts: dict[str, Any], words: list[str], said: str
) -> None:
    suite = recorded_suite(tmp_path, rows(60), ["old"], **parts)
    done = evalrun(suite, "--store", tmp_path / "s", "-q", *words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "s" / "sweeps").exists()


SLOW = """
import time
from pathlib import Path

def answer(request):
    time.sleep(0.004)
    with Path("calls.log").open("a") as log:
        log.write(request.sample_id + "\\n")
    return request.row["old"]
"""


def _slow(folder: Path, *words: str, sent: int, number: int) -> Path:
    """A suite of a slow function, and a sweep of it that got a signal after so many calls."""
    module = f"crawl_{number:d}"  # each test has its own: modules are of the process
    (folder / f"{module}.py").write_text(SLOW)
    model = [{"id": "m", "provider": "python", "function": f"{module}:answer"}]
    suite = recorded_suite(folder, rows(), (), models=model, performance={"concurrency": 4})
    command = [sys.executable, "-m", "evalrun", str(suite), "--store", "s", "--no-cache", "--no-report"]
    process = subprocess.Popen(
        [*command, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    log, end = folder / "calls.log", time.monotonic() + 60
    while time.monotonic() < end and not (log.exists() and len(log.read_text().splitlines()) > sent):
        time.sleep(0.01)
    process.send_signal(number)
    process.wait()
    return suite


def test_ctrl_c_with_scores_in_sight_is_marked_until_the_rest_is_asked(tmp_path: Path) -> None:
    suite = _slow(tmp_path, sent=60, number=signal.SIGINT)
    (manifest,) = (tmp_path / "s" / "sweeps").glob("*/sweep.json")
    assert json.loads(manifest.read_text())["stopped_while_looking"] is True
    said = evalrun("show", "latest", "--store", tmp_path / "s").stdout
    assert "Stopped while looking" in said
    evalrun(suite, "--store", "s", "--no-cache", "--no-report", cwd=tmp_path)
    assert json.loads(manifest.read_text())["stopped_while_looking"] is False


def test_a_sweep_that_is_killed_goes_on_and_ends_where_it_would_have(tmp_path: Path) -> None:
    suite = _slow(tmp_path, "-q", "--until", "0.06", sent=80, number=signal.SIGKILL)
    words = (suite, "--store", "s", "--no-cache", "--no-report", "-q", "--until", "0.06", "--json")
    done = evalrun(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    calls = (tmp_path / "calls.log").read_text().splitlines()
    asked = found["runs"][0]["counts"]["samples"]
    assert asked <= len(calls) <= asked + 4 + 64, "at most what was in flight or not yet durable"
    fresh = json.loads(evalrun(*words, "--fresh", cwd=tmp_path).stdout)
    assert _metric(fresh["runs"][0]) == _metric(found["runs"][0])
