"""`evalrun calibrate` against its built-in server, and what sweeps make of its figures."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.servers import ChatServer

from evalrun.paths import CACHE_VARIABLE
from evalrun.runner import calibration
from evalrun.runner.calibration import Calibration

KNOWN = Calibration(
    us_per_request=200.0,
    us_per_streamed_request=400.0,
    us_per_chunk=50.0,
    requests_per_s=5000.0,
    streamed_per_s=800.0,
    chunks_per_streamed=16,
    measured_at="2026-01-01T00:00:00+00:00",
    versions={},
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def evalrun(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evalrun", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=cwd)


def test_measures_this_machine_and_keeps_it(cache: Path) -> None:
    done = evalrun("calibrate", "--requests", "400", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert 20 < figures["us_per_request"] < 20_000 and 0 < figures["us_per_chunk"] < 5_000
    assert figures["us_per_streamed_request"] > 0
    assert figures["requests_per_s"] > figures["streamed_per_s"] > 0
    loaded = calibration.load()
    assert loaded is not None and loaded.us_per_request == figures["us_per_request"]


def test_figures_of_other_versions_or_machines_are_not_used(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert calibration.load() is None
    calibration.save(replace(KNOWN, versions={**calibration.versions(), "aiohttp": "0.1"}))
    assert calibration.load() is None
    mine = replace(KNOWN, versions=calibration.versions())
    calibration.save(mine)
    assert calibration.load() == mine
    monkeypatch.setattr(calibration, "machine_key", lambda: "another")
    assert calibration.load() is None
    calibration.save(replace(mine, us_per_request=7.0))
    monkeypatch.undo()
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    assert calibration.load() == mine, "machines that share a home keep their figures apart"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}', "null"])
def test_a_broken_file_is_no_figure(cache: Path, text: str) -> None:
    cache.mkdir(exist_ok=True)
    (cache / calibration.FILE).write_text(text)
    assert calibration.load() is None
    (cache / calibration.FILE).write_text(json.dumps({calibration.machine_key(): {"us_per_request": 1}}))
    assert calibration.load() is None


def test_the_highest_rate_follows_the_chunks() -> None:
    assert KNOWN.highest_rate(False, 99) == 5000
    at_measured = KNOWN.highest_rate(True, 16)
    assert at_measured == pytest.approx(max(800, 1e6 / 1200))
    assert KNOWN.highest_rate(True, 200) == pytest.approx(at_measured * 1200 / 10400)
    slowed = replace(KNOWN, requests_per_s=300.0)
    assert slowed.highest_rate(False, 0) == 5000, "a busy machine does not lower what a core gives"
    assert slowed.core_share == pytest.approx(0.06)


@pytest.mark.parametrize(("us", "limited"), [(2e6, True), (1.0, False)])
def test_a_sweep_records_it_and_marks_latencies_near_the_limit(
    cache: Path, project: Path, chat_server: ChatServer, us: float, limited: bool
) -> None:
    """With a figure of 2 s a request every rate is near the limit; with 1 µs none is."""
    calibration.save(
        replace(KNOWN, us_per_request=us, requests_per_s=1e6 / us, versions=calibration.versions())
    )
    chat_server.delay_s = 0.1
    rows = ", ".join(f"{{q: {n}}}" for n in range(20))
    (project / "s.yaml").write_text(
        f"""
name: near
models: [{{id: m, provider: openai_compatible, base_url: "{chat_server.base_url}", model: m}}]
prompts: [{{id: p, messages: [{{role: user, content: "{{{{ q }}}}"}}]}}]
datasets: [{{id: d, rows: [{rows}], target: "{{{{ q }}}}"}}]
scorers: [exact_match]
performance: {{stream: false, concurrency: 4}}
"""
    )
    done = evalrun("s.yaml", "--store", "s", "--no-report", "--quiet", cwd=project)
    assert done.returncode == 0, done.stderr
    (manifest,) = project.glob("s/sweeps/*/sweep.json")
    recorded = json.loads(manifest.read_bytes())["provenance"]["client"]["calibration"]
    assert recorded["us_per_request"] == us
    (run,) = project.glob("s/sweeps/*/runs/*/run.json")
    document = json.loads(run.read_bytes())
    (metric,) = [m for m in document["metrics"] if m["name"] == "performance.e2e_s.p50"]
    assert ("evalrun calibrate" in metric["note"]) is limited, metric
    assert bool("evalrun calibrate" in document["details"]["client_limited"]) is limited


@pytest.fixture
def null_server() -> Iterator[str]:
    command = [sys.executable, "-m", "evalrun.runner.null_server"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    process.stdin.close()
    assert process.wait(10) == 0, "it ends with its standard input"
    process.stdout.close()


def posted(address: str, body: dict[str, Any]) -> bytes:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        data: bytes = answer.read()
        return data


def test_the_null_server_speaks_as_a_model_does(null_server: str) -> None:
    whole = json.loads(posted(f"{null_server}/v1/chat/completions", {"messages": []}))
    assert whole["choices"][0]["message"]["content"] == "The answer is 42."
    streamed = posted(
        f"{null_server}/v1/chat/completions", {"stream": True, "max_tokens": 70, "messages": []}
    )
    events = [line[6:] for line in streamed.decode().split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    texts = [c["choices"][0]["delta"].get("content") for c in chunks if c["choices"]]
    assert "".join(text or "" for text in texts).startswith("The answer is 42.")
    assert len([text for text in texts if text]) == 70 == chunks[-1]["usage"]["completion_tokens"]
