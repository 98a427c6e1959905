"""The demonstration in `suites/production_demo` runs alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import evalrun

ROOT = Path(__file__).parents[3]


def test_the_demonstration_runs_alone(tmp_path: Path) -> None:
    """One day of it: what the two weeks show is in reports/production_demo.html."""
    environment = {**os.environ, "PYTHONPATH": str(Path(evalrun.__file__).parents[1])}
    command = [sys.executable, str(ROOT / "suites" / "production_demo" / "run.py"), "--days", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "probe: 100.00% answered, 0 outage(s)" in done.stdout
    assert "triage-demo" in (tmp_path / "production.html").read_text()
    assert (tmp_path / "traffic.html").exists()
