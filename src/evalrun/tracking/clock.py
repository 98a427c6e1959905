"""What time it is, as it is written down."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> str:
    """The time as ISO 8601 in UTC, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
