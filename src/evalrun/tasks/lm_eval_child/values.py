"""Faults, and values as JSON has them."""

from __future__ import annotations

import contextlib
import math
from typing import Any


class Fault(Exception):
    """What the user got wrong: what, and what to do about it."""

    def __init__(self, what: str, remedy: str = "", kind: str = "task") -> None:
        super().__init__(what)
        self.what, self.remedy, self.kind = what, remedy, kind


def number(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    with contextlib.suppress(TypeError, ValueError):
        number = float(value)
        return number if math.isfinite(number) else None
    return plain(value)


def plain(value: Any) -> Any:
    """A value as JSON has it; what has no such form as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if callable(getattr(value, "tolist", None)):
        return plain(value.tolist())
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return str(value)


def file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in text)[:80]


def first_line(error: BaseException) -> str:
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0]).splitlines()[0][:300]
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
