"""`performance: {workers: N}` through the whole program: the same results with any number of processes that
send the requests, and nothing left behind or paid for twice whatever ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web
from tests.integration.test_sweep import N, correct, metric, write_suite
from tests.program import evalrun
from tests.servers import ChatServer, completion

from evalrun.tracking.parquet import iter_samples

TIMES = {
    "ttft_s", "e2e_s", "tpot_s", "client_queue_s", "sent_s", "done_s", "attempt_log",
}  # fmt: skip


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def workers_of(process: subprocess.Popen[Any]) -> list[psutil.Process]:
    try:
        children = psutil.Process(process.pid).children()
        return [each for each in children if "spread_worker" in " ".join(each.cmdline())]
    except psutil.Error:
        return []


def begin(suite: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "evalrun", str(suite), "--no-report", "--no-cache", "--json", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def samples(folder: str) -> dict[str, list[dict[str, Any]]]:
    """The samples of each run without their times, in the order of the dataset."""
    found = {}
    for path in sorted(Path(folder).glob("runs/*/samples.parquet")):
        rows = [{key: value for key, value in row.items() if key not in TIMES} for row in iter_samples(path)]
        found[path.parent.name] = sorted(rows, key=lambda row: (row["position"], row["repeat"]))
    return found


def moody(server: ChatServer) -> None:
    """Every fifth sample fails once, one row is refused for good, one is answered with a call of a tool; the
    others are answered with the seed that they came with."""
    asked: Counter[tuple[str, int]] = Counter()
    server.answer = lambda body: f"{correct(body)} {body['seed']}"

    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        text = body["messages"][-1]["content"]
        asked[text, body["seed"]] += 1
        first = int(text.removeprefix("Please: ").split(" ")[0])
        if first == 7:
            return web.json_response({"error": {"message": "not seven"}}, status=400)
        if first % 5 == 0 and asked[text, body["seed"]] == 1:
            return web.json_response({"error": {"message": "once"}}, status=500)
        if first != 8:
            return await server._plain(body, request)
        answer = completion(correct(body))
        call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 8}'}}
        answer["choices"][0]["message"]["tool_calls"] = [call]
        return web.json_response(answer)

    server.behaviour = behaviour


@pytest.mark.parametrize("stream", [False, True])
def test_samples_are_the_same_with_any_number_of_workers(
    project: Path, chat_server: ChatServer, stream: bool
) -> None:
    found = {}
    for workers in (0, 2):
        moody(chat_server)
        performance = {"concurrency": 6, "retries": 2, "workers": workers, "stream": stream}
        suite = write_suite(project, chat_server, performance=performance, repeats=2)
        models = json.loads(suite.read_text())["models"]
        models[0]["params"] = {"temperature": 0.7}  # so that each sample has its own seed
        suite = write_suite(project, chat_server, performance=performance, repeats=2, models=models)
        done = evalrun(suite, "--no-report", "--no-cache", "--fresh", "--json")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        found[workers] = samples(result["folder"])
        resolved = json.loads((Path(result["folder"]) / "sweep.json").read_text())["suite"]["resolved"]
        assert resolved["performance"]["workers"] == workers
        runs = [json.loads(path.read_text()) for path in Path(result["folder"]).glob("runs/*/run.json")]
        assert all(run["timings"]["workers"] == workers for run in runs)
    assert found[0] == found[2]
    rows = [row for run in found[2].values() for row in run]
    assert len(rows) == 4 * N and {row["status"] for row in rows} == {"scored", "failed"}
    assert {row["attempts"] for row in rows} == {1, 2}
    assert sum(row["status"] == "failed" for row in rows) == 4
    assert sum("add" in str(row["tool_calls"]) for row in rows) == 4


def test_their_number_is_no_part_of_the_cache_key_nor_of_the_work(
    project: Path, chat_server: ChatServer
) -> None:
    chat_server.answer = correct
    first = evalrun(write_suite(project, chat_server), "--no-report", "--json")
    assert first.returncode == 0, first.stderr
    sent = len(chat_server.bodies)
    suite = write_suite(project, chat_server, performance={"concurrency": 4, "retries": 1, "workers": 2})
    again = json.loads(evalrun(suite, "--no-report", "--json").stdout)
    assert len(chat_server.bodies) == sent
    assert {run["counts"]["cached"] for run in again["runs"]} == {N}
    digests = [
        json.loads((Path(result["folder"]) / "sweep.json").read_text())["spec_digest"]
        for result in (json.loads(first.stdout), again)
    ]
    assert digests[0] == digests[1]


def test_a_worker_that_is_killed_costs_no_sample(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer, chat_server.delay_s = correct, 0.1
    performance = {"concurrency": 4, "retries": 2, "workers": 2}
    process = begin(write_suite(project, chat_server, performance=performance))
    until(lambda: len(chat_server.bodies) >= 12)
    workers_of(process)[0].kill()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    result = json.loads(output)
    assert all(metric(run, "numeric")["value"] == 1.0 for run in result["runs"])
    assert sum(run["counts"]["scored"] for run in result["runs"]) == 2 * N
    again = len(chat_server.bodies) - 2 * N
    assert 1 <= again <= 4, "what was in flight in the one that was killed, and nothing else"


def test_when_all_workers_are_gone_the_sweep_stops_and_can_go_on(
    project: Path, chat_server: ChatServer
) -> None:
    chat_server.answer, chat_server.delay_s = correct, 0.1
    performance = {"concurrency": 4, "retries": 1, "workers": 2}
    suite = write_suite(project, chat_server, performance=performance)
    process = begin(suite)
    until(lambda: len(chat_server.bodies) >= 12)
    for worker in workers_of(process):
        worker.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert "worker processes of model served have all ended" in errors and "Traceback" not in errors
    sent = len(chat_server.bodies)
    done = evalrun(suite, "--no-report", "--no-cache", "--json", "--set", "performance.workers=0")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["resumed"], "the number of workers is no part of the work"
    assert len(chat_server.bodies) - sent < 2 * N - 4
    assert sum(run["counts"]["scored"] for run in result["runs"]) == 2 * N


def test_workers_do_not_outlive_a_parent_that_is_killed(project: Path, chat_server: ChatServer) -> None:
    chat_server.delay_s = 60
    process = begin(write_suite(project, chat_server, performance={"concurrency": 4, "workers": 2}))
    until(lambda: len(chat_server.bodies) == 4)
    workers = workers_of(process)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive


def test_ctrl_c_waits_for_what_is_in_flight(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer, chat_server.delay_s = correct, 0.3
    suite = write_suite(project, chat_server, performance={"concurrency": 4, "workers": 2})
    command = [sys.executable, "-m", "evalrun", str(suite), "--no-report", "--no-cache"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until(lambda: len(chat_server.bodies) >= 6)
    workers = workers_of(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: the whole group in the foreground
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in output + errors and "same command" in output + errors
    (journal, *_) = project.glob(".evalrun/sweeps/*/runs/*/journal.jsonl")
    records = [json.loads(line) for line in journal.read_bytes().splitlines()]
    assert len(records) == len(chat_server.bodies) and {each["status"] for each in records} == {"scored"}
    assert len(workers) == 2 and not any(each.is_running() for each in workers)


def test_deadlines_hold(project: Path, chat_server: ChatServer) -> None:
    async def behaviour(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for _ in range(200):
            await response.write(b" ")
            await chat_server_pause()
        return response

    async def chat_server_pause() -> None:
        import asyncio

        await asyncio.sleep(0.1)

    chat_server.behaviour = behaviour
    performance = {"concurrency": 4, "retries": 2, "workers": 2, "timeout_s": 1.5}
    suite = write_suite(project, chat_server, performance=performance)
    done = evalrun(suite, "--no-report", "--limit", "4", "--prompts", "plain", "--json")
    result = json.loads(done.stdout)
    ((rows),) = samples(result["folder"]).values()
    assert {row["error"] for row in rows} == {"timeout: no answer within 1.5 s"}


def test_the_memory_of_the_workers_counts(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer, chat_server.delay_s = correct, 0.1
    peaks = {}
    for workers in (0, 2):
        suite = write_suite(project, chat_server, performance={"concurrency": 4, "workers": workers})
        done = evalrun(suite, "--no-report", "--no-cache", "--fresh", "--json", "--prompts", "plain")
        result = json.loads(done.stdout)
        peaks[workers] = metric(result["runs"][0], "memory.client_peak_bytes")["value"]
    assert peaks[2] > peaks[0] + 20e6


def test_a_model_that_is_not_asked_over_a_network_is_refused_before_anything_is_sent(
    project: Path, chat_server: ChatServer
) -> None:
    suite = write_suite(project, chat_server, performance={"workers": 2})
    models = json.loads(suite.read_text())["models"]
    models.append({"id": "kept", "provider": "recorded", "column": "a"})
    done = evalrun(write_suite(project, chat_server, performance={"workers": 2}, models=models))
    assert done.returncode == 2
    assert "provider 'recorded' of model 'kept'" in done.stderr and "suite.yaml:" in done.stderr
    assert not chat_server.bodies
