"""Servers that misbehave on purpose, through the whole program: each sample ends in the status it should
have, with the attempts it should have taken, and nothing waits past its deadline.

All faults are models of a few suites, swept side by side. What a provider makes of each fault is
tested closer by in `tests/integration/providers`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from evalrun.tracking.parquet import iter_samples

DEADLINE_S = 3.0
SAMPLES = 2
SWEEPS = 4


def http(status: str, body: bytes = b"", kind: str = "application/json", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def chat(content: Any, **more: Any) -> bytes:
    choices = [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 5, "completion_tokens": 1}
    return json.dumps({"choices": choices, "usage": usage, **more}).encode()


def event(**delta: Any) -> bytes:
    data = json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    return chunk(f"data: {data}\n\n".encode())


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


GOOD = http("200 OK", chat("42"))
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BUSY = b'{"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}'
PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body></html>"
STALL, HANG_UP, RESET = object(), object(), object()


def limited(*headers: str) -> bytes:
    return http("429 Too Many Requests", BUSY, "application/json", *headers)


@dataclass(frozen=True)
class Fault:
    """What the server does to the first attempt and to all later ones, and what must come of it.

    A play is bytes, or a list of bytes, seconds to wait, STALL (never go on), HANG_UP and RESET.
    """

    first: Any
    then: Any
    status: str
    error: str = ""
    attempts: int = 1
    least_s: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)


FAULTS: dict[str, Fault] = {
    "429-none": Fault(limited(), GOOD, "scored", attempts=2),
    "429-seconds": Fault(limited("Retry-After: 1"), GOOD, "scored", attempts=2, least_s=1.0),
    "429-past-date": Fault(limited("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"), GOOD, "scored", attempts=2),
    "429-words": Fault(limited("Retry-After: soon"), GOOD, "scored", attempts=2),
    "429-negative": Fault(limited("Retry-After: -7"), GOOD, "scored", attempts=2),
    "429-absurd": Fault(limited("Retry-After: 99999999"), GOOD, "failed", "rate_limit: HTTP 429"),
    "429-far-date": Fault(
        limited("Retry-After: Wed, 21 Oct 2099 07:28:00 GMT"), GOOD, "failed", "rate_limit: HTTP 429"
    ),
    "408": Fault(http("408 Request Timeout"), GOOD, "scored", attempts=2),
    "500": Fault(http("500 Internal Server Error", b'{"error": "boom"}'), GOOD, "scored", attempts=2),
    "500-always": Fault(
        http("500 Internal Server Error", b'{"error": "boom"}'), None, "failed", "HTTP 500: boom", attempts=2
    ),
    "502-page": Fault(
        http("502 Bad Gateway", PAGE, "text/html"), None, "failed", "502 Bad Gateway", attempts=2
    ),
    "out-of-memory": Fault(
        http("500 Internal Server Error", b'{"error": {"message": "CUDA out of memory"}}'),
        None, "failed", "CUDA out of memory", attempts=2,
    ),
    "401": Fault(http("401 Unauthorized", b'{"error": {"message": "bad key"}}'), GOOD, "failed", "auth"),
    "422": Fault(http("422 Unprocessable", b'{"detail": "no"}'), GOOD, "failed", "bad_request"),
    "slow-head": Fault([b"HTTP/1.1 200 OK\r\nContent-Ty", STALL], GOOD, "failed", "timeout"),
    "silent": Fault([STALL], GOOD, "failed", "timeout"),
    "slow-body": Fault([GOOD[:-40], STALL], GOOD, "failed", "timeout"),
    "cut-body": Fault([GOOD[:-20], HANG_UP], GOOD, "scored", attempts=2),
    "cut-body-always": Fault([GOOD[:-20], HANG_UP], None, "failed", "truncated", attempts=2),
    "hang-up": Fault([HANG_UP], GOOD, "scored", attempts=2),
    "reset": Fault([RESET], GOOD, "scored", attempts=2),
    "reset-always": Fault([RESET], None, "failed", "connection", attempts=2),
    "stream-stall": Fault([STREAM, event(content="4"), STALL], GOOD, "failed", "timeout"),
    "stream-dies": Fault([STREAM, event(content="4"), HANG_UP], GOOD, "scored", attempts=2),
    "stream-dies-always": Fault([STREAM, event(content="4"), RESET], None, "failed", "truncated", attempts=2),
    "stream-ends-early": Fault(
        [STREAM, event(content="4"), b"0\r\n\r\n"], None, "failed", "truncated", attempts=2
    ),
    "stream-error": Fault(
        [STREAM, event(content="4"), chunk(b'data: {"error": {"message": "worker died", "code": 500}}\n\n')],
        None, "failed", "worker died", attempts=2,
    ),
    "invalid-json": Fault(http("200 OK", b'{"choices": ['), None, "failed", "protocol", attempts=2),
    "no-choices": Fault(http("200 OK", b'{"choices": []}'), None, "failed", "protocol", attempts=2),
    "not-http": Fault([b"SSH-2.0-OpenSSH_9.6\r\n", HANG_UP], None, "failed", "protocol", attempts=2),
    "web-page": Fault(http("200 OK", PAGE, "text/html"), None, "failed", "protocol", attempts=2),
    "null-content": Fault(http("200 OK", chat(None)), None, "unparsed"),
    "plain-type": Fault(http("200 OK", chat("42"), "text/plain"), None, "*"),
}  # fmt: skip


def length_in(head: str) -> int:
    _, found, rest = head.lower().partition("content-length:")
    return int(rest.split()[0]) if found else 0


class FaultServer:
    """Plays the fault that the path names (/FAULT/v1/chat/completions), or the question where the path says
    by-question; by the attempts of each question."""

    def __init__(self, faults: Mapping[str, Fault] = FAULTS) -> None:
        self._faults = faults
        self.seen: dict[tuple[str, str], int] = {}
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> FaultServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                start = await reader.readexactly(1)
                if start == b"\x16":  # a TLS handshake
                    writer.write(http("400 Bad Request"))
                    return
                head = (start + await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    (int(line[15:]) for line in head.lower().splitlines() if line[:15] == "content-length:"),
                    0,
                )
                body = await reader.readexactly(length)
                if head.startswith("GET"):
                    writer.write(http("200 OK", b'{"data": [{"id": "m"}]}'))
                    continue
                question = json.loads(body)["messages"][-1]["content"]
                name = head.split("/")[1]
                if name == "by-question":
                    name = question
                self.seen[name, question] = attempt = self.seen.get((name, question), 0) + 1
                fault = self._faults[name]
                play = fault.first if attempt == 1 or fault.then is None else fault.then
                if not await self._play(writer, play if isinstance(play, list) else [play]):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _play(self, writer: asyncio.StreamWriter, steps: list[Any]) -> bool:
        for step in steps:
            if step is STALL:
                await asyncio.sleep(1000)
            elif isinstance(step, float):
                await asyncio.sleep(step)
            elif step is HANG_UP:
                return False
            elif step is RESET:
                writer.transport.abort()
                return False
            else:
                writer.write(step)
                await writer.drain()
        return True


def write_suite(folder: Path, models: str, more: str = "") -> None:
    rows = ", ".join(f"{{q: q{number}, t: '42'}}" for number in range(SAMPLES))
    (folder / "s.yaml").write_text(
        f"""
