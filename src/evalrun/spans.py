"""Spans of time as people write them."""

from __future__ import annotations

import re

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)\Z")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def span_s(text: str) -> float | None:
    """The seconds of `30s`, `5m`, `2h`, `30d`; None for anything else, and for nothing at all."""
    match = _SPAN.fullmatch(text.strip())
    return float(match[1]) * _SECONDS[match[2]] or None if match else None
