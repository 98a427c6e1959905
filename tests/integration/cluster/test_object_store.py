"""Segments in a bucket: created only once, whatever the store answers, and without any secret."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from aiohttp import web
from tests.integration.cluster.conftest import BUCKET, runs_of, write_suite
from tests.integration.cluster.faulty_store import Fault, FaultyStore
from tests.program import evalrun
from tests.servers import ChatServer

from evalrun.cluster import place as places
from evalrun.errors import UserError

pytest.importorskip("ray", reason="needs ray (extra: ray)")
pytest.importorskip("obstore", reason="needs obstore (extra: ray)")


@contextlib.contextmanager
def faulty(bucket: FaultyStore, fault: Fault) -> Iterator[None]:
    """The store with a fault, from the first request on."""
    bucket.counts.clear()
    bucket.fault = fault
    try:
        yield
    finally:
        bucket.fault = lambda method, path, number: ""


@pytest.mark.parametrize("fault", ["500", "409", "stall", "lost"])
def test_one_write_is_one_object(
    bucket: FaultyStore, fault: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A write that fails, stalls, meets another or loses its answer is made again; the bytes are those."""
    monkeypatch.setattr(places, "_TIMEOUT_S", 1)
    place = places.Place(f"s3://{BUCKET}/{request.node.name}")
    with faulty(bucket, lambda method, path, number: fault if method == "PUT" and number == 1 else ""):
        place.put_new("a/b", b"first")
    assert bucket.counts["PUT"] >= 2
    assert place.put_new("a/b", b"second") is False
    assert (place.get("a/b"), place.names("a"), place.get("a/c")) == (b"first", ["a/b"], None)


def test_no_right_to_write(bucket: FaultyStore, tmp_path: Path, on: str) -> None:
    """One message, exit code 3, nothing asked."""
    place = places.Place(f"s3://{BUCKET}/denied")
    suite = write_suite(tmp_path, "http://127.0.0.1:9/v1", 3)
    with faulty(bucket, lambda method, path, number: "403" if method == "PUT" else ""):
        with pytest.raises(UserError, match="cannot be written"):
            place.put_new("x", b"")
        done = evalrun(suite, "--on", on, "--at", f"s3://{BUCKET}/denied", "--no-report", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "the right to list, read and create" in done.stderr and "very-secret" not in done.stderr


def test_a_sweep_in_a_bucket_that_fails(
    on: str, bucket: FaultyStore, tmp_path: Path, chat_server: ChatServer
) -> None:
    """Every sample is there once, few objects are put, and none holds a secret, also where a server says the
    key that it was sent in its error."""
    suite = write_suite(
        tmp_path, chat_server.base_url, 300, model={"api_key_env": "AWS_SECRET_ACCESS_KEY"},
        errors={"tolerate": 0.1},
    )  # fmt: skip
    answered = chat_server.behaviour

    async def echo(body: dict[str, Any], request: web.Request) -> web.StreamResponse:
        if not body["messages"][-1]["content"].endswith("7?"):
            return await answered(body, request)
        said = {"error": {"message": f"bad key {request.headers['Authorization']}", "type": "invalid"}}
        return web.json_response(said, status=400)

    chat_server.behaviour = echo
    at = f"s3://{BUCKET}/failing"

    def fault(method: str, path: str, number: int) -> str:
        return "500" if number % 3 == 0 else "409" if method == "PUT" and number % 3 == 1 else ""

    with faulty(bucket, fault):
        done = evalrun(suite, "--on", on, "--at", at, "--store", "s", "--no-report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(runs_of(tmp_path / "s")) == 1
    assert len(chat_server.bodies) == len(set(chat_server.questions)) == 300
    place = places.Place(at)
    names = place.names("")
    assert len(names) <= 6
    failed = 0
    for name in names:
        data = place.get(name) or b""
        if name.endswith(".zst"):  # compressed: what it says, and not its bytes
            with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as file:
                data = file.read()
        failed += data.count(b"bad key")
        assert b"very-secret" not in data and b"AKIAOFTESTS" not in data, name
    assert failed >= 30
    for path in (tmp_path / "s").rglob("*"):
        assert path.is_dir() or b"very-secret" not in path.read_bytes(), path


def test_a_store_that_accepts_and_does_not_keep(
    on: str, bucket: FaultyStore, tmp_path: Path, chat_server: ChatServer
) -> None:
    """Found before anything is asked: what was created is read back."""
    suite = write_suite(tmp_path, chat_server.base_url, 30)
    with faulty(bucket, lambda method, path, number: "lie" if method == "PUT" else ""):
        done = evalrun(suite, "--on", on, "--at", f"s3://{BUCKET}/lie", "--no-report", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "writes over" in done.stderr or "not there" in done.stderr
    assert chat_server.bodies == []


def test_segments_that_a_store_loses(
    on: str, bucket: FaultyStore, tmp_path: Path, chat_server: ChatServer
) -> None:
    """Their samples are asked again a few times; then the sweep ends, and what was gathered is kept."""
    suite = write_suite(tmp_path, chat_server.base_url, 30)

    def fault(method: str, path: str, number: int) -> str:
        return "lie" if method == "PUT" and "/segments/" in path else ""

    words = (suite, "--on", on, "--at", f"s3://{BUCKET}/loses", "--store", "s", "--no-report")
    with faulty(bucket, fault):
        done = evalrun(*words, cwd=tmp_path)
    assert done.returncode in (0, 3), done.stderr
    if done.returncode == 3:
        assert "not where they were written" in done.stderr
        done = evalrun(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(chat_server.bodies) <= 30 * 4
