"""Figures that people log are numbers, as a run's own metrics are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.program import evalrun
from tests.recorded import recorded_suite, yes_no


def test_a_logged_figure_is_found_sorted_kept_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suite = recorded_suite(tmp_path, yes_no([True, False] * 5, n=["yes"] * 10), ["m", "n"])
    assert evalrun(suite, "-q", "--no-report").returncode == 0
    assert evalrun("log", "latest/m-p-d", "energy.kwh=1.5", "helpful=9").returncode == 0
    assert evalrun("log", "latest/n-p-d", "energy.kwh=10").returncode == 0
    assert evalrun("log", "latest/m-p-d", "energy.kwh=2.5").returncode == 0, "the last one counts"
    for _ in range(2):
        found = json.loads(
            evalrun("find", "metric.energy.kwh > 2", "--sort", "-metric.energy.kwh", "--json").stdout
        )
        assert [row["model"] for row in found["runs"]] == ["n", "m"]
        assert found["runs"][1]["metrics"]["energy.kwh"]["value"] == 2.5
        assert evalrun("audit", "verify").returncode == 0
        assert evalrun("reindex").returncode == 0
    for wrong in ("kwh", "kwh=much", "kwh=nan", "1=2", "exact_match=1"):
        refused = evalrun("log", "latest/m-p-d", wrong)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr, wrong