name: faults
models:
{models}
prompts: [{{id: p, messages: [{{role: user, content: "{{{{ q }}}}"}}]}}]
datasets: [{{id: d, rows: [{rows}], target: "{{{{ t }}}}"}}]
parse: [{{regex: "(42)"}}]
scorers: [exact_match]
{more}
"""
    )


def evalrun(folder: Path, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evalrun", "s.yaml", "--store", "s", "--no-report", "--quiet", "--json"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout_s)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, list[Any]], FaultServer]]:
    """The samples by fault of sweeps that met them all, and the server. Most of a sweep's time is waiting."""
    names = list(FAULTS)
    with FaultServer() as server, ThreadPoolExecutor() as together:

        def sweep(names: list[str]) -> dict[str, list[Any]]:
            folder = tmp_path_factory.mktemp("faults")
            models = "\n".join(
                f"  - {{id: '{name}', provider: openai_compatible, model: m,"
                f" base_url: 'http://127.0.0.1:{server.port}/{name}/v1'}}"
                for name in names
            )
            performance = (
                f"performance: {{stream: true, concurrency: 4, retries: 1, timeout_s: {DEADLINE_S}}}"
            )
            write_suite(folder, models, f"errors: {{tolerate: 100%}}\n{performance}")
            done = evalrun(folder)
            assert done.returncode == 0, done.stderr[-3000:]
            found = {}
            for run in json.loads(done.stdout)["runs"]:
                (samples,) = folder.glob(f"s/sweeps/*/runs/{run['run']}/samples.parquet")
                found[run["model"]] = list(iter_samples(samples, decode=True))
            return found

        parts = together.map(sweep, [names[at::SWEEPS] for at in range(SWEEPS)])
        found = {name: samples for part in parts for name, samples in part.items()}
        yield found, server


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_ends_as_it_should(swept: tuple[dict[str, list[Any]], FaultServer], name: str) -> None:
    fault, samples, server = FAULTS[name], swept[0][name], swept[1]
    assert len(samples) == SAMPLES
    for sample in samples:
        if fault.status == "*":
            assert sample["status"] in ("scored", "failed")
            continue
        assert sample["status"] == fault.status, (sample["status"], sample["error"])
        assert fault.error in (sample["error"] or ""), sample["error"]
        assert sample["attempts"] == fault.attempts, sample["error"]
        question = sample["vars.q"]
        assert server.seen[name, question] == fault.attempts, "as many requests came as attempts are recorded"
        if fault.status == "failed":
            assert (
                sample["output"] is None
                and sample["e2e_s"] is None
                and sample.get("score.exact_match") is None
            )
        else:
            assert sample["e2e_s"] is not None


