"""Values of typed formats (Parquet, the Hub, YAML) as JSON values."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import math
import uuid
from collections.abc import Mapping

from evalrun.types import JSON

_AS_THEY_ARE = frozenset({str, int, bool, type(None)})


def json_row(row: Mapping[str, object]) -> dict[str, JSON]:
    """A row whose values JSON can hold. Raises ValueError that names the column of one that it cannot."""
    result = {}
    for column, value in row.items():
        if type(value) in _AS_THEY_ARE:
            result[column] = value
            continue
        try:
            result[column] = json_value(value)
        except ValueError as error:
            raise ValueError(f"column '{column}' holds {error}") from error
    return result


def json_value(value: object) -> JSON:
    """A value as JSON has it.

    Dates and times become ISO 8601 text, decimals their digits as text, bytes a text with their length
    and digest. Raises ValueError for numbers that are not finite and for other objects.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise ValueError("a number that is not finite (NaN or infinity)")
            return value
        case list() | tuple():
            return [json_value(item) for item in value]
        case Mapping():
            return {str(key): json_value(item) for key, item in value.items()}
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            return value.total_seconds()
        case decimal.Decimal() | uuid.UUID():
            return str(value)
        case bytes():
            return f"<{len(value)} bytes, sha256 {hashlib.sha256(value).hexdigest()}>"
    raise ValueError(f"a {type(value).__name__}, which is neither text, number, list nor mapping")
