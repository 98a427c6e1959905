"""Posting a JSON document to a webhook: to public addresses, or where the user wrote the machine out."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import socket
import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 10.0


def post(url: str, document: Any, *, private_network: bool = False, timeout_s: float = TIMEOUT_S) -> str:
    """Post a JSON document. Returns what went wrong, empty where nothing did. Raises nothing."""
    try:
        return _post(url, json.dumps(document).encode(), private_network, timeout_s)
    except (OSError, http.client.HTTPException, ValueError) as error:
        # Its text may hold the address: the kind of error is enough.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else ""
        return f"the webhook cannot be reached: {reason or type(error).__name__}"


def _post(url: str, body: bytes, private_network: bool, timeout_s: float) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    addresses = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not _written_out(host) and not private_network and not all(map(_public, addresses)):
        return (
            "not posted: the webhook's host stands for a private address "
            "(alerts: {private_network: true} allows it)"
        )
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.sock = _connected(addresses, port, timeout_s)
        if secure:
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Content-Type": "application/json", "User-Agent": "evalrun"}
        connection.request("POST", path, body, headers)
        status = connection.getresponse().status
    finally:
        connection.close()
    return "" if 200 <= status < 300 else f"the webhook answered with status {status}"


def _connected(addresses: Sequence[str], port: int, timeout_s: float) -> socket.socket:
    """A connection to the first address that takes one; some may be out of this machine's reach."""
    for address in addresses[:-1]:
        with contextlib.suppress(OSError):
            return socket.create_connection((address, port), timeout_s)
    return socket.create_connection((addresses[-1], port), timeout_s)


def _written_out(host: str) -> bool:
    """Whether the suite itself names the machine: an address, or this one."""
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_global and not (mapped or found).is_multicast


def escaped(text: str) -> str:
    """Text that Slack shows as it is: no links, no mentions, one line."""
    flat = " ".join("".join(char if char.isprintable() else " " for char in text).split())[:500]
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