@pytest.mark.parametrize("name", FAULTS)
def test_no_sample_takes_longer_than_its_deadline(
    swept: tuple[dict[str, list[Any]], FaultServer], name: str
) -> None:
    fault = FAULTS[name]
    for sample in swept[0][name]:
        log = sample["attempt_log"] or []
        spent = sum(attempt["duration_s"] + attempt["wait_s"] for attempt in log)
        assert spent <= DEADLINE_S + 2.0, log  # what a busy machine adds
        if fault.least_s:
            assert log[0]["wait_s"] >= fault.least_s, "Retry-After is never shortened"
        if fault.error == "timeout":
            assert spent >= DEADLINE_S - 0.1, "and not before it"


def test_tls_with_a_server_that_speaks_none(tmp_path: Path) -> None:
    with FaultServer() as server:
        write_suite(
            tmp_path,
            f"  - {{id: m, provider: openai_compatible, model: m,"
            f" base_url: 'https://127.0.0.1:{server.port}/500/v1'}}",
        )
        done = evalrun(tmp_path)
    assert done.returncode == 3 and "TLS" in done.stderr and "Traceback" not in done.stderr
    assert server.seen == {}


MODEL = "{id: m, provider: llamacpp, model: smollm2-135m-instruct"
ENGINE = f"  - {MODEL}, params: {{max_tokens: 900, ignore_eos: true}}%s}}"


def _catalogued() -> bool:
    from evalrun.providers import catalogue

    return catalogue.where("smollm2-135m-instruct") is not None


needs_engine = [
    pytest.mark.engine,
    pytest.mark.skipif(not _catalogued(), reason="the weights of smollm2-135m-instruct are not here"),
]


class TestEngine:
    pytestmark = needs_engine

    def test_out_of_memory_at_the_start(self, tmp_path: Path) -> None:
        """A context of 3 * 10^7 tokens wants some 700 GB; one of more takes long to be refused."""
        write_suite(tmp_path, ENGINE % ", ctx: 30000000, slots: 1")
        done = evalrun(tmp_path)
        assert done.returncode == 3, done.stderr
        assert "engine" in done.stderr and "memory" in done.stderr and "Traceback" not in done.stderr

    def test_killed_while_it_answers(self, tmp_path: Path) -> None:
        """As the kernel does when memory runs out. The run ends, says why, and the same command resumes."""
        write_suite(tmp_path, ENGINE % "", "performance: {retries: 1, timeout_s: 3600}")
        command = [sys.executable, "-m", "evalrun", "s.yaml", "--store", "s", "--no-report", "--quiet"]
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        deadline = time.monotonic() + 60
        journal: list[Path] = []
        while time.monotonic() < deadline and not journal:
            journal = list(tmp_path.glob("s/sweeps/*/runs/*/system.jsonl"))
            journal = [path for path in journal if b'"inference"' in path.read_bytes()]
            time.sleep(0.05)
        assert journal, "the run did not begin"
        engines = [
            child for child in psutil.Process(process.pid).children(recursive=True)
            if "llamacpp_server" in " ".join(child.cmdline())
        ]  # fmt: skip
        assert engines
        for engine in engines:
            os.kill(engine.pid, signal.SIGKILL)
        _, stderr = process.communicate(timeout=120)  # long before the hour that an answer may take
        assert process.returncode == 3, stderr
        assert b"SIGKILL" in stderr and b"Traceback" not in stderr
