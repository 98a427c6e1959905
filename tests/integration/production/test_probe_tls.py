"""A probe over TLS: real certificates on loopback, one that holds for days and one that has expired."""

from __future__ import annotations

import ipaddress
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import evalrun

pytest.importorskip("cryptography", reason="needs the extra sign")

SOURCE = str(Path(evalrun.__file__).parents[1])
SUITE = """
name: tls
models: [{id: live, provider: openai_compatible, base_url: "https://127.0.0.1:%d/v1", model: m}]
prompts: [{id: p, messages: [{role: user, content: "{{ q }}"}]}]
datasets: [{id: d, rows: [{q: a}, {q: b}], target: "{{ 'x' }}"}]
scorers: [exact_match]
alerts: {when: [tls_days < 14]}
probe: {every: 5m}
"""


def certificate(path: Path, days: float) -> Path:
    """A certificate of 127.0.0.1, signed by itself, that ends in so many days; with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=90))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


class Chat(BaseHTTPRequestHandler):
    """Answers x."""

    def do_GET(self) -> None:
        self._say({"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
        self._say({"id": "c", "model": "m", "choices": [choice], "usage": {}})

    def _say(self, document: object) -> None:
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(pem: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


@pytest.mark.parametrize(("days", "state", "code"), [(60.0, "up", 0), (-3.0, "down", 1)])
def test_the_days_of_a_certificate_are_told_and_alarmed_about(
    tmp_path: Path, days: float, state: str, code: int
) -> None:
    pem, suite = certificate(tmp_path / "own.pem", days), tmp_path / "probe.yaml"
    with serving(pem) as port:
        suite.write_text(SUITE % port)
        command = [sys.executable, "-m", "evalrun", "probe", str(suite), "--once", "--json"]
        # A process of its own: the certificates that are trusted are read once.
        done = subprocess.run(
            [*command, "--report", "page.html"], cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "SSL_CERT_FILE": str(pem), "PYTHONPATH": SOURCE},
        )  # fmt: skip
    told = json.loads(done.stdout)
    assert told["tls_days_left"] == pytest.approx(days, abs=0.01)
    assert told["status"] == state and done.returncode == code
    page = (tmp_path / "page.html").read_text()
    assert ("expired 3 days ago" if days < 0 else f"{days:.0f} days left") in page
    assert [each["name"] for each in told["alerts"]] == (["tls_days < 14"] if days < 14 else [])
