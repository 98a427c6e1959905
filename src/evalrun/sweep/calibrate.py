"""Measures evalrun itself: whole runs against a server that costs nothing, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalrun.errors import ExitCode, UserError
from evalrun.reports.progress import make_progress
from evalrun.runner.calibration import Calibration, versions
from evalrun.sweep.main import run_sweep
from evalrun.sweep.options import SweepOptions

IN_FLIGHT = 64
CHUNKS = 16
_PACED_IN_FLIGHT = 32
_PACED_FEW, _PACED_MANY = 4, 68
_SUITE = """\
name: calibrate
models:
  - id: "null"
    provider: openai_compatible
    base_url: "{base_url}"
    model: "null"
    params: {{temperature: 0, max_tokens: {chunks}}}
prompts:
  - id: ask
    messages:
      - {{role: system, content: "You are a careful assistant. Answer with one number."}}
      - {{role: user, content: "{{{{ question }}}}"}}
datasets: [{{id: rows, path: rows.jsonl, key: id, target: answer}}]
parse: [last_number]
scorers: [numeric]
performance: {{stream: {stream}, concurrency: {in_flight}}}
"""


@dataclass(frozen=True, slots=True)
class _Load:
    """One run: how many answers, in how many chunks (0: not streamed), how many at once."""

    samples: int
    chunks: int
    in_flight: int
    paced: bool = False


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a run took: CPU microseconds an answer, and answers a second."""

    us: float
    per_s: float


def measure(samples: int = 4000) -> Calibration:
    """Run against the null server and return what it cost. Takes about ten seconds with the default.

    Raises UserError (exit 3) where the null server cannot be started or a run does not end well.
    """
    with _null_server() as address, tempfile.TemporaryDirectory(prefix="evalrun-calibrate-") as name:
        folder = Path(name)

        def cost(load: _Load) -> _Cost:
            return _measured(folder, address, load)

        cost(_Load(samples // 10, 0, IN_FLIGHT))  # imports and first uses
        plain = cost(_Load(samples, 0, IN_FLIGHT))
        streamed = cost(_Load(samples // 2, CHUNKS, IN_FLIGHT))
        few = cost(_Load(samples // 20, _PACED_FEW, _PACED_IN_FLIGHT, paced=True))
        many = cost(_Load(samples // 20, _PACED_MANY, _PACED_IN_FLIGHT, paced=True))
    us_per_chunk = max(0.0, (many.us - few.us) / (_PACED_MANY - _PACED_FEW))
    return Calibration(
        us_per_request=round(plain.us, 1),
        us_per_streamed_request=round(max(0.0, few.us - _PACED_FEW * us_per_chunk), 1),
        us_per_chunk=round(us_per_chunk, 1),
        requests_per_s=round(plain.per_s, 1),
        streamed_per_s=round(streamed.per_s, 1),
        chunks_per_streamed=CHUNKS,
        measured_at=datetime.now(UTC).isoformat(),
        versions=versions(),
    )


def _measured(folder: Path, address: str, load: _Load) -> _Cost:
    with (folder / "rows.jsonl").open("w") as file:
        for index in range(load.samples):
            question = f"Question {index}: what is six times seven? Think of {index % 97} apples."
            file.write(json.dumps({"id": f"q{index}", "question": question, "answer": 42}) + "\n")
    suite = folder / "suite.yaml"
    suite.write_text(
        _SUITE.format(
            base_url=f"{address}/paced/v1" if load.paced else f"{address}/v1",
            chunks=load.chunks or CHUNKS,
            stream=str(load.chunks > 0).lower(),
            in_flight=load.in_flight,
        )
    )
    options = SweepOptions(store=folder / "store", write_report=False, use_cache=False, fresh=True)
    outcome = run_sweep(suite, options, make_progress(quiet=True))
    if outcome.exit_code is not ExitCode.OK or outcome.runs[0]["counts"]["scored"] != load.samples:
        raise UserError(
            f"a run against the null server ended with {outcome.manifest['status']}",
            remedy="Try again; if it happens again, please report it.",
            exit_code=ExitCode.INCOMPLETE,
        )
    found: dict[str, Any] = {metric["name"]: metric["value"] for metric in outcome.runs[0]["metrics"]}
    return _Cost(found["cpu.client_s"] / load.samples * 1e6, found["performance.requests_per_s"])


@contextlib.contextmanager
def _null_server() -> Iterator[str]:
    """The address of a null server that lives as long as the block."""
    command = [sys.executable, "-P", "-m", "evalrun.runner.null_server"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port:
            raise UserError(
                "the null server did not start",
                remedy="See that a port of 127.0.0.1 can be opened.",
                exit_code=ExitCode.INCOMPLETE,
            )
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()
