"""What a turn sees of the way to a deployment: its address, how long its certificate holds, whether this
machine has a network at all."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import tempfile
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

TIMEOUT_S = 5.0
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Wire:
    """The address that the host's name stood for, and the days that its certificate holds; "" and None where
    that cannot be seen."""

    address: str = ""
    tls_days: float | None = None

    def reaches(self, control: str) -> bool:
        """Whether the control answers by HTTP, whatever it says."""
        parts = urlsplit(control)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        try:
            connection.request("HEAD", parts.path or "/", headers={"User-Agent": "evalrun"})
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True


async def look(endpoint: str) -> Wire:
    """Look at an endpoint (`https://host:port`); whatever fails is left out."""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return Wire()
    return await asyncio.to_thread(_look, parts.hostname, parts.port, parts.scheme == "https")


def _look(host: str, port: int | None, secure: bool) -> Wire:
    address, days = "", None
    with contextlib.suppress(OSError, ValueError, AttributeError, KeyError):
        port = port or (443 if secure else 80)
        address = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
        if secure:
            days = _days_left(host, port)
    return Wire(address, days)


def _days_left(host: str, port: int) -> float | None:
    """Days until the certificate ends; below 0 once it has. It is not checked here: requests check it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, port), TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as wrapped,
    ):
        der = wrapped.getpeercert(binary_form=True)
    if der is None:
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(ssl.DER_cert_to_PEM_cert(der))
        file.flush()
        # What `getpeercert` says of a certificate that was checked; this says it of any.
        said = getattr(ssl, "_ssl")._test_decode_cert(file.name)  # noqa: B009
    return round((ssl.cert_time_to_seconds(said["notAfter"]) - time.time()) / DAY_S, 3)
