"""What evalrun measures, against when a server really wrote: both read the machine's one monotonic clock.

The server runs in a process of its own and remembers the moment of each write. A client that adds a delay of
its own shows it in every attempt; a machine that is busy does not, so each comparison is of medians and has
several attempts. Where none finds processor time left over, the machine is too busy to tell, and the test
says so instead of failing.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from evalrun.tracking.parquet import iter_samples

BAR_S = 0.002
ATTEMPTS = 4
IDLE = 0.3
"""The least share of processor time left over with which a machine can be called quiet."""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="perf_counter is one clock of all processes")

END: list[list[Any]] = [[0.0, "finish", None], [0.03, "usage", 8], [0.03, "done", None]]
"""Usage and [DONE] come late on purpose: an answer ends with its last text."""

SCRIPTS: dict[str, list[list[Any]]] = {
    "role first": [[0.02, "role", None], *[[0.03, "text", f"{n} "] for n in range(8)], *END],
    "bundled": [[0.04, "text", "one two three"], [0.06, "text", "four five"], [0.02, "text", "six"], *END],
    "counted": [
        [0.04, "counted", ["one two three", 3]],
        [0.05, "counted", [" four five", 5]],
        [0.05, "counted", [" six seven eight", 8]],
        *END,
    ],
    "reasoning": [
        [0.01, "role", None],
        *[[0.03, "reasoning", "so "] for _ in range(4)],
        *[[0.03, "text", "it "] for _ in range(4)],
        *END,
    ],
    "stall": [[0.03, "text", "one "], [0.35, "text", "two "], [0.01, "text", "three"], *END],
    "whole": [[0.12, "whole", "one two three"]],
}
FAILING: dict[str, list[list[Any]]] = {
    "error": [[0.02, "text", "one "], [0.03, "text", "two"], [0.02, "error", "out of memory"]],
    "broken": [[0.02, "text", "one "], [0.03, "text", "two"], [0.02, "break", None]],
}
CONTENT = ("text", "reasoning", "counted", "whole")


@pytest.fixture
def port() -> Iterator[int]:
    script = Path(__file__).parents[1] / "timed_server.py"
    process = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    yield int(process.stdout.readline())
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


def ran(
    folder: Path,
    port: int,
    scripts: dict[str, Any],
    streams: int,
    times: int,
    provider: str = "openai_compatible",
) -> list[dict[str, Any]]:
    """The samples of one run of the program in which every script is played `times` times."""
    rows = []
    for turn in range(times):
        for kind, steps in scripts.items():
            script = {"id": f"{folder.name}/{kind}/{turn}", "steps": steps}
            rows.append({"id": script["id"], "kind": kind, "script": json.dumps(script)})
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "suite.yaml").write_text(
        f"""
