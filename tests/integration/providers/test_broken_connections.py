"""Servers that are absent, hang up, cut their answer short or speak something else."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from evalrun.errors import ExitCode, UserError
from evalrun.types import ErrorKind, ProviderError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def kind(provider: Any, request: Any) -> ErrorKind:
    with pytest.raises(ProviderError) as caught:
        await asyncio.wait_for(provider.generate(request), 5)
    assert caught.value.message
    return caught.value.kind


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def test_refused(provider_for: Any, ask: Any) -> None:
    assert await kind(provider_for(f"http://127.0.0.1:{closed_port()}/v1"), ask()) is ErrorKind.CONNECTION


@pytest.mark.parametrize("reset", [False, True])
async def test_hung_up_before_the_answer(serve_bytes: Any, provider_for: Any, ask: Any, reset: bool) -> None:
    assert await kind(provider_for(await serve_bytes(b"", reset)), ask()) is ErrorKind.CONNECTION


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    ("answer", "stream"),
    [
        (HEAD + b'Content-Length: 900\r\n\r\n{"choices":', False),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b'{"choices":'), False),
        (STREAM + chunked(EVENT), True),
        (STREAM + chunked(EVENT) + chunked(END), True),
        (STREAM + b"ff\r\n" + EVENT, True),
    ],
)
async def test_cut_in_the_middle(
    serve_bytes: Any, provider_for: Any, ask: Any, answer: bytes, stream: bool, reset: bool
) -> None:
    provider = provider_for(await serve_bytes(answer, reset))
    assert await kind(provider, ask(stream=stream)) is ErrorKind.TRUNCATED


async def test_cut_after_done_is_an_answer(serve_bytes: Any, provider_for: Any, ask: Any) -> None:
    answer = STREAM + chunked(EVENT) + chunked(END + b"data: [DONE]\n\n")
    provider = provider_for(await serve_bytes(answer))
    assert (await provider.generate(ask(stream=True))).output == "a"


async def test_a_stream_without_a_length_ends_with_its_connection(
    serve_bytes: Any, provider_for: Any, ask: Any
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    assert (
        await provider_for(await serve_bytes(head + EVENT + END)).generate(ask(stream=True))
    ).output == "a"


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 64])
async def test_not_http(serve_bytes: Any, provider_for: Any, ask: Any, answer: bytes) -> None:
    assert await kind(provider_for(await serve_bytes(answer)), ask()) is ErrorKind.PROTOCOL


@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_that_breaks_the_rules_of_http(
    serve_bytes: Any, provider_for: Any, ask: Any, stream: bool
) -> None:
    answer = STREAM + chunked(EVENT) + b"zz\r\nnot a chunk\r\n"
    got = await kind(provider_for(await serve_bytes(answer)), ask(stream=stream))
    assert got in (ErrorKind.TRUNCATED, ErrorKind.PROTOCOL)


async def test_invalid_json(serve_bytes: Any, provider_for: Any, ask: Any) -> None:
    provider = provider_for(await serve_bytes(HEAD + b'Content-Length: 5\r\n\r\n{"a":'))
    assert await kind(provider, ask()) is ErrorKind.PROTOCOL


async def test_tls_spoken_to_a_server_without_it(serve_bytes: Any, provider_for: Any, ask: Any) -> None:
    base_url = (await serve_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")).replace("http:", "https:")
    with pytest.raises(ProviderError, match="TLS") as caught:
        await asyncio.wait_for(provider_for(base_url).generate(ask()), 5)
    assert caught.value.kind is ErrorKind.CONNECTION


async def test_a_server_that_is_not_there_is_reported_at_the_start(provider_for: Any) -> None:
    provider = provider_for(f"http://127.0.0.1:{closed_port()}/v1")
    with pytest.raises(UserError, match="is not there") as caught:
        await provider.start()
    assert caught.value.exit_code is ExitCode.INCOMPLETE and caught.value.problems[0].remedy


async def test_a_host_without_an_address_is_reported_at_the_start(provider_for: Any) -> None:
    with pytest.raises(UserError, match="is not there"):
        await provider_for("http://no-such-host.invalid/v1").start()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0\r\n", b""])
async def test_any_answer_at_the_start_will_do(serve_bytes: Any, provider_for: Any, answer: bytes) -> None:
    await provider_for(await serve_bytes(answer)).start()


async def test_the_only_model_is_taken_where_none_is_named(serve_bytes: Any, provider_for: Any) -> None:
    def listing(body: bytes) -> bytes:
        return HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)

    provider = provider_for(await serve_bytes(listing(b'{"data":[{"id":"only"}]}')), model=None)
    await provider.start()
    assert provider.identity()["model"] == "only"
    assert provider.model == "only"
    provider = provider_for(await serve_bytes(listing(b'{"data":[{"id":"one"},{"id":"two"}]}')), model=None)
    with pytest.raises(UserError, match="one, two"):
        await provider.start()


def self_signed(key: Path, certificate: Path) -> ssl.SSLContext:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    command += ["-days", "1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    return tls


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
async def test_a_certificate_nobody_signed(provider_for: Any, ask: Any, tmp_path: Path) -> None:
    """The handshake fails by default; verify_tls: false goes on."""
    tls = self_signed(tmp_path / "key.pem", tmp_path / "cert.pem")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"choices":[{"message":{"content":"a"}}]}'
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    base_url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    with pytest.raises(UserError, match="TLS"):
        await provider_for(base_url).start()
    with pytest.raises(ProviderError, match="TLS"):
        await provider_for(base_url).generate(ask())
    assert (await provider_for(base_url, verify_tls=False).generate(ask())).output == "a"
    server.close()
