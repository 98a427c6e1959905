"""Scores by the values of a column: against a hand computation, and the errors by an independent formula."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
name: by
models: [{id: r, provider: recorded, column: out}]
prompts: [{id: p, text: "{{ q }}"}]
datasets:
  - id: d
    target: t
    rows:
      - {q: a, out: "4", t: "4", s: x}
      - {q: b, out: "3", t: "4", s: x}
      - {q: c, out: "3", t: "3", s: x}
      - {q: d, out: "3", t: "3", s: y}
      - {q: e, out: "1", t: "3", s: y}
scorers: [exact_match]
report: {by: [s, absent]}
"""


def test_means_by_a_column_and_their_mean(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    done = subprocess.run(
        [sys.executable, "-m", "evalrun", "suite.yaml", "--store", "st", "--json", "--no-report", "--quiet"],
        capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60,
    )  # fmt: skip
    metrics = json.loads(done.stdout)["runs"][0]["metrics"]
    by = {each["slice"]["s"]: each for each in metrics if "s" in each["slice"]}
    assert by["x"]["value"] == pytest.approx(2 / 3)
    assert by["y"]["value"] == 0.5
    assert (by["x"]["n"], by["y"]["n"]) == (3, 2)
    macro = next(each for each in metrics if each["name"] == "exact_match.macro.s")
    micro = next(each for each in metrics if each["name"] == "exact_match" and not each["slice"])
    assert macro["value"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert micro["value"] == 0.6
    # Independent strata: the variance of the mean of k means is the sum of their variances over k squared;
    # the variance of a share is that of its Wilson interval.
    half = [(each["ci_high"] - each["ci_low"]) / (2 * 1.959963984540054) for each in by.values()]
    assert macro["se"] == pytest.approx(math.hypot(*half) / 2)
