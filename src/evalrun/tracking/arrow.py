"""Python values as Arrow arrays, made from their buffers.

`pyarrow.array` would do, but its first call imports pandas: most of a second and 70 MB, which a small run
feels. Only pyarrow and numpy are needed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from evalrun.tracking.columns import AS_JSON, BOOLEAN, INTEGER, NUMBER, STRING, json_text
from evalrun.tracking.plain import clean_text

ENCODING = b"evalrun.encoding"
"""Key in a column's metadata; the value is `json` where its strings are JSON text."""

_TYPES = {
    STRING: pa.string(),
    AS_JSON: pa.string(),
    INTEGER: pa.int64(),
    NUMBER: pa.float64(),
    BOOLEAN: pa.bool_(),
}


def arrow_schema(columns: Sequence[tuple[str, str]], metadata: Mapping[str, str]) -> pa.Schema:
    """The Arrow schema of columns given as (name, kind)."""
    return pa.schema(
        [
            pa.field(
                clean_text(name), _TYPES[kind], metadata={ENCODING: b"json"} if kind == AS_JSON else None
            )
            for name, kind in columns
        ],
        metadata=dict(metadata),
    )


def arrow_array(values: Sequence[Any], kind: str) -> pa.Array:
    """The values as an Arrow array of the kind's type. A value that does not fit is made to, or null."""
    nulls = values.count(None)
    if nulls == len(values):
        return pa.nulls(nulls, _TYPES[kind])
    if kind == AS_JSON:
        values = [None if value is None else json_text(value) for value in values]
        nulls = values.count(None)
    make = _strings if kind in (STRING, AS_JSON) else _numbers
    try:
        return make(values, kind, nulls)
    except (TypeError, ValueError, OverflowError):
        values = [_fitted(value, kind) for value in values]
        return make(values, kind, values.count(None))


def _strings(values: Sequence[Any], _kind: str, nulls: int) -> pa.Array:
    texts = ["" if value is None else value for value in values] if nulls else values
    joined = "".join(texts)
    data = joined.encode()  # a lone surrogate raises ValueError
    lengths = map(len, texts) if len(data) == len(joined) else (len(text.encode()) for text in texts)
    offsets = np.zeros(len(texts) + 1, np.int32)
    np.cumsum(np.fromiter(lengths, np.int32, len(texts)), out=offsets[1:])
    buffers = [_validity(values, nulls), pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(values), buffers, nulls)


def _numbers(values: Sequence[Any], kind: str, nulls: int) -> pa.Array:
    filled = [0 if value is None else value for value in values] if nulls else values
    if kind == BOOLEAN:
        data = np.packbits(np.fromiter(filled, np.bool_, len(filled)), bitorder="little")
    else:
        data = np.fromiter(filled, np.int64 if kind == INTEGER else np.float64, len(filled))
    return pa.Array.from_buffers(
        _TYPES[kind], len(values), [_validity(values, nulls), pa.py_buffer(data)], nulls
    )


def _validity(values: Sequence[Any], nulls: int) -> pa.Buffer | None:
    if not nulls:
        return None
    present = np.fromiter((value is not None for value in values), np.bool_, len(values))
    return pa.py_buffer(np.packbits(present, bitorder="little"))


def _fitted(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind in (STRING, AS_JSON):
        return clean_text(value if isinstance(value, str) else json_text(value))
    try:
        if kind == INTEGER:
            number = int(value)
            return number if -(1 << 63) <= number < 1 << 63 else None
        return float(value) if kind == NUMBER else bool(value)
    except (TypeError, ValueError, OverflowError):
        return None
