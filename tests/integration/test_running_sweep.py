"""A sweep that is running is seen as it stands, by those who look into its store."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.program import evalrun
from tests.recorded import recorded_suite, yes_no
from tests.servers import ChatServer


@pytest.mark.parametrize("ends", ["by itself", "killed"])
def test_it_is_shown_found_and_asked_while_it_runs(
    tmp_path: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    monkeypatch.chdir(tmp_path)
    chat_server.delay_s = 0.03
    model = {"id": "m", "provider": "openai_compatible", "base_url": chat_server.base_url, "model": "x"}
    suite = recorded_suite(tmp_path, yes_no([True] * 400), [], models=[model], performance={"concurrency": 2})
    command = [sys.executable, "-m", "evalrun", str(suite), "-q", "--no-report"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while len(chat_server.bodies) < 40 and time.monotonic() < end:
        time.sleep(0.005)
    try:
        shown = evalrun("show", "latest")
        assert shown.returncode == 0, shown.stderr
        assert "m-p-d is not finished: " in shown.stdout and " of 400 samples" in shown.stdout
        assert "1 run  0 samples" not in shown.stdout and "results yet" not in shown.stdout
        assert "the last sample " in " ".join(shown.stdout.split()) and "exact_match" in shown.stdout
        document = json.loads(evalrun("show", "latest", "--json").stdout)
        (running,) = document["running"]
        assert document["status"] == "running" and running["of"] == 400 and running["last_sample_at"]
        found = json.loads(
            evalrun("find", 'status == "running" and metric.exact_match >= 0', "--json").stdout
        )
        (row,) = found["runs"]
        first = row["samples"]
        assert 0 < first < 400 and row["metrics"]["exact_match"]["n"] == first
        samples = json.loads(evalrun("samples", "m-p-d", "--json", "--limit", "1000").stdout)
        assert first <= samples["total"] < 400 and samples["samples"][0]["sample_id"] == "s0000"
        counted = evalrun("sql", "select sweep, run, count(*) as n from samples group by all", "--json")
        ((sweep, run, n),) = json.loads(counted.stdout)["rows"]
        assert (sweep, run) == (document["sweep"], "m-p-d") and first <= n < 400
        later = json.loads(evalrun("find", 'status == "running"', "--json").stdout)["runs"][0]["samples"]
        assert later > first, "it is looked at again"
        assert evalrun("audit", "verify").returncode == 0
    finally:
        if ends == "killed":
            process.kill()
        else:
            chat_server.delay_s = 0
        process.communicate(timeout=60)
    if ends == "killed":
        assert "m-p-d is not finished: " in evalrun("show", "latest").stdout
        assert json.loads(evalrun("show", "latest", "--json").stdout)["status"] == "interrupted"
    else:
        assert "not finished" not in evalrun("show", "latest").stdout
        (row,) = json.loads(evalrun("find", "--json").stdout)["runs"]
        assert row["samples"] == 400 and row["status"] == "complete"