name: truth
models: [{{id: m, provider: {provider}, base_url: "http://127.0.0.1:{port}/v1", model: m}}]
prompts: [{{id: p, messages: [{{role: user, content: "{{{{ script }}}}"}}]}}]
datasets: [{{id: d, path: rows.jsonl, key: id, target: "{{{{ kind }}}}"}}]
scorers: [exact_match]
errors: {{tolerate: 100%}}
performance: {{stream: true, concurrency: {streams}, retries: 0, timeout_s: 20}}
"""
    )
    command = [sys.executable, "-m", "evalrun", "run", "suite.yaml", "--store", "s", "--no-report", "--quiet"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (samples,) = folder.glob("s/sweeps/*/runs/*/samples.parquet")
    return list(iter_samples(samples))


def truth_of(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/truth") as answer:
        truth: dict[str, Any] = json.load(answer)
        return truth


def errors(samples: list[dict[str, Any]], truth: dict[str, Any]) -> dict[str, float]:
    """Median difference in seconds of each latency, by kind of script, from what the server did."""
    found: dict[str, list[float]] = {}
    for sample in samples:
        kind = sample["vars.kind"]
        served = truth[sample["vars.id"]]
        writes = [ns for what, ns in served["writes"] if what in CONTENT]
        first, last = ((at - served["received"]) / 1e9 for at in (writes[0], writes[-1]))
        expected = {"e2e_s": last, "client_queue_s": 0.0}
        if kind == "whole":
            assert sample["ttft_s"] is None and sample["tpot_s"] is None and not sample["chunk_gaps"]
        else:
            expected["ttft_s"] = first
            served_gaps = [(now - before) / 1e9 for before, now in pairwise(writes)]
            gaps = [gap / 1e6 for gap in json.loads(sample["chunk_gaps"])]
            assert len(gaps) == len(served_gaps)
            found.setdefault(f"{kind}: between chunks", []).extend(map(float.__sub__, gaps, served_gaps))
            expected["tpot_s"] = (last - first) / (8 - (3 if kind == "counted" else 1))
        for name, value in expected.items():
            found.setdefault(f"{kind}: {name}", []).append(sample[name] - value)
    return {name: statistics.median(values) for name, values in found.items()}


class Idle:
    """The share of all processor time that was left over while the block ran."""

    share = 1.0

    def __enter__(self) -> Idle:
        self._before = psutil.cpu_times()
        return self

    def __exit__(self, *_: object) -> None:
        before, after = self._before, psutil.cpu_times()
        left = after.idle + after.iowait - before.idle - before.iowait
        self.share = left / max(1e-9, sum(after[:8]) - sum(before[:8]))


def slower(scripts: dict[str, Any], factor: float) -> dict[str, Any]:
    return {
        kind: [[wait * factor, what, value] for wait, what, value in steps] for kind, steps in scripts.items()
    }


@pytest.mark.parametrize(
    ("streams", "times", "provider"),
    [(1, 3, "openai_compatible"), (64, 24, "openai_compatible"), (1, 3, "openai"), (16, 6, "openai")],
)
def test_every_latency_is_what_the_server_did(
    tmp_path: Path, port: int, streams: int, times: int, provider: str
) -> None:
    wrong: dict[str, float] = {}
    quiet = False
    scripts = slower(SCRIPTS, 1.0 if streams == 1 else 3.0)
    for attempt in range(ATTEMPTS):
        with Idle() as idle:
            samples = ran(tmp_path / f"a{attempt}", port, scripts, streams, times, provider)
        assert len(samples) == times * len(SCRIPTS)
        assert {(s["completion_tokens"], s["prompt_tokens"]) for s in samples} == {(8, 9), (3, 9)}
        truth = truth_of(port)
        medians = errors(samples, truth)
        if streams > 1 or provider == "openai":
            # What is scheduled at once goes out one after the other, and the SDK takes its time to make a
            # request: that wait is its own.
            medians = {name: error for name, error in medians.items() if "client_queue_s" not in name}
        wrong = {name: error for name, error in medians.items() if abs(error) > BAR_S}
        if not wrong:
            return
        quiet = quiet or idle.share >= IDLE
    if not quiet:
        pytest.skip(f"the machine is too busy to measure to {BAR_S * 1e3:g} ms: no processor time is left")
    pytest.fail(f"further than {BAR_S * 1e3:g} ms from the truth: {wrong}")


def test_streams_that_fail_midway_are_failed_samples_without_latency(tmp_path: Path, port: int) -> None:
    samples = ran(tmp_path / "a", port, FAILING, 4, 4)
    assert len(samples) == 8
    for sample in samples:
        assert sample["status"] == "failed" and sample["ttft_s"] is None and sample["e2e_s"] is None
        expected = "out of memory" if sample["vars.kind"] == "error" else "truncated"
        assert expected in sample["error"], sample["error"]


def test_tokens_per_second_are_what_the_server_wrote_in_the_window(tmp_path: Path, port: int) -> None:
    """Few long answers, many at once: most of what is written in the window belongs to answers that end
    after it, and a third of what ends in it was written before."""
    lengths = [3 + 37 * n % 91 for n in range(64)]
    scripts: dict[str, list[list[Any]]] = {
        f"{n}": [[0.05, "role", None], *[[0.02, "text", "so "]] * length, [0.0, "finish", None],
                 [0.0, "usage", length], [0.0, "done", None]]
        for n, length in enumerate(lengths)
    }  # fmt: skip
    samples = ran(tmp_path / "rates", port, scripts, 20, 1)
    truth = truth_of(port)
    (path,) = tmp_path.glob("rates/s/sweeps/*/runs/*/run.json")
    run = json.loads(path.read_text())
    window = run["details"]["throughput_window"]
    assert window["steady"] and window["peak_in_flight"] == 20
    served = [truth[sample["vars.id"]] for sample in samples]
    offset_s = statistics.median(
        sample["sent_s"] - each["received"] / 1e9 for sample, each in zip(samples, served, strict=True)
    )
    begin, end = window["start_s"] - offset_s, window["end_s"] - offset_s
    written = sum(begin < ns / 1e9 <= end for each in served for what, ns in each["writes"] if what == "text")
    rates = {metric["name"]: metric["value"] for metric in run["metrics"]}
    found, right = rates["performance.output_tokens_per_s"], written / (end - begin)
    ended = [each for each in samples if window["start_s"] < each["done_s"] <= window["end_s"]]
    at_their_end = sum(each["completion_tokens"] for each in ended) / (end - begin)
    assert found == pytest.approx(right, rel=0.03)
    assert at_their_end < 0.9 * right, "the case tells the two apart"
