"""Any value as JSON that can be written, read back and hashed: documents, text without surrogates."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import orjson

from evalrun.errors import UserError
from evalrun.types import JSON

_OPTIONS = (
    orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
)


def clean_text(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced by U+FFFD: UTF-8 can hold it."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def flatten(params: Mapping[str, JSON], prefix: str = "") -> Iterator[tuple[str, JSON]]:
    """Parameters with dotted names: {"a": {"b": 1}} gives ("a.b", 1). Empty objects are values."""
    for key, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def plain(value: Any) -> Any:
    """The value made of dict, list, str, int, float, bool and None only.

    Dataclasses become dicts, enums their values, numbers that are not finite None, anything else its text.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {clean_text(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return [plain(item) for item in sorted(value, key=str)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain(value.tolist())
    return clean_text(str(value))


def document_bytes(value: Any) -> bytes:
    """A document as indented JSON in UTF-8."""
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except TypeError:
        # Lone surrogates, integers beyond 64 bits, objects: rare, and none of them may lose a document.
        text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"


def read_document(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises UserError that names the file when it is missing or broken."""
    try:
        value = _loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    except ValueError as error:
        raise UserError(f"is not valid JSON: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise UserError("is not a JSON object", where=str(path))
    return value


def _loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data)  # integers too large for a double
