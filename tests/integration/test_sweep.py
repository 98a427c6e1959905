"""The program as its user runs it: a suite file, a server on loopback, files and exit codes afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.program import evalrun
from tests.servers import ChatServer, completion

N = 40


def write_suite(folder: Path, server: ChatServer, **changes: Any) -> Path:
    """A suite of N sums over one served model; `changes` replace its top-level keys."""
    rows = [
        {"id": f"q{i}", "a": i, "b": i + 1, "sum": 2 * i + 1, "kind": "even" if i % 2 else "odd"}
        for i in range(N)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = {
        "name": "sums",
        "models": [
            {
                "id": "served",
                "provider": "openai_compatible",
                "base_url": server.base_url,
                "model": "scripted",
                "params": {"temperature": 0, "max_tokens": 8},
            }
        ],
        "prompts": [
            {"id": "plain", "text": "{{ a }} + {{ b }} ="},
            {"id": "polite", "text": "Please: {{ a }} + {{ b }} ="},
        ],
        "datasets": [{"id": "sums", "path": "rows.jsonl", "key": "id", "target": "sum"}],
        "parse": ["last_number"],
        "scorers": ["numeric"],
        "performance": {"concurrency": 4, "retries": 1},
        **changes,
    }
    path = folder / "suite.yaml"
    path.write_text(json.dumps(suite))
    return path


def correct(body: dict[str, Any]) -> str:
    a, b = (
        int(word)
        for word in body["messages"][-1]["content"].replace("Please: ", "").removesuffix(" =").split(" + ")
    )
    return f"That is {a + b}."


def test_a_sweep_from_suite_to_report(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = lambda body: (
        correct(body) if "Please" not in body["messages"][-1]["content"] else "12"
    )
    done = evalrun(write_suite(project, chat_server), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "complete"
    assert [run["prompt"] for run in result["runs"]] == ["plain", "polite"]
    accuracy = {run["prompt"]: metric(run, "numeric") for run in result["runs"]}
    assert (accuracy["plain"]["value"], accuracy["plain"]["n"]) == (1.0, N)
    assert accuracy["polite"]["value"] == 0.0
    assert accuracy["plain"]["ci_low"] > 0.85
    assert (
        result["runs"][0]["counts"] | {"samples": N, "scored": N, "failed": 0} == result["runs"][0]["counts"]
    )
    assert sorted(chat_server.questions)[0] == "0 + 1 ="
    assert len(chat_server.bodies) == 2 * N
    folder = Path(result["folder"])
    for name in (
        "sweep.json",
        "events.jsonl",
        *(f"runs/{run['run']}/samples.parquet" for run in result["runs"]),
    ):
        assert (folder / name).stat().st_size > 0
    assert not list(folder.glob("runs/*/journal.jsonl"))
    assert "<html" in Path(result["report"]).read_text()[:200]


def metric(run: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [each for each in run["metrics"] if each["name"] == name and not each["slice"]]
    return found


def test_the_same_suite_again_is_answered_by_the_cache_and_measures_nothing(
    project: Path, chat_server: ChatServer
) -> None:
    chat_server.answer = correct
    suite = write_suite(project, chat_server)
    assert evalrun(suite, "--no-report").returncode == 0
    sent = len(chat_server.bodies)
    again = json.loads(evalrun(suite, "--no-report", "--json").stdout)
    assert len(chat_server.bodies) == sent
    run = again["runs"][0]
    assert run["counts"]["cached"] == N
    assert metric(run, "numeric")["value"] == 1.0
    speeds = [each for each in run["metrics"] if each["name"].startswith("performance.e2e_s")]
    assert all(each["value"] is None or each["n"] == 0 for each in speeds)
    assert evalrun(suite, "--no-report", "--no-cache").returncode == 0
    assert len(chat_server.bodies) == 2 * sent


def test_gates_decide_the_exit_code(project: Path, chat_server: ChatServer) -> None:
    suite = write_suite(project, chat_server, gates=["numeric >= 0.5"])
    done = evalrun(suite, "--json", "--no-report")
    assert done.returncode == 1
    gates = json.loads(done.stdout)["gates"]
    assert [gate["verdict"] for gate in gates] == ["fail", "fail"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"scorerz": ["numeric"]}, "scorers"),
        ({"prompts": [{"id": "p", "text": "{{ aa }}"}]}, "aa"),
        ({"prompts": [{"id": "p", "file": "nowhere.j2"}]}, "nowhere.j2"),
        ({"datasets": [{"id": "sums", "path": "nowhere.jsonl"}]}, "nowhere.jsonl"),
        ({"gates": ["numeric is good"]}, "numeric is good"),
        ({"parse": ["last_numbr"]}, "last_number"),
    ],
)
def test_bad_input_is_one_clear_message_and_nothing_is_sent(
    project: Path, chat_server: ChatServer, changes: dict[str, Any], expected: str
) -> None:
    done = evalrun(write_suite(project, chat_server, **changes))
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert chat_server.bodies == []


def test_a_server_that_is_not_there(project: Path, chat_server: ChatServer) -> None:
    suite = write_suite(project, chat_server)
    chat_server.stop()
    done = evalrun(suite)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert str(chat_server.port) in done.stderr


def test_a_server_that_dies_in_the_middle_and_comes_back(project: Path, chat_server: ChatServer) -> None:
    async def dying(body: dict[str, Any], request: Any) -> Any:
        if len(chat_server.bodies) > N // 2:
            request.transport.close()
            return None
        return await chat_server._plain(body, request)

    chat_server.answer = correct
    chat_server.behaviour = dying
    suite = write_suite(
        project, chat_server, performance={"concurrency": 2, "retries": 0}, errors={"tolerate": "20%"}
    )
    done = evalrun(suite, "--prompts", "plain", "--json")
    assert done.returncode == 3, done.stdout
    assert json.loads(done.stdout)["status"] == "incomplete"
    answered = chat_server.questions[: N // 2]
    chat_server.behaviour = chat_server._plain
    chat_server.bodies.clear()
    again = evalrun(suite, "--prompts", "plain", "--json", "--no-cache")
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout)
    assert result["resumed"]
    assert not set(chat_server.questions) & set(answered), "what was answered is not asked again"
    assert metric(result["runs"][0], "numeric")["value"] == 1.0


def test_kill_9_and_the_same_command_again(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = correct
    chat_server.delay_s = 0.02
    suite = write_suite(project, chat_server)
    process = subprocess.Popen(
        [sys.executable, "-m", "evalrun", str(suite), "--no-cache", "--no-report"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while len(chat_server.bodies) < N + N // 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.1)
    done = evalrun(suite, "--no-cache", "--no-report", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["resumed"]
    in_flight = 4
    assert 2 * N <= len(chat_server.bodies) <= 2 * N + in_flight
    for run in result["runs"]:
        assert run["counts"]["samples"] == N
        assert metric(run, "numeric")["value"] == 1.0


def test_ctrl_c_stops_cleanly_and_says_how_to_resume(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = correct
    chat_server.delay_s = 0.05
    suite = write_suite(project, chat_server)
    process = subprocess.Popen(
        [sys.executable, "-m", "evalrun", str(suite), "--no-report"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(chat_server.bodies) < 10:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "same command" in output + errors
    sent = len(chat_server.bodies)
    assert evalrun(suite, "--no-report", "--no-cache").returncode == 0
    assert len(chat_server.bodies) == 2 * N and sent < N


def test_failures_are_retried_reported_and_kept_out_of_n(project: Path, chat_server: ChatServer) -> None:
    from aiohttp import web

    async def behaviour(body: dict[str, Any], request: Any) -> Any:
        question = body["messages"][-1]["content"]
        if question.startswith("3 +"):
            return web.json_response({"error": {"message": "it broke"}}, status=500)
        if question.startswith("4 +") and chat_server.questions.count(question) == 1:
            return web.json_response({"error": {"message": "busy"}}, status=429, headers={"Retry-After": "0"})
        return web.json_response(completion(correct(body)))

    chat_server.behaviour = behaviour
    suite = write_suite(project, chat_server)
    done = evalrun(suite, "--prompts", "plain", "--json", "--no-report")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)["runs"][0]
    assert run["counts"]["failed"] == 1
    assert run["counts"]["retried"] >= 1
    assert (metric(run, "numeric")["value"], metric(run, "numeric")["n"]) == (1.0, N - 1)
    assert metric(run, "error_rate")["value"] == pytest.approx(1 / N)
    assert chat_server.questions.count("3 + 4 =") == 2, "one retry, as the suite says"


def test_recorded_answers_are_scored_without_a_model(project: Path, chat_server: ChatServer) -> None:
    suite = write_suite(
        project,
        chat_server,
        models=[{"id": "old", "provider": "recorded", "path": "answers.jsonl"}],
        prompts=[{"id": "as-asked", "text": "{{ a }} + {{ b }}"}],
    )
    answers = [{"sample_id": f"q{i}", "output": str(2 * i + 1 + (i < 10))} for i in range(N)]
    (project / "answers.jsonl").write_text("".join(json.dumps(each) + "\n" for each in answers))
    done = evalrun(suite, "--json", "--no-report")
    assert done.returncode == 0, done.stderr
    assert metric(json.loads(done.stdout)["runs"][0], "numeric")["value"] == 0.75
    assert chat_server.bodies == []


def test_two_at_once_in_one_store(project: Path, chat_server: ChatServer) -> None:
    chat_server.answer = correct
    suite = write_suite(project, chat_server)
    command = [sys.executable, "-m", "evalrun", str(suite), "--no-report", "--no-cache", "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = [json.loads(process.communicate(timeout=60)[0]) for process in both]
    assert len({result["sweep"] for result in results}) == 2
    assert len(chat_server.bodies) == 4 * N
    listed = json.loads(evalrun("list", "--json").stdout)
    assert len(listed) == 2


def test_list_show_and_reindex(project: Path, chat_server: ChatServer) -> None:
    suite = write_suite(project, chat_server)
    first = json.loads(evalrun(suite, "--json", "--no-report").stdout)
    (project / ".evalrun" / "catalog.db").unlink()
    assert json.loads(evalrun("reindex", "--json").stdout)["sweeps"] == 1
    shown = json.loads(evalrun("show", first["sweep"][:10], "--json").stdout)
    assert shown["sweep"] == first["sweep"]
    assert "numeric" in evalrun("show", "latest").stdout
    missing = evalrun("show", "ZZZ")
    assert missing.returncode == 2 and "Traceback" not in missing.stderr


def test_only_the_owner_can_read_what_was_stored(project: Path, chat_server: ChatServer) -> None:
    suite = write_suite(project, chat_server)
    assert evalrun(suite, "--no-report").returncode == 0
    for folder, _, files in os.walk(project / ".evalrun"):
        assert Path(folder).stat().st_mode & 0o077 == 0, folder
        for name in files:
            assert (Path(folder) / name).stat().st_mode & 0o077 == 0, Path(folder) / name
