"""The daily loop: change a prompt, run again, look at what that did; by the names that output shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.program import evalrun
from tests.recorded import document_of, output_of, recorded_suite, yes_no


@pytest.fixture
def twice(project: Path) -> Path:
    """A suite of two recorded models that ran twice with the same answers."""
    rows = yes_no([at % 3 > 0 for at in range(60)], other=["yes" if at % 2 else "no" for at in range(60)])
    suite = recorded_suite(project, rows, ["m", "other"])
    for _ in range(2):
        output_of("run", suite, "--quiet", "--no-report")
    return suite


def test_sweeps_and_runs_are_known_by_what_output_shows(twice: Path) -> None:
    latest, before = (document_of("show", name)["sweep"] for name in ("latest", "previous"))
    assert before == document_of("show", "1")["sweep"] == document_of("show", "latest~1")["sweep"] != latest
    for run in ("other", "other/d", f"{latest[-6:]}/other/d", "latest/other-p-d"):
        found = document_of("samples", run, "--limit", "1")
        assert (found["sweep"], found["run"]) == (latest, "other-p-d")
    assert document_of("samples", "previous/m")["sweep"] == before
    [compared] = document_of("compare", "m", "other")["comparisons"]
    assert (compared["a"]["run"], compared["b"]["run"]) == ("m-p-d", "other-p-d")
    done = evalrun("samples", "othr")
    assert done.returncode == 2 and "Did you mean 'other'?" in done.stderr
    done = evalrun("samples", "d")
    assert done.returncode == 2 and "'d' fits 2 runs: m-p-d, other-p-d" in done.stderr
