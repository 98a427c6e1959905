"""More requests than files may be open: the limit is raised, or no more are sent at once than it allows."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_sweep import correct, metric, write_suite
from tests.servers import ChatServer


@pytest.mark.parametrize(("soft", "hard"), [(96, 4096), (96, 96)])
@pytest.mark.parametrize("performance", [{}, {"concurrency": 400}])
def test_a_low_limit_of_open_files_fails_no_sample(
    project: Path, chat_server: ChatServer, soft: int, hard: int, performance: dict[str, Any]
) -> None:
    chat_server.answer = correct
    chat_server.delay_s = 0.2
    rows = [{"id": f"q{at}", "a": at, "b": 1, "sum": at + 1} for at in range(300)]
    (project / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    many = [{"id": "many", "path": "many.jsonl", "key": "id", "target": "sum"}]
    suite = write_suite(project, chat_server, datasets=many, performance={"retries": 0, **performance})
    done = subprocess.run(
        [sys.executable, "-m", "evalrun", str(suite), "--no-report", "--json", "--prompts", "plain"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
    )
    assert done.returncode == 0, done.stderr
    [run] = json.loads(done.stdout)["runs"]
    assert run["counts"]["failed"] == 0 and metric(run, "numeric")["value"] == 1.0
