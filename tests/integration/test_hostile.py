"""Servers that mean no good or are badly made, through the whole program: each answer that is there is taken,
each that is not fails as what it is, nothing waits past its deadline and nothing ends the sweep.

Each question of one run names what is done to it, so that all of it happens at once.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_faults import (
    BUSY,
    DEADLINE_S,
    GOOD,
    HANG_UP,
    PAGE,
    STALL,
    STREAM,
    Fault,
    FaultServer,
    chat,
    chunk,
    http,
)

from evalrun.tracking.parquet import iter_samples

FINISH = json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}).encode()
USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}).encode()


def delta(text: str) -> bytes:
    """A chunk with that text, which is JSON already."""
    return b'{"choices": [{"index": 0, "delta": {"content": "%b"}, "finish_reason": null}]}' % text.encode()


def sse(*data: bytes, end: bytes = b"\n") -> bytes:
    return b"".join(b"data: " + each + end + end for each in data)


def stream(body: bytes) -> bytes:
    return STREAM + chunk(body) + b"0\r\n\r\n"


def answer(message: str, more: str = "") -> bytes:
    body = f'{{"choices": [{{"index": 0, "message": {message}, "finish_reason": "stop"}}]{more}}}'
    return http("200 OK", body.encode())


def encoded(body: bytes, coding: str) -> bytes:
    return http("200 OK", body, "application/json", f"Content-Encoding: {coding}")


def length(value: str) -> bytes:
    """The good answer with another Content-Length."""
    head, _, body = GOOD.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    return b"\r\n".join([*lines, value.encode()]) + b"\r\n\r\n" + body


def slowly(times: int, piece: bytes) -> list[Any]:
    return [piece, 0.1] * times


def scored(play: Any) -> Fault:
    return Fault(play, None, "scored")


def failed(play: Any, error: str = "", attempts: int = 2) -> Fault:
    return Fault(play, None, "failed", error, attempts)


DONE = (FINISH, USAGE, b"[DONE]")
TEXT = '{"content": "42"}'
HOSTILE: dict[str, Fault] = {
    # The rules of HTTP.
    "chunk-garbage": failed([STREAM, b"ZZZ\r\nhello\r\n", HANG_UP]),
    "chunk-garbage-later": failed([STREAM, 0.2, b"ZZZ\r\nhello\r\n", STALL], "truncated"),
    "chunk-negative": failed([STREAM, b"-5\r\nhello\r\n", HANG_UP]),
    "length-too-short": failed(length("Content-Length: 1"), ""),
    "length-too-long": failed([length("Content-Length: 9999"), STALL], "timeout", 1),
    "length-twice": failed(length("Content-Length: 5\r\nContent-Length: 158"), "protocol"),
    "length-in-words": failed(length("Content-Length: many"), "protocol"),
    "header-of-1-mb": failed(http("200 OK", chat("42"), "a/b", f"X: {'a' * 1_000_000}"), "protocol"),
    "headers-without-end": failed(
        http("200 OK", chat("42"), "a/b", *(f"X-{n}: {'b' * 99}" for n in range(20_000))), "protocol"
    ),
    "http-1.0": scored([b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + chat("42"), HANG_UP]),
    "early-hints": scored([b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 0.1, GOOD]),
    "continue": scored([b"HTTP/1.1 100 Continue\r\n\r\n", 0.1, GOOD]),
    "trailers": scored(STREAM + chunk(sse(delta("42"), *DONE)) + b"0\r\nX-T: 1\r\n\r\n"),
    "no-content": failed(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "status-999": failed(http("999 Odd", b"no"), "HTTP 999"),
    "redirect": failed(
        http("307 Temporary Redirect", b"", "text/plain", "Location: http://127.0.0.1:1/v1"), "redirects", 1
    ),
    "wrong-charset": scored(http("200 OK", chat("42 é"), "application/json; charset=utf-16")),
    # Compression that nobody asked for.
    "gzip": scored(encoded(gzip.compress(chat("42")), "gzip")),
    "gzip-that-is-none": failed(encoded(chat("42"), "gzip")),
    "gzip-bomb": failed(encoded(gzip.compress(b" " * 80_000_000, 1), "gzip"), "longer than 64 MiB"),
    # Streams of events.
    "crlf": scored(stream(sse(delta("4"), delta("2"), *DONE, end=b"\r\n"))),
    "cr": scored(stream(sse(delta("42"), *DONE, end=b"\r"))),
    "comments": scored(stream(b": ping\n\n" + sse(delta("42")) + b":\n\n: x\n" + sse(*DONE))),
    "no-space": scored(stream(sse(delta("42"), *DONE).replace(b"data: ", b"data:"))),
    "several-lines": scored(stream(sse(delta("42").replace(b"[", b"[\ndata: ", 1), *DONE))),
    "byte-order-mark": scored(stream(b"\xef\xbb\xbf" + sse(delta("42"), *DONE))),
    "ids-and-names": scored(stream(b"id: 1\nevent: message\nretry: 5\n" + sse(delta("42"), *DONE))),
    "long-line": scored(stream(sse(delta("42" + "x" * 2_000_000), *DONE))),
    "never-closes": scored([STREAM + chunk(sse(delta("42"), *DONE)), STALL]),
    "no-end": failed(STREAM + b"0\r\n\r\n", "truncated"),
    "half-a-character-a-chunk": scored(stream(sse(delta("42 \\ud83d"), delta("\\ude00"), *DONE))),
    "odd-tool-calls": scored(
        stream(sse(delta("42").replace(b'"content"', b'"tool_calls": [{"index": "a"}], "content"'), *DONE))
    ),
    "pings-forever": failed([STREAM, *slowly(60, chunk(b": ping\n\n"))], "timeout", 1),
    "drip": failed([STREAM, *slowly(60, b"1\r\n:\r\n")], "timeout", 1),
    "head-drips": failed([b"HTTP/1.1 200 OK\r\nX: ", *slowly(60, b"y")], "timeout", 1),
    # What stands in the body.
    "error-in-200": failed(http("200 OK", b'{"error": {"message": "no cheese", "code": 500}}'), "no cheese"),
    "usage-null": scored(answer(TEXT, ', "usage": null')),
    "usage-in-words": scored(answer(TEXT, ', "usage": "many"')),
    "usage-of-strings": scored(answer(TEXT, ', "usage": {"prompt_tokens": "7", "completion_tokens": "1"}')),
    "usage-of-nonsense": scored(answer(TEXT, ', "usage": {"prompt_tokens": {}, "completion_tokens": 1e99}')),
    "not-a-number": scored(answer(TEXT, ', "created": NaN')),
    "half-a-character": scored(answer('{"content": "42 \\ud83d"}')),
    "mark-before-json": scored(http("200 OK", b"\xef\xbb\xbf" + chat("42"))),
    "odd-names": scored(answer(TEXT, ', "model": {"a": 1}, "system_fingerprint": [1]')),
    "odd-reasoning": scored(answer('{"content": "42", "reasoning_content": {"x": [1]}}')),
    "control-characters": scored(answer('{"content": "42\\u0000\\u0001"}')),
    "deep": failed(http("200 OK", b"[" * 100_000), "protocol"),
    "deep-tool-calls": failed(
        answer(f'{{"content": "42", "tool_calls": {"[" * 900 + "]" * 900}}}'), "nested too deeply"
    ),
    "content-is-a-number": failed(answer('{"content": 42}'), "protocol"),
    "choices-is-an-object": failed(http("200 OK", b'{"choices": {"0": 1}}'), "protocol"),
    "choice-is-null": failed(http("200 OK", b'{"choices": [null]}'), "protocol"),
    "429-forever": failed(http("429 Too Many Requests", BUSY), "rate_limit"),
    "429-page": failed(http("429 Too Many Requests", PAGE, "text/html"), "rate_limit"),
}  # fmt: skip


def sweep(folder: Path, server: FaultServer, performance: dict[str, Any]) -> list[dict[str, Any]]:
    """The samples of one run with a row for each thing that the server does."""
    suite = {
        "name": "hostile",
        "models": [
            {
                "id": "m",
                "provider": "openai_compatible",
                "model": "m",
                "base_url": f"http://127.0.0.1:{server.port}/by-question/v1",
            }
        ],
        "prompts": [{"id": "p", "text": "{{ q }}"}],
        "datasets": [{"id": "d", "rows": [{"q": name, "t": "42"} for name in HOSTILE], "target": "t"}],
        "parse": [{"regex": "(42)"}],
        "scorers": ["exact_match"],
        "performance": {"concurrency": len(HOSTILE), "retries": 1, "timeout_s": DEADLINE_S, **performance},
    }
    (folder / "suite.yaml").write_text(json.dumps(suite))
    command = [
        sys.executable,
        "-m",
        "evalrun",
        "suite.yaml",
        "--store",
        "s",
        "--no-report",
        "--quiet",
        "--json",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (samples,) = folder.glob("s/sweeps/*/runs/*/samples.parquet")
    return list(iter_samples(samples, decode=True))


@pytest.mark.parametrize(
    "performance", [{"stream": False}, {"stream": True}, {"stream": True, "workers": 2}], ids=str
)
def test_each_ends_as_it_should(tmp_path: Path, performance: dict[str, Any]) -> None:
    with FaultServer(HOSTILE) as server:
        samples = sweep(tmp_path, server, performance)
    wrong = []
    for sample in samples:
        name = sample["vars.q"]
        fault = HOSTILE[name]
        log = sample["attempt_log"] or []
        spent_s = sum(each["duration_s"] + each["wait_s"] for each in log)
        ended = (sample["status"], sample["attempts"], server.seen[name, name])
        late = spent_s > DEADLINE_S + 2.0
        # On a busy machine the deadline may come before the second attempt has ended.
        timed_out = fault.status == "failed" and (sample["error"] or "").startswith("timeout")
        as_it_should = ended == (fault.status, fault.attempts, fault.attempts) and fault.error in (
            sample["error"] or ""
        )
        if late or not (as_it_should or (timed_out and fault.attempts == 2 and len(log) == 2)):
            wrong.append((name, *ended, sample["error"], round(spent_s, 2)))
        if fault.status == "scored":
            assert sample["output"].startswith("42") and "\ud83d" not in sample["output"]
    assert not wrong
    assert len(samples) == len(HOSTILE)
