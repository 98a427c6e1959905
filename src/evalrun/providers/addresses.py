"""Addresses of servers: what may stand as `base_url`, and the part of it that limits are shared on."""

from __future__ import annotations

from urllib.parse import urlsplit

_EXAMPLE = "http://127.0.0.1:8000/v1"


def http_address(value: str) -> str:
    """The address without a slash at its end.

    Raises ValueError when it is not http:// or https:// with a host.
    """
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"must be an http:// or https:// address with a host, such as {_EXAMPLE}")
    return value.rstrip("/").removesuffix("/chat/completions")


def origin(address: str) -> str:
    """scheme://host:port of an address: what limits are shared on. No userinfo, so no secret."""
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}"
