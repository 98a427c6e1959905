"""Spans of time as people write them."""

from __future__ import annotations

import re
from datetime import datetime, time, tzinfo

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)\Z")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def span_s(text: str) -> float | None:
    """The seconds of `30s`, `5m`, `2h`, `30d`; None for anything else, and for nothing at all."""
    match = _SPAN.fullmatch(text.strip())
    return float(match[1]) * _SECONDS[match[2]] or None if match else None


_HOURS = re.compile(r"(\d\d?):(\d\d)\s*(?:-|to)\s*(\d\d?):(\d\d)(?:\s+(\S+))?")


def hours_of(text: str) -> tuple[time, time, tzinfo]:
    """`22:00-07:00 Europe/Berlin` as begin, end and zone (UTC where none is named). Raises ValueError."""
    from zoneinfo import ZoneInfo

    match = _HOURS.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"'{text}' are no hours: write 22:00-07:00 or 22:00-07:00 Europe/Berlin")
    try:
        begin, end = time(int(match[1]), int(match[2])), time(int(match[3]), int(match[4]))
        zone = ZoneInfo(match[5] or "UTC")
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(f"'{text}' are no hours: {error}") from None
    if begin == end:
        raise ValueError(f"'{text}' are no hours: they end when they begin")
    return begin, end, zone


def within_hours(text: str, at: float) -> bool:
    """Whether a moment (Unix seconds) lies in hours of the day, which may go over midnight."""
    begin, end, zone = hours_of(text)
    now = datetime.fromtimestamp(at, zone).time()
    return begin <= now < end if begin < end else now >= begin or now < end
